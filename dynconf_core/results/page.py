"""The README of an exported run, as Markdown: its tables, hardware, versions, training and command."""

from collections.abc import Mapping, Sequence
from typing import Any

from dynconf_core.choosing.entries import ComparisonRow
from dynconf_core.exit.judgement import Judgement
from dynconf_core.exit.shown import points
from dynconf_core.experiment.recipe import OPTIONS
from dynconf_core.results.environment import Environment
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.types import RunResult, SettingResult

TRACES = (
    "`NAME-calibration.npz` and `NAME-test.npz` hold the traces: logits rounded to as few digits as leave every prediction and "
    "every exit unchanged. Run `dynconf analyse` on this folder to repeat the analyses."
)

TUNED = "`NAME-fine-tuning.json` is the record of a fine-tuning; `NAME-training.json` that of the training before it."


def run_page(result: RunResult, training: Mapping[str, Mapping[str, Any]], traces: bool = True) -> str:
    """The README of an exported run.

    Args:
        result: the run.
        training: provenance of each setting's checkpoint; empty if unknown.
        traces: whether the folder holds the traces.
    """
    parts = [
        f"# Results of {result.run}",
        _made_on(result.environment),
        results_markdown(result),
        *_at_equal_steps(result.finished),
        *_at_paper_time_steps(result.finished),
        *_equal_accuracy(result.finished),
        *_trained(training),
        "## Files",
        "`results.json` and `results.csv` hold all figures. For each setting there are the chosen rule (`NAME-rule.json`), the "
        "training record (`NAME-training.json`), the conversion report (`NAME-conversion.txt`) and plots in `figures/`.",
        *([TUNED] if any(row.tuned_here for row in result.finished) else []),
        *([TRACES] if traces else []),
        f"Command:\n\n    {result.command}",
    ]
    return "\n\n".join(parts) + "\n"


def _made_on(environment: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    hardware = environment.gpu or f"{environment.cores} cores of {environment.cpu}"
    made = f"Converted, simulated and evaluated on {hardware}; Python {environment.python}, {versions}"
    return f"{made}; commit {environment.commit}."


def _at_equal_steps(rows: Sequence[SettingResult]) -> list[str]:
    """The exit against a fixed T: the accuracy of the SNN without early exit after the same mean number of steps."""
    lines = []
    for row in rows:
        exiting, at_t = row.exit, row.accuracy_at_t
        fixed = _between_steps(at_t, exiting.mean_steps)
        equal = next((step for step, accuracy in enumerate(at_t, 1) if accuracy >= exiting.accuracy), None)
        lines.append(
            f"| {row.name} | {_percent(exiting.accuracy)} @ {exiting.mean_steps:.2f} | {_percent(fixed)} | "
            f"{100 * (exiting.accuracy - fixed):+.2f} | {'none' if equal is None else equal} |"
        )
    if not lines:
        return []
    head = (
        "| setting | exit @ steps | fixed T, same steps | points gained | fixed T, same accuracy |\n|---|---:|---:|---:|---:|"
    )
    note = (
        "For a mean number of steps between two whole numbers, accuracy is interpolated. The last column is the first step "
        "at which the accuracy is at least that of the exit."
    )
    return ["## Against a fixed T", note, "\n".join([head, *lines])]


def _between_steps(accuracy_at_t: Sequence[float], steps: float) -> float:
    """Accuracy at ``steps``, interpolated between whole numbers of steps."""
    below = min(int(steps), len(accuracy_at_t) - 1)
    share = steps - below
    return (1 - share) * accuracy_at_t[below - 1] + share * accuracy_at_t[below] if share > 0 else accuracy_at_t[below - 1]


def _at_paper_time_steps(rows: Sequence[SettingResult]) -> list[str]:
    """All rules on traces cut to T as in the paper."""
    lines = []
    for row in rows:
        if (found := row.at_paper_time_steps) is not None:
            first = f"{row.name}, {_percent(found.snn_accuracy)} @ {found.time_steps}"
            lines += _rule_lines(first, found.comparison, found.time_steps)
    return ["## With T as in the paper", *_rule_table("setting, SNN @ T", lines)] if lines else []


def _equal_accuracy(rows: Sequence[SettingResult]) -> list[str]:
    lines = []
    for row in rows:
        lines += _rule_lines(f"{row.name}, {_percent(row.snn_accuracy)} @ {row.time_steps}", row.comparison, row.time_steps)
    return ["## All rules at equal accuracy", *_rule_table("setting, SNN @ T", lines)] if lines else []


def _rule_table(heading: str, lines: Sequence[str]) -> list[str]:
    head = f"| {heading} | rule | 0 | 0.1 | 0.5 | 1 point |\n|---|---|---:|---:|---:|---:|"
    return [
        "Mean steps, saving, and points lost or gained on the test images. The headings give the drop allowed in expectation, "
        "for which smoothing and threshold were chosen on the calibration images.",
        "\n".join([head, *lines]),
    ]


def _rule_lines(first: str, rows: Sequence[ComparisonRow], time_steps: int) -> list[str]:
    """One line per rule, with one cell per allowed drop."""
    lines: list[str] = []
    for measure in dict.fromkeys(row.measure for row in rows):
        cells = [_cell(row.test, time_steps) for row in rows if row.measure == measure]
        lines.append(f"| {first if not lines else ''} | {measure} | {' | '.join(cells)} |")
    return lines


def _cell(test: Judgement, time_steps: int) -> str:
    saving = 100 * (1 - test.mean_steps / time_steps)
    return f"{test.mean_steps:.2f}, {saving:.1f} % ({points(test.loss)})"


def _trained(training: Mapping[str, Mapping[str, Any]]) -> list[str]:
    known = {name: entry for name, entry in training.items() if "recipe" in entry}
    if not known:
        return []
    lines = ["| network | parameters | epochs | recipe | seed | device | hours |", "|---|---:|---:|---|---:|---|---:|"]
    for name, entry in known.items():
        recipe, record = entry["recipe"], entry["record"]
        threads = f", {entry['threads']} thread{'s'[: entry['threads'] > 1]}" if "threads" in entry else ""
        lines.append(
            f"| {name} | {entry['parameters']} | {recipe['epochs']} | {_recipe(recipe)} | {entry['seed']} | "
            f"{entry['device']}{threads} | {record['seconds'] / 3600:.2f} |"
        )
    return ["## Training", "\n".join(lines)]


def _recipe(recipe: Mapping[str, Any]) -> str:
    """The augmentations, and the options of a recipe that is not the plain one."""
    options = [f"{name}={recipe[name]}" for name in OPTIONS if name in recipe]
    return ", ".join([" ".join(recipe["augmentation"]) or "no augmentation", *options])


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
