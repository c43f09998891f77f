"""Runs and sweeps as Markdown tables; cells and notes are shared with the tables on a terminal."""

import statistics
from collections.abc import Sequence

from dynconf_core.exit.shown import points_in_words, saved_in_words
from dynconf_core.experiment.plan import Published
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.results.run_names import titled
from dynconf_core.results.types import AnySetting, RunResult, SettingResult, SweepResult

HEADINGS = ("setting", "ANN", "SNN @ T", "exit @ steps", "saving", "speedup", "oracle @ steps")
PAPER = "paper: SNN → exit"
LABELS = "[S] stated by the source, [2] second-hand."


def results_markdown(result: RunResult) -> str:
    """The table of a run, as Markdown."""
    lines = [f"**{title(result)}**", "", "| " + " | ".join((*HEADINGS, PAPER)) + " |"]
    lines.append("|" + "|".join(["---", *["---:"] * (len(HEADINGS) - 1), "---"]) + "|")
    lines += ["| " + " | ".join((*cells(row), paper_cell(row))) + " |" for row in result.settings]
    return "\n".join([*lines, "", *(f"{note}  " for note in notes(result))])


def sweep_markdown(result: SweepResult) -> str:
    """The Pareto front of a sweep, chosen on the calibration split, with the figures of both splits, as Markdown."""
    lines = [f"**Pareto front of each setting, chosen on the calibration split; profile {result.profile}**", ""]
    lines += ["| setting | values | calibration: exit @ steps | test: exit @ steps |", "|---|---|---:|---:|"]
    for point in result.front:
        values = ", ".join(f"{name}={short(value)}" for name, value in point.values.items())
        chosen = f"{in_percent(point.calibration_accuracy)} @ {point.calibration_mean_steps:.2f}"
        tested = f"{in_percent(point.accuracy)} @ {point.mean_steps:.2f}"
        lines.append(f"| {point.setting} | {values} | {chosen} | {tested} |")
    return "\n".join([*lines, "", "Accuracies in %."])


def title(result: RunResult) -> str:
    """The title of a run's table, which names every reduction."""
    rows = result.finished
    stands_in: dict[str, list[str]] = {}
    for row in rows:
        others = stands_in.setdefault(row.data.name, [])
        if row.data.stands_in_for and row.data.stands_in_for not in others:
            others.append(row.data.stands_in_for)
    data = [f"{name} instead of {' and '.join(others)}" if others else name for name, others in stands_in.items()]
    widths = dict.fromkeys(f"width {row.network.width:g}" for row in rows if row.network.width != 1)
    return "; ".join([f"Profile {titled(result.profile, result.seed, result.overrides)}", *data, *widths])


def notes(result: RunResult, papers: bool = False) -> list[str]:
    """All notes below the table: those of ``short_notes``, the meaning of the columns, and the paper's further figures.

    Args:
        result: the run.
        papers: whether to include the paper's figures for the settings, for a table without a column for them.
    """
    rows = result.finished
    lines = short_notes(result, each=True)
    labels = f" {LABELS}" if of_paper(result) else ""
    lines.append(f"Accuracies in % of the test images; oracle: exit at the first correct step.{labels}")
    if papers:
        lines += [f"Paper, {row.name}: {paper_cell(row)}." for row in rows if row.paper]
    for note in result.paper_footnotes:
        before = f"@ {note.time_steps} → " if note.time_steps else ""
        lines.append(f"Paper, {note.family}, network not named: {before}@ {note.mean_steps} steps [{note.label}].")
    return lines


def short_notes(result: RunResult, each: bool = False) -> list[str]:
    """The notes without which the table misleads: failures, the mean saving and its baseline, rounding, and warnings.

    Args:
        result: the run.
        each: whether to say what rounding the weights changes in each setting, besides the mean.
    """
    rows = result.finished
    lines = [f"{row.name} {ending(row.error)}" for row in result.failed]
    if rows and result.mean_latency_saving is not None:
        lost = statistics.fmean(row.snn_accuracy - row.exit.accuracy for row in rows)
        fixed = statistics.fmean(row.baseline("iso_accuracy").latency_saving for row in rows)
        lines += [
            f"Mean over {_count(rows)}: {percent(result.mean_latency_saving)} of the time steps saved, "
            f"{points_in_words(lost)}{' (the paper, over the same eight: 40 %, none lost)' if all_of_paper(rows) else ''}.",
            f"Against the iso-accuracy baseline (the first step as accurate on calibration as T): {saved_in_words(fixed)}.",
            *_rounding([row for row in rows if not row.tuned_here], each),
            *_fine_tuned(rows),
        ]
    return [*lines, *(f"Warning, {row.name}: {text}" for row in rows for text in row.warnings)]


def cells(row: AnySetting) -> list[str]:
    """The cells of a setting, in the order of ``HEADINGS``."""
    if not isinstance(row, SettingResult):
        return [row.name, _ended(row.error), *["—"] * (len(HEADINGS) - 2)]
    exiting, oracle = row.exit, row.oracles.first_correct
    return [
        row.name,
        "—" if row.ann_accuracy is None else in_percent(row.ann_accuracy),
        f"{in_percent(row.snn_accuracy)} @ {row.time_steps}",
        f"{in_percent(exiting.accuracy)} @ {exiting.mean_steps:.2f}",
        f"{100 * exiting.latency_saving:.1f} %",
        f"{exiting.speedup:.2f}x",
        f"{in_percent(oracle.accuracy)} @ {oracle.mean_steps:.2f}",
    ]


def all_of_paper(rows: Sequence[SettingResult]) -> bool:
    """Whether these are the paper's eight settings, so that its mean may stand beside theirs."""
    return {row.name for row in rows} == set(SETTINGS)


def of_paper(result: RunResult) -> bool:
    """Whether figures of the paper stand beside or below those of a run."""
    return bool(result.paper_footnotes) or any(paper_cell(row) for row in result.settings)


def ending(error: str) -> str:
    """How a setting or point without figures ended, and where: "failed at train: ..." or "stopped at train: ..."."""
    return f"{_ended(error)} at {error}"


def _ended(error: str) -> str:
    return "stopped" if "interrupted" in error else "failed"


def paper_cell(row: AnySetting) -> str:
    """The paper's figures for a setting; "" if there are none."""
    return published_cell(row.paper.rows[0]) if isinstance(row, SettingResult) and row.paper else ""


def published_cell(published: Published) -> str:
    """A row of the paper, with the figures that are known."""
    before = _at(published.snn_accuracy, published.time_steps)
    after = _at(published.exit_accuracy, published.mean_steps)
    return f"{before} → {after} [{published.label}]".strip()


def short(value: object) -> str:
    """The value of a swept field, shortened."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_percent(fraction: float) -> str:
    """A fraction in per cent without the sign, such as 94.30."""
    return f"{100 * fraction:.2f}"


def percent(fraction: float) -> str:
    """A fraction as a percentage, such as 94.3 %."""
    return f"{100 * fraction:.1f} %"


def _rounding(rows: Sequence[SettingResult], each: bool) -> list[str]:
    """A note on what rounding the weights changes; none if it changes nothing."""
    known = [
        (row.name, row.ann_accuracy, row.reference_accuracy)
        for row in rows
        if row.ann_accuracy is not None and row.reference_accuracy is not None
    ]
    moved = [(name, ann, reference) for name, ann, reference in known if ann != reference]
    if not moved:
        return []
    mean = statistics.fmean(reference - ann for _, ann, reference in known)
    shown = ", ".join(f"{name} {in_percent(ann)} → {in_percent(reference)}" for name, ann, reference in moved)
    return [
        f"Rounding the weights to fixed point changes the ANN's accuracy by {100 * mean:+.2f} points on average"
        + (f" ({shown})." if each else ".")
    ]


def _fine_tuned(rows: Sequence[SettingResult]) -> list[str]:
    """What ANN and SNN are of the settings that were fine-tuned, and what the fine-tuned networks reach themselves."""
    tuned = [(row, row.fine_tuning) for row in rows if row.fine_tuning is not None]
    if not tuned:
        return []
    found = {True: list[str](), False: list[str]()}
    for row, how in tuned:
        itself = "" if row.reference_accuracy is None else f", itself {in_percent(row.reference_accuracy)} with rounded weights"
        found[row.tuned_here].append(f"{row.name} {how}{itself}")
    texts = {
        True: "Fine-tuned as an SNN between training and conversion, which the paper's networks were not; ANN is the network "
        "before it: ",
        False: "Given as a checkpoint that had been fine-tuned as an SNN, which the paper's networks were not; ANN is that "
        "network: ",
    }
    return [f"{texts[here]}{'; '.join(each)}." for here, each in found.items() if each]


def _at(fraction: float | None, steps: float | None) -> str:
    parts = [None if fraction is None else in_percent(fraction), None if steps is None else f"@ {steps}"]
    return " ".join(part for part in parts if part)


def _count(rows: Sequence[object]) -> str:
    return "one setting" if len(rows) == 1 else f"{len(rows)} settings"
