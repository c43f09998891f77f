"""``dynconf analyse`` and ``dynconf compare``: the analysis of somebody's traces, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import AsJson, Debug, Home, print_json
from dynconf_flows.command.places import check_folder
from dynconf_flows.command.server import configure

if TYPE_CHECKING:
    from dynconf_core.evaluation.record import AnalysisRecord
    from dynconf_core.results.trace_pairs import Pair
    from dynconf_tasks.analyse import FinishedAnalysis

Traces = Annotated[Path, typer.Argument(help="Calibration traces (.npz or a folder of .npy), or a folder of results.")]
Test = Annotated[Path | None, typer.Option(help="Test traces; without them the one set is split half and half, by the seed.")]
TimeSteps = Annotated[
    int | None, typer.Option(help="Cut the traces to their first steps, such as the paper's 27 [default: all].", min=1)
]
Seed = Annotated[int, typer.Option(help="Of splits, folds and bootstraps.", min=0)]
Rule = Annotated[
    str | None,
    typer.Option(
        help="The rule's measure: max_softmax, entropy, gap, patience, learned, or one's own as package.module:Class."
    ),
]
OwnMeasures = Annotated[
    list[str] | None, typer.Option("--rule", help="A measure of one's own that takes part, package.module:Class; repeatable.")
]
FAILED = 1


def analyse(
    traces: Traces,
    test: Test = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the analysis [default: analysis, beside the traces].")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Guarantee: accuracy that may be lost, such as 0.005.")] = None,
    delta: Annotated[float | None, typer.Option(help="Guarantee: how often it may be broken, such as 0.05.")] = None,
    max_drop: Annotated[float, typer.Option(help="Accuracy that the rule may lose in expectation, a fraction.")] = 0.0,
    rule: Rule = None,
    smoothing: Annotated[
        str | None, typer.Option(help="Fix the smoothing of --rule: sum or mean [default: chosen; with --alpha: sum].")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Fix its alpha [default: chosen; with --smoothing: 30].")] = None,
    time_steps: TimeSteps = None,
    seed: Seed = 0,
    track: Annotated[bool, typer.Option(help="Log the analysis to MLflow.")] = True,
    home: Home = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Analyse an SNN's traces: when to exit, what it saves and loses, with what certainty, all rules compared."""
    configure(home_folder(home))
    from dynconf_core.evaluation.precautions import check_options
    from dynconf_core.results.records import to_json
    from dynconf_core.results.trace_pairs import analysis_folder, pairs
    from dynconf_tasks.analyse import analyse_pair, loaded, wanted_rule

    check_options(epsilon, delta, max_drop)
    wanted = _wanted(rule, smoothing, alpha)
    if wanted is not None:
        wanted_rule(wanted)
    found = pairs(traces, test, home)
    check_folder(analysis_folder(traces, out, found[0]), "--out")
    if track:
        check_folder(home_folder(home), "--home")
    if len(found) > 1:  # before the first is begun, all are seen to be whole
        for pair in found:
            loaded(pair, seed, time_steps)
    console = Console(stderr=as_json)
    options: dict[str, Any] = {"epsilon": epsilon, "delta": delta, "max_drop": max_drop, "time_steps": time_steps, "seed": seed}
    records: dict[str, AnalysisRecord] = {}
    for pair in found:
        try:
            done = analyse_pair(pair, analysis_folder(traces, out, pair), rule=wanted, **options)
        except Exception as error:
            if len(found) == 1:
                raise
            console.print(f"[red]failed:[/red] {escape(pair.name)}: {escape(str(error))}", highlight=False, soft_wrap=True)
            continue
        records[pair.name] = done.analysis.record
        if not as_json:
            _show(console, done)
        _warn(console, done.analysis.record.warnings)
        if track:
            _track(done, pair, {**options, **(wanted or {})}, home, console)
        console.print(f"Analysis: {done.out}", highlight=False, markup=False, soft_wrap=True)
    if as_json and records:
        found_records = {name: to_json(record) for name, record in records.items()}
        print_json(next(iter(found_records.values())) if len(found) == 1 else to_json({"analyses": found_records}))
    if len(records) < len(found):
        raise typer.Exit(FAILED)


def compare(
    traces: Traces,
    test: Test = None,
    rule: OwnMeasures = None,
    time_steps: TimeSteps = None,
    seed: Seed = 0,
    home: Home = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare all exit rules at equal accuracy: thresholds chosen on calibration for a drop of 0, 0.1, 0.5 and 1 point."""
    configure(home_folder(home))
    from dynconf_core.choosing.comparison import compare as compared
    from dynconf_core.choosing.comparison import interval_lines
    from dynconf_core.confidence.measure import MEASURES, measures_of
    from dynconf_core.evaluation.precautions import warnings_about
    from dynconf_core.results.records import to_json
    from dynconf_core.results.trace_pairs import pairs
    from dynconf_tasks.analyse import described, loaded

    measures = measures_of((*MEASURES.names(), *(rule or ())))
    found = pairs(traces, test, home)
    console, tables = Console(stderr=as_json), {}
    for pair in found:
        calibration, judge, _ = loaded(pair, seed, time_steps)
        comparison = compared(calibration, judge, measures=measures, seed=seed)
        tables[pair.name] = comparison.rows
        if not as_json:
            _head(console, pair.name, described(judge), calibration.samples, judge.samples)
            for line in interval_lines(comparison):
                _say(console, line)
        _warn(console, warnings_about(calibration, judge))
    if as_json:
        print_json(to_json({"comparisons": tables}))


def _wanted(rule: str | None, smoothing: str | None, alpha: float | None) -> dict[str, Any] | None:
    if rule is None:
        for option, value in (("--smoothing", smoothing), ("--alpha", alpha)):
            if value is not None:
                raise InputError(f"{option} {value} belongs to a rule: give --rule too, such as --rule max_softmax.")
        return None
    return {"rule": rule, "smoothing": smoothing, "alpha": alpha}


def _head(console: Console, name: str, source: str, calibration: int, test: int) -> None:
    """What was analysed; the source names the profile of a reduced run."""
    console.print(f"[bold]{escape(name)}[/bold]: {calibration} calibration and {test} test samples", highlight=False)
    if source and source != name:
        _say(console, source)


def _show(console: Console, done: FinishedAnalysis) -> None:
    """An analysis as a person reads it."""
    from dynconf_core.choosing.comparison import Comparison, comparison_lines

    record, guarantee = done.analysis.record, done.analysis.guarantee
    _head(console, done.name, done.source, record.calibration, record.test)
    console.print(_table(record))
    measure = done.analysis.rule.measure
    lines = [f"* exits where the {measure.label} passes {record.rule.threshold_shown:.4g}.", *_caption(record)]
    if guarantee is not None:
        lines.append(f"Guarantee: {guarantee.statement()}.")
    if record.comparison:
        lines += ["", *comparison_lines(Comparison(record.time_steps, record.comparison))]
    for line in lines:
        _say(console, line)


def _say(console: Console, text: str) -> None:
    """A sentence, broken between words on a terminal and not at all in a file."""
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _table(record: AnalysisRecord) -> Table:
    """Every rule with its figures on the test traces, the chosen one marked; 75 columns wide."""
    from dynconf_core.choosing.comparison import points
    from dynconf_core.confidence.smoothing import PLAIN

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "measure", "smoothing", "threshold", "accuracy", "95 %", "steps", "saving", "lost"):
        table.add_column(heading, justify="left" if heading in ("", "measure", "smoothing") else "right", no_wrap=True)
    for place, entry in enumerate(record.rules):
        judged, smoothing = entry.test, entry.smoothing
        low, high = judged.accuracy_interval
        table.add_row(
            "*" if place == record.chosen else "",
            entry.measure,
            "" if smoothing == PLAIN else f"{smoothing.form} {smoothing.alpha:.3g}",
            f"{entry.threshold_shown:.4g}",
            f"{100 * judged.accuracy:.2f}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{judged.mean_steps:.2f}",
            f"{100 * (1 - judged.mean_steps / record.time_steps):.1f} %",
            points(judged.loss),
        )
    return table


def _caption(record: AnalysisRecord) -> list[str]:
    """What the table is to be measured by."""
    oracle, equal = record.oracles.test.first_correct, record.baseline("iso_accuracy")
    halves = record.guarantee.halves if record.guarantee is not None else None
    chose = f"{len(halves.choosing)} of the calibration samples" if halves else "the calibration samples"
    return [
        f"Chosen on {chose}. On the test samples; lost: in points.",
        f"All {record.time_steps} steps: {100 * record.accuracy_at_t.test[-1]:.2f} %. Oracle, first correct: "
        f"{100 * oracle.accuracy:.2f} % @ {oracle.mean_steps:.2f}.",
        f"Iso-accuracy baseline, as accurate on calibration as all: step {equal.time_steps} ({100 * equal.accuracy:.2f} % on "
        f"test); saving against it: {100 * equal.latency_saving:.1f} %.",
    ]


def _warn(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)


def _track(done: FinishedAnalysis, pair: Pair, options: dict[str, Any], home: str | None, console: Console) -> None:
    from dynconf_tasks.analyse import track_analysis

    folder = home_folder(home)
    folder.mkdir(parents=True, exist_ok=True)  # before Prefect, which tasks need, looks for its own
    from dynconf_tasks.track import TrackingUnavailable

    try:
        track_analysis(done, pair, options, folder)
    except TrackingUnavailable as error:
        console.print(f"Not logged to MLflow: {escape(str(error))}", highlight=False, soft_wrap=True)
