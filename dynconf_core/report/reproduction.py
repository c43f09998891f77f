"""The report of a reproduction: all settings side by side, then each on its own."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynconf_core.data.class_names import class_names
from dynconf_core.evaluation.curves import Curves
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.exit.shown import points_in_words, saved_in_words
from dynconf_core.report import network_panels, panels
from dynconf_core.report.closing import closing, facts
from dynconf_core.report.content import Cell, Figure, Item, Missing, Report, Section, Table, Text
from dynconf_core.report.palette import AGAINST, ANSWERS, DROPS, MARKED, PAPER, SERIES
from dynconf_core.report.samples import pictures
from dynconf_core.report.sources import Sources
from dynconf_core.report.wording import DASH, count, listed, number, percent
from dynconf_core.results.markdown import LABELS, all_of_paper, ending, of_paper, paper_cell
from dynconf_core.results.types import RunResult, SettingResult

MEANING = {
    "smoke": "The figures show that the pipeline works, not how well the method does",
    "paper": "What is named here differs from the paper",
}
"""What the figures of a profile are worth where something was reduced or replaced."""
COLUMNS = ("setting", "ANN", "SNN", "T", "exit", "steps", "lost", "saved", "iso", "oracle", "the paper: SNN → exit")


def reproduction(result: RunResult, sources: Sources, data: Path | None = None) -> Report:
    """The report of a reproduction.

    Args:
        result: its results.
        sources: where its curves and conversion reports are.
        data: the folder of the data sets, for the images; None leaves out those that are not installed with the project.
    """
    rows, curves = result.finished, {row.name: sources.curves(row) for row in result.finished}
    shown = _pictures(rows, curves, data)
    several = len(rows) > 1
    missing = f"its curves are missing: {sources.where()}"
    sections = [
        Section("Results", [_table(result)], "Click on a heading to sort by it."),
        Section(
            "Accuracy against latency",
            [
                panels.latency(
                    curves[row.name],
                    row.accuracy_at_t,
                    row.exit,
                    row.baseline("iso_accuracy"),
                    row.name,
                    _paper_point(row),
                )
                for row in rows
            ],
            "Every threshold of the chosen rule, beside an SNN that always stops at a fixed step and the best that an "
            "exit which knows the labels could do with so many steps (not the table's oracle: see the glossary). "
            "Left and up is better. " + panels.CHANCE,
            legend=SERIES | MARKED | (PAPER if any(_paper_point(row) for row in rows) else {}),
        ),
    ]
    if rows:
        sections.append(Section("Steps saved", [_savings(rows)]))
    sections += [
        Section(
            "When images exit",
            [panels.histogram(row.exit, row.name) for row in rows],
            "Most images need few steps, a few need many.",
        ),
        Section(
            "Rules at equal accuracy",
            [panels.rules(row.comparison, row.time_steps, row.name) for row in rows],
            "The mean steps of each confidence measure where so many points of accuracy may be lost in expectation. Chosen "
            "on the calibration images, shown on the test images; the bars are 95 % intervals. Colours: what may be lost. The "
            "chosen rule's measure may have other figures here: its smoothing was searched over many values, each measure "
            "here has the best of a short list.",
            legend=DROPS,
        ),
        Section(
            "Easy and hard images",
            [
                panels.images(found, shown.get(row.data.name, {}), class_names(row.data.name, data) or (), row.name)
                if (found := curves[row.name]) is not None
                else Missing(f"The images cannot be shown: {missing}.", row.name)
                for row in rows
            ],
            "The four test images that exit first and the four that exit last. A cell is a time step: the fuller its colour, "
            "the closer the confidence is to the threshold. Black line: the exit, with its step and, if it is wrong, the "
            "answer.",
            legend=ANSWERS,
        ),
        Section(
            "Each setting",
            folded=[_setting(row, curves[row.name], sources, missing) for row in rows],
            lead="Rule, baselines, conversion by layer, reliability, robustness and energy of each setting. Click to open."
            if several
            else "Rule, baselines, conversion by layer, reliability, robustness and energy.",
        ),
        *closing(result.environment, result.command, sources.command()),
    ]
    warnings = [f"{row.name}: {warning}" for row in rows for warning in row.warnings]
    warnings = [*(f"{row.name} {ending(row.error)}" for row in result.failed), *warnings]
    if result.tracking_error:
        warnings.append(f"Not logged to MLflow: {result.tracking_error}")
    return Report(
        f"{result.run} · profile {result.profile}, seed {result.seed}", *_headline(result), _banner(result), warnings, sections
    )


def _headline(result: RunResult) -> tuple[str, str, list[str]]:
    rows = result.finished
    if not rows:
        return "0", f"of {count(len(result.settings), 'setting')} finished", []
    if len(rows) == 1:
        row = rows[0]
        fixed, oracle = row.baseline("iso_accuracy"), row.oracles.first_correct
        return (
            f"{percent(row.exit.accuracy)} %",
            f"with {number(row.exit.mean_steps)} of {row.time_steps} time steps: {percent(row.exit.latency_saving, 0)} % "
            f"fewer, {points_in_words(row.exit.loss)}",
            [
                f"{row.name}. Against the first fixed step as accurate as T, step {fixed.time_steps}: "
                f"{saved_in_words(fixed.latency_saving, 0)}. An oracle would need {number(oracle.mean_steps)} steps."
            ],
        )
    saved = statistics.fmean(row.exit.latency_saving for row in rows)
    fixed_saving = statistics.fmean(row.baseline("iso_accuracy").latency_saving for row in rows)
    mean_loss = statistics.fmean(row.exit.loss for row in rows)
    told = f"fewer time steps on average over {count(len(rows), 'setting')}, {points_in_words(mean_loss)}"
    best, worst = max(rows, key=lambda row: row.exit.latency_saving), min(rows, key=lambda row: row.exit.latency_saving)
    return (
        f"{percent(saved, 0)} %",
        told,
        [
            f"From {percent(worst.exit.latency_saving, 0)} % ({worst.name}) to {percent(best.exit.latency_saving, 0)} % "
            f"({best.name}). Against the first fixed step that is as accurate as T: {saved_in_words(fixed_saving, 0)}.",
            *(["The paper gives 40 % on average over the same eight, with no accuracy lost."] if all_of_paper(rows) else []),
        ],
    )


def _banner(result: RunResult) -> str:
    rows = result.finished
    replaced: dict[str, list[str]] = {}
    for row in rows:
        if row.data.stands_in_for and row.data.stands_in_for not in replaced.setdefault(row.data.name, []):
            replaced[row.data.name].append(row.data.stands_in_for)
    reductions = [
        *(f"{name} instead of {listed(places)}" for name, places in replaced.items()),
        *dict.fromkeys(f"networks at {row.network.width:g} of their width" for row in rows if row.network.width != 1),
        *(f"{name} set to {value}" for name, value in result.overrides.items()),
    ]
    if result.profile == "paper" and not reductions:
        return ""
    told = f"Profile {result.profile}" + (f": {listed(reductions)}" if reductions else "")
    meaning = MEANING.get(result.profile, "The figures are not to be compared with the paper's")
    return f"{told}. {meaning}."


def _table(result: RunResult) -> Table:
    rows: list[list[str]] = []
    values: list[list[Cell]] = []
    for row in result.settings:
        if not isinstance(row, SettingResult):
            rows.append([row.name, "failed", *[DASH] * (len(COLUMNS) - 2)])
            values.append([row.name, *[None] * (len(COLUMNS) - 1)])
            continue
        fixed, oracle = row.baseline("iso_accuracy").latency_saving, row.oracles.first_correct.mean_steps
        rows.append(
            [
                row.name,
                percent(row.ann_accuracy),
                percent(row.snn_accuracy),
                str(row.time_steps),
                percent(row.exit.accuracy),
                number(row.exit.mean_steps),
                percent(row.exit.loss),
                f"{percent(row.exit.latency_saving, 1)} %",
                f"{percent(fixed, 1)} %",
                number(oracle),
                paper_cell(row) or DASH,
            ]
        )
        accuracies = (row.ann_accuracy, row.snn_accuracy, row.time_steps, row.exit.accuracy, row.exit.mean_steps, row.exit.loss)
        values.append([row.name, *accuracies, row.exit.latency_saving, fixed, oracle, paper_cell(row)])
    notes = [
        "ANN, SNN (at T) and exit: accuracy in % of the test images; lost: in points. saved: time steps against T; iso: "
        "against the first fixed step that is as accurate on the calibration images as T. oracle: mean steps of an exit at "
        "the first correct step.",
        *([LABELS] if of_paper(result) else []),
    ]
    for note in result.paper_footnotes:
        before = f"@ {note.time_steps} → " if note.time_steps else ""
        notes.append(f"The paper, {note.family}, network not named: {before}@ {note.mean_steps} steps [{note.label}].")
    return Table(COLUMNS, rows, values, sortable=True, note=" ".join(notes))


def _savings(rows: Sequence[SettingResult]) -> Figure:
    bars: list[dict[str, Cell]] = []
    for row in rows:
        oracle = 1 - row.oracles.first_correct.mean_steps / row.time_steps
        fixed = row.baseline("iso_accuracy").latency_saving
        for against, saving in zip(AGAINST, (row.exit.latency_saving, fixed, oracle), strict=True):
            bars.append({"setting": row.name, "against": against, "saving": panels.rounded(saving, 2)})
    full, fixed, best = (statistics.fmean(float(bar["saving"] or 0) for bar in bars[place::3]) for place in range(3))
    return Figure(
        "savings",
        f"Against T the exit saves {full:.0f} % of the steps, against a well-chosen fixed step {number(fixed, 0)} %; an "
        f"oracle would save {best:.0f} % of T",
        {"bars": panels.columns(bars, ("setting", "against", "saving"))},
        {"low": min(0.0, *(float(bar["saving"] or 0) for bar in bars))},
        note="Left of zero: the exit takes more steps than the fixed step.",
        wide=True,
    )


def _paper_point(row: SettingResult) -> OperatingPoint | None:
    """The paper's point, unless other images are shown than the paper's."""
    found = row.paper.rows[0] if row.paper and row.data.stands_in_for is None else None
    if found is None or found.exit_accuracy is None or found.mean_steps is None:
        return None
    return OperatingPoint(found.exit_accuracy, found.mean_steps)


def _pictures(
    rows: Sequence[SettingResult], curves: Mapping[str, Curves | None], data: Path | None
) -> dict[str, dict[int, str]]:
    """The easiest and hardest images of all settings, by data set and place."""
    wanted: dict[tuple[str, int], dict[int, int]] = {}
    for row in rows:
        if (found := curves[row.name]) is not None:
            labels = {one.index: one.label for one in (*found.easiest, *found.hardest)}
            wanted.setdefault((row.data.name, row.data.calibration), {}).update(labels)
    return {name: pictures(name, held, labels, data) for (name, held), labels in wanted.items()}


def _setting(row: SettingResult, curves: Curves | None, sources: Sources, missing: str) -> Section:
    lacking: list[Item] = [Missing(f"Reliability over time and robustness cannot be shown: {missing}.")]
    items: list[Item] = [
        facts(_facts(row)),
        panels.rule_table(row.exit.rule, curves.label if curves is not None else ""),
        panels.baselines(row.baselines, row.exit.mean_steps),
        panels.losses(row.comparison),
        *network_panels.by_class(row.by_class, class_names(row.data.name) or ()),
        *network_panels.conversion(sources.conversion(row), sources.where()),
    ]
    if curves is None:
        items += lacking
    else:
        if (found := curves.reliability) is not None:
            items += network_panels.reliability(
                found.ece_at_t, found.nll_at_t, found.ece_at_exit, found.at_full, found.at_exit, row.time_steps
            )
        else:
            items.append(Text(("The rule's confidence is no probability, so there is no reliability diagram.",)))
        items += network_panels.robustness(curves, row.robustness, row.snn_accuracy)
    items += network_panels.energy(
        row.energy, row.multiply_accumulates, row.synaptic_operations_per_inference, row.spikes_per_inference
    )
    steps = f"{number(row.exit.mean_steps)} of {row.time_steps} steps"
    told = f"{percent(row.exit.accuracy)} % with {steps}, {points_in_words(row.exit.loss)}"
    return Section(row.name, items, told)


def _facts(row: SettingResult) -> list[tuple[str, str]]:
    stand_in = f", instead of {row.data.stands_in_for}" if row.data.stands_in_for else ""
    width = "" if row.network.width == 1 else f" at {row.network.width:g} of its width"
    parameters = "" if row.network.parameters is None else f", {row.network.parameters:,} parameters"
    level = f", L = {row.levels}" if row.levels is not None else f", {row.bits} bits" if row.bits is not None else ""
    rounded = "fine-tuned and with rounded weights" if row.tuned_here else "with rounded weights"
    reference = "" if row.reference_accuracy is None else f", {rounded} {percent(row.reference_accuracy)} %"
    found = [
        (
            "data",
            f"{row.data.name}{stand_in}: {row.data.train:,} images to train, {row.data.calibration:,} to calibrate, "
            f"{row.data.test:,} to test",
        ),
        ("network", f"{row.network.architecture}{width}{parameters}"),
        *([] if row.fine_tuning is None else [("fine-tuning", str(row.fine_tuning))]),
        ("conversion", f"{row.method}{level}, T = {row.time_steps}" + (", weights in fixed point" if row.fixed_point else "")),
        ("ANN", f"{percent(row.ann_accuracy)} %{reference}"),
        ("stages", ", ".join(f"{name} {outcome}" for name, outcome in row.stages.items())),
    ]
    if row.resources is not None:
        memory = (
            "" if row.resources.peak_memory_bytes is None else f", {row.resources.peak_memory_bytes / 2**30:.1f} GiB at most"
        )
        found.append(("took", f"{row.resources.seconds:.0f} s{memory}"))
    return found
