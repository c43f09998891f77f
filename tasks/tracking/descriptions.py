"""The descriptions that MLflow shows on top of a run's page and beside it in a table, as Markdown: the number first."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dynconf_core.choosing.entries import RuleRecord
from dynconf_core.confidence.measure import MEASURES
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.evaluation.setting import SettingFigures
from dynconf_core.exit.judgement import OperatingPoint
from dynconf_core.exit.shown import points_in_words, threshold_text
from dynconf_core.experiment.overrides import applies
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.markdown import results_markdown, sweep_markdown
from dynconf_core.results.types import OverSeeds, RunResult, Spread, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value, as_written
from dynconf_tasks.tracking.stage_times import StageTime

LONGEST = 7500
"""Characters of a description; MLflow keeps 8000."""
MINUTE, HOUR = 60.0, 3600.0


def headline(exiting: OperatingPoint, full_steps: float, loss: float) -> str:
    """The number: accuracy with exit, mean steps, and what they save and lose against all steps."""
    points = points_in_words(loss)
    fewer = 100 * (1 - exiting.mean_steps / full_steps)
    full = f"{full_steps:.2f}".removesuffix(".00")
    steps = f"{exiting.mean_steps:.2f} of {full} steps"
    return f"{100 * exiting.accuracy:.2f} % with {steps}: {fewer:.0f} % fewer, {points}"


def rule_in_words(rule: RuleRecord, time_steps: int) -> str:
    """The exit rule as a sentence."""
    try:
        label = MEASURES.get(rule.measure).label
    except InputError:  # of a package that is not installed here
        label = "score"
    if rule.threshold in (float("inf"), float("-inf")):
        return (
            f"Exit rule: {'never before the last step' if rule.threshold > 0 else 'at the first step, always'} "
            f"(`{rule.measure}`)."
        )
    behind = "" if rule.readout is None else ", corrected by a readout for each step,"
    return (
        f"Exit rule: stop at the first step at which the {label} (`{rule.measure}`) of {_read(rule.smoothing)}{behind} passes "
        f"{threshold_text(rule.threshold, rule.threshold_shown)}, and at step {time_steps} at the latest."
    )


def setting_description(
    figures: SettingFigures,
    plan: Plan | None,
    time_steps: int,
    times: Sequence[StageTime],
    command: str | None,
    explained: str | None,
) -> str:
    """The description of the run of a setting or point.

    Args:
        figures: its figures.
        plan: its plan; None if the setting is not known any more.
        time_steps: T.
        times: of its stages, as far as they are known.
        command: that ran it; None if unknown.
        explained: the command that explains its stages; None if there is none.
    """
    rule = figures.exit.rule
    chosen = f" Chosen on calibration images, where it reaches {headline(rule.calibration, time_steps, rule.calibration.loss)}."
    parts = [
        f"**{headline(figures.exit, time_steps, figures.exit.loss)}**",
        *_warnings(figures.warnings),
        rule_in_words(rule, time_steps) + chosen,
        *([_reductions(plan)] if plan is not None else []),
        *([_taken(times)] if times else []),
        *_commands({"Run again": command, "Why each stage was computed or taken from the store": explained}),
    ]
    return _joined(parts)


def point_description(point: SweepPoint, plan: Plan | None) -> str:
    """The description of the run of a point whose evaluation is not in the store any more."""
    first = f"**{100 * point.accuracy:.2f} % with {point.mean_steps:.2f} steps** (its evaluation is not in the store any more)"
    return _joined([first, *([_reductions(plan)] if plan is not None else [])])


def failed_description(error: str, plan: Plan | None, command: str | None) -> str:
    """The description of the run of a setting or point that failed."""
    return _joined(
        [f"**Failed** at {error}", *([_reductions(plan)] if plan is not None else []), *_commands({"Run again": command})]
    )


def analysis_description(record: AnalysisRecord, source: str, out: Path | None) -> str:
    """The description of an analysis of traces."""
    counts = f"{record.calibration} calibration and {record.test} test samples, {record.classes} classes"
    guarantee = record.guarantee
    promised = (
        [
            f"Guarantee: loses at most {100 * guarantee.epsilon:g} points with probability {1 - guarantee.delta:g}"
            f"{'' if guarantee.certified else '; **nothing could be certified**'}."
        ]
        if guarantee is not None
        else []
    )
    parts = [
        f"**{headline(record.exit, record.full_steps, record.exit.loss)}**",
        *_warnings(record.warnings),
        rule_in_words(record.rule, record.time_steps),
        *promised,
        f"Traces: {counts}{f'; {source}' if source else ''}.",
        *([f"Files: `{out.resolve()}`"] if out is not None else []),
    ]
    return _joined(parts)


def run_description(result: RunResult, seeds: OverSeeds | None = None) -> str:
    """The description of a reproduction: its number, its table, its figures over several seeds, and its command."""
    rows = result.finished
    first = []
    if rows:
        count = f"{len(rows)} setting{'s'[: len(rows) > 1]}"
        saving = sum(row.exit.latency_saving for row in rows) / len(rows)
        loss = sum(row.exit.loss for row in rows) / len(rows)
        first = [f"**{100 * saving:.0f} % fewer steps on average over {count}, {points_in_words(loss)}**"]
    warned = [f"{row.name}: {text}" for row in rows for text in row.warnings]
    table = results_markdown(result)
    over = [seeds_markdown(seeds)] if seeds is not None else []
    return _joined([*first, *_warnings(warned), table, *over, *_commands({"Run again": result.command})])


def sweep_description(result: SweepResult) -> str:
    """The description of a sweep: what is on the front, and how many points there are."""
    finished = [point for point in result.points if isinstance(point, SweepPoint)]
    front = sum(point.on_front for point in finished)
    failed = f", {result.failed} failed" if result.failed else ""
    first = f"**{front} of {len(finished)} points are on the Pareto front{failed}**"
    return _joined([first, sweep_markdown(result), *_commands({"Run again": result.command or None})])


def seeds_markdown(seeds: OverSeeds) -> str:
    """Mean and standard deviation of each setting over the seeds, as a Markdown table."""
    lines = [f"Over {len(seeds.runs)} seeds, mean ± standard deviation:", ""]
    lines += ["| setting | ANN % | SNN at T % | exit % | mean steps | saving % |", "|---|---:|---:|---:|---:|---:|"]
    for one in seeds.settings:
        found = one.figures
        if found is None:
            cells = ["failed for a seed", "", "", "", ""]
        else:
            accuracies = (found.ann_accuracy, found.snn_accuracy, found.exit_accuracy)
            cells = [*(_spread(value, 100) for value in accuracies), _spread(found.exit_mean_steps, 1)]
            cells.append(_spread(found.exit_latency_saving, 100))
        lines.append("| " + " | ".join((one.name, *cells)) + " |")
    return "\n".join(lines)


def explain_command(plan: Plan, overrides: Mapping[str, Value], home: Path) -> str:
    """The command that says which stages of a setting the home holds, and why."""
    words = ["dynconf", "explain", plan.setting, "--profile", plan.profile]
    for name, value in overrides.items():
        if name != "seed" and applies(name, plan):
            words += ["--set", f"{name}={as_written(value)}"]
    words += ["--seed", str(plan.seed)] if plan.seed else []
    return shlex.join([*words, "--home", str(home.resolve())])


def _reductions(plan: Plan) -> str:
    """What was run, and what is less than in the paper."""
    data = plan.data
    stand_in = f", standing in for {data.stands_in_for}" if data.stands_in_for else ""
    width = "full width" if plan.width == 1 else f"{plan.width:g} of full width"
    fields = ", ".join(f"{name} {value}" for name, value in plan.scheme_fields().items())
    return (
        f"Profile {plan.profile}, seed {plan.seed}: {plan.architecture} at {width} on {data.name} "
        f"({data.resolution} px{stand_in}); {plan.method} ({fields}), T = {plan.time_steps}; {plan.recipe.epochs} epochs"
        f"{f', {plan.tuned}' if plan.tuned else ''}."
    )


def _taken(times: Sequence[StageTime]) -> str:
    each = ", ".join(f"{one.stage.replace('_', ' ')} {_duration(one.seconds)}" for one in times)
    return f"Computed in {_duration(sum(one.seconds for one in times))}: {each}."


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / MINUTE:.1f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"


def _read(smoothing: Smoothing) -> str:
    """What a measure reads, in words."""
    divisor = {"sum": "{alpha:.3g}", "mean": "{alpha:.3g} t", "power": "{alpha:.3g} t^{exponent:.2g}"}[smoothing.form]
    return f"the logits summed up to step t, divided by {divisor.format(**vars(smoothing))}"


def _warnings(texts: Iterable[str]) -> Iterator[str]:
    yield from (f"> **Warning:** {text}" for text in texts)


def _commands(found: Mapping[str, str | None]) -> Iterator[str]:
    yield from (f"{title}:\n\n    {text}" for title, text in found.items() if text)


def _spread(found: Spread | None, scale: float) -> str:
    return "—" if found is None else f"{scale * found.mean:.2f} ± {scale * found.deviation:.2f}"


def _joined(parts: Iterable[str]) -> str:
    text = "\n\n".join(parts)
    if len(text) <= LONGEST:
        return text
    last = text.rfind("\n", 0, LONGEST)
    return text[: last if last > 0 else LONGEST] + "\n\n…"
