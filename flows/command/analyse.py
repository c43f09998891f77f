"""``dynconf analyse``: the analysis of an SNN's traces."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import MAX_DROP
from dynconf_core.experiment.request import HOME, check_folder, home_folder
from dynconf_flows.command.options import AsJson, Debug, Home, print_json
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal, labelled, visible

if TYPE_CHECKING:
    from dynconf_core.choosing.entries import RuleEntry
    from dynconf_core.evaluation.record import AnalysisRecord, GuaranteeEntry
    from dynconf_core.exit.by_class import GroupFigures
    from dynconf_core.exit.judgement import Judgement
    from dynconf_core.results.trace_pairs import Pair
    from dynconf_tasks.analyse import AnalysisOptions, FinishedAnalysis

Traces = Annotated[Path, typer.Argument(help="Calibration traces (.npz or a folder of .npy files), or a folder of results.")]
Test = Annotated[Path | None, typer.Option(help="Test traces; without them the one set is split into random halves.")]
TimeSteps = Annotated[
    int | None, typer.Option(help="Use only the first time steps of the traces, e.g. the paper's 27 [default: all].", min=1)
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Order of the axes of logits: NTC, samples first, or TNC, time steps first [default: NTC, if it can be told]."
    ),
]
Accumulated = Annotated[bool, typer.Option("--accumulated", help="The logits are running sums: take their differences.")]
Readout = Annotated[
    str,
    typer.Option(
        help="Whether rules read the sum of the logits (plain) or correct it by a readout fitted for each step (decoded); "
        "choose: whichever is better on calibration."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of splits, folds and bootstraps.", min=0)]
CHOSEN, CERTIFIED = ">", "c"
"""The marks of two lines of the table: the chosen rule, and the certified threshold for it."""
FAILED = 1
NOTHING_WRITTEN = "Nothing was written: --out DIR keeps rule.json and all else; --home DIR also logs the analysis."


def analyse(
    traces: Traces,
    test: Test = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files [default: one in the home, if there is one].")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Guarantee: the accuracy that may be lost, e.g. 0.005.")] = None,
    delta: Annotated[float | None, typer.Option(help="Guarantee: the probability that it fails, e.g. 0.05.")] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            help="Let the guarantee hold for each group of samples: class (the true classes), or a file of the calibration "
            "samples' groups (.npy, or text with one a line), and a second one of the test samples'."
        ),
    ] = None,
    max_drop: Annotated[float, typer.Option(help="The accuracy that the rule may lose in expectation, a fraction.")] = MAX_DROP,
    rule: Annotated[
        str | None,
        typer.Option(
            help="The measure of the rule: max_softmax, entropy, gap, patience, learned, or your own as "
            "package.module:Class [default: chosen among all measures]."
        ),
    ] = None,
    smoothing: Annotated[
        str | None, typer.Option(help="Fix the smoothing of --rule: sum or mean [default: chosen; with --alpha: sum].")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Fix the alpha of --rule [default: chosen; with --smoothing: 30].")
    ] = None,
    readout: Readout = "choose",
    time_steps: TimeSteps = None,
    layout: Layout = None,
    accumulated: Accumulated = False,
    seed: Seed = 0,
    track: Annotated[
        bool | None, typer.Option("--track/--no-track", help="Log the analysis to MLflow [default: if there is a home].")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Analyse an SNN's traces and choose an exit rule.

    Reports its saving and loss, a guarantee if asked for, the oracles, and all other rules. Files are written into --out or
    into the home, and nowhere else: without either, the analysis is only shown.
    """
    configure(home_folder(home))
    from dynconf_core.results.records import to_json
    from dynconf_core.results.trace_pairs import asked_folder, pairs
    from dynconf_tasks.analyse import AnalysisOptions, analyse_pair, loaded

    if rule is None:
        for option, value in (("--smoothing", smoothing), ("--alpha", alpha)):
            if value is not None:
                raise InputError(f"{option} {value} belongs to a rule: give --rule too, such as --rule max_softmax.")
    options = AnalysisOptions(
        epsilon,
        delta,
        max_drop,
        time_steps,
        rule,
        smoothing,
        alpha,
        seed,
        layout,
        accumulated,
        readout,
        tuple(groups) if groups else None,
    )
    found = pairs(traces, test, home)
    if out is not None:
        check_folder(out, "--out")
    kept = _home_to_keep_in(home, track)
    if track is None:
        track = kept is not None
    if len(found) > 1:  # check all before the first is analysed
        for pair in found:
            loaded(pair, seed, time_steps, layout, accumulated)
    console = Terminal(stderr=as_json)
    records: dict[str, AnalysisRecord] = {}
    for pair in found:
        try:
            done = analyse_pair(pair, None if out is None else asked_folder(traces, out, pair), options, kept)
        except Exception as error:
            if len(found) == 1:
                raise
            console.print(labelled("failed:", "red", f"{pair.name}: {error}"), soft_wrap=True)
            continue
        records[pair.name] = done.analysis.record
        if not as_json:
            _show(console, done)
        warn(console, done.analysis.record.warnings)
        if track and kept is not None:
            _track(done, pair, options, kept, console)
        if done.out is not None:
            console.print(f"Analysis: {done.out}", soft_wrap=True)
    if kept is None and out is None and records:
        console.print(NOTHING_WRITTEN, soft_wrap=True)
    if as_json and records:
        found_records = {name: to_json(record) for name, record in records.items()}
        print_json(next(iter(found_records.values())) if len(found) == 1 else to_json({"analyses": found_records}))
    if len(records) < len(found):
        raise typer.Exit(FAILED)


def _home_to_keep_in(given: str | None, track: bool | None) -> Path | None:
    """The home in which analyses are kept and logged: one that was named or asked for, or that exists and can be written.

    Raises:
        InputError: if a home that was named or asked for cannot be written.
    """
    home = home_folder(given)
    if given or track or os.environ.get(HOME) or os.environ.get("MLFLOW_TRACKING_URI"):
        check_folder(home, "--home")
        return home
    return home if home.is_dir() and os.access(home, os.W_OK | os.X_OK) else None


def heading(console: Terminal, name: str, source: str, calibration: int, test: int) -> None:
    """Print the name of the traces, their numbers of samples, and their source."""
    console.print(Text.assemble((visible(name), "bold"), f": {calibration} calibration and {test} test samples"))
    if source and source != name:
        say(console, source)


def _show(console: Terminal, done: FinishedAnalysis) -> None:
    """Print the tables and sentences of an analysis."""
    from dynconf_core.choosing.comparison import Comparison, comparison_lines

    record, guarantee, promised = done.analysis.record, done.analysis.guarantee, done.analysis.record.guarantee
    heading(console, done.name, done.source, record.calibration, record.test)
    console.print(_table(record))
    lines = [f"{CHOSEN} {done.analysis.uncertified.in_words()}."]
    if guarantee is not None and promised is not None:
        certified = "Certified" if promised.certified else "Nothing is certified"
        lines[0] += f" Not certified{'' if done.out is None else '; rule-uncertified.json'}."
        lines.append(f"{CERTIFIED} {done.analysis.rule.in_words()}. {certified}{'' if done.out is None else '; rule.json'}.")
        lines.append(f"Guarantee: {guarantee.statement()}.")
        lines += _group_lines(promised, record.full_steps)
        if promised.calibration < promised.samples_needed:
            lines.append(
                f"Half of the calibration samples certify: give at least {2 * promised.samples_needed} of them, or "
                f"{4 * promised.samples_needed} in one file, which is halved first."
            )
    lines += _caption(record)
    if record.comparison:
        lines += ["", *comparison_lines(Comparison(record.time_steps, record.comparison, record.mean_length))]
    for line in lines:
        say(console, line)


def _group_lines(promised: GuaranteeEntry, full_steps: float) -> list[str]:
    """The figures of each group: those of the threshold for all, and the mean steps of its own threshold."""
    if promised.groups is None:
        return []
    own = any(one.own is not None for one in promised.groups)
    head = f"{'group':<16}{'certified on':>13}{'test':>8}{'accuracy':>10}{f'steps of {full_steps:g}':>14}{'points':>13}"
    lines = ["", head + (f"{'own threshold':>15}{'steps':>8}" if own else "")]
    for one in promised.groups:
        test = one.test
        shown = ("-",) * 4 if test is None else _group_cells(test)
        line = f"{visible(one.group)[:15]:<16}{one.samples:>13}{shown[0]:>8}{shown[1]:>10}{shown[2]:>14}{shown[3]:>13}"
        if one.own is not None:
            steps = one.own.mean_steps if one.own.test is None else one.own.test.mean_steps
            line += f"{one.own.threshold_shown:>15.4g}{steps:>8.2f}" if one.own.certified else f"{'none':>15}{'':>8}"
        lines.append(line)
    if own:
        lines.append(
            "Own thresholds are for users who know the group of a sample when it exits; all of them hold at once with the "
            "confidence of the guarantee."
        )
    return lines


def _group_cells(test: GroupFigures) -> tuple[str, str, str, str]:
    from dynconf_core.exit.shown import points

    return str(test.samples), f"{100 * test.accuracy:.2f}", f"{test.mean_steps:.2f}", points(test.loss)


def say(console: Terminal, text: str) -> None:
    """Print text, wrapped on a terminal and unwrapped in a file."""
    console.print(text, soft_wrap=not console.is_terminal)


def _table(record: AnalysisRecord) -> Table:
    """All rules with their figures on the test traces, the chosen one marked >, and the certified one, marked c, below it."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "measure", "smoothing", "threshold", "accuracy", "95 %", "steps", "saving", "points"):
        table.add_column(heading, justify="left" if heading in ("", "measure", "smoothing") else "right", no_wrap=True)
    guarantee = record.guarantee
    for place, entry in enumerate(record.rules):
        table.add_row(CHOSEN if place == record.chosen else "", *_cells(entry, entry, entry.test, record.full_steps))
        if place == record.chosen and guarantee is not None:
            table.add_row(CERTIFIED, *_cells(entry, guarantee, guarantee.test, record.full_steps))
    return table


def _cells(rule: RuleEntry, exit: RuleEntry | GuaranteeEntry, judged: Judgement, full_steps: float) -> tuple[str, ...]:
    """A line of the table: a rule, the threshold at which it exits, and its figures."""
    from dynconf_core.choosing.comparison import mark
    from dynconf_core.confidence.smoothing import PLAIN
    from dynconf_core.exit.shown import points, threshold_text

    low, high = judged.accuracy_interval
    smoothing = rule.smoothing
    return (
        rule.measure + mark(rule),
        "" if smoothing == PLAIN else f"{smoothing.form} {smoothing.alpha:.3g}",
        threshold_text(exit.threshold, exit.threshold_shown),
        f"{100 * judged.accuracy:.2f}",
        f"{100 * low:.1f}-{100 * high:.1f}",
        f"{judged.mean_steps:.2f}",
        f"{100 * (1 - judged.mean_steps / full_steps):.1f} %",
        points(judged.loss),
    )


def _caption(record: AnalysisRecord) -> list[str]:
    """What the table's figures refer to and are to be compared with."""
    from dynconf_core.exit.shown import saved_in_words

    oracle, equal = record.oracles.test.first_correct, record.baseline("iso_accuracy")
    halves = record.guarantee.halves if record.guarantee is not None else None
    chose = f"{len(halves.choosing)} of the calibration samples" if halves else "the calibration samples"
    return [
        f"Chosen on {chose}{_promise(record)}; figures on the test samples. Points: accuracy against T.",
        f"Without exit, {record.full_steps_text} steps: {100 * record.accuracy_at_t.test[-1]:.2f} %. Oracle, first correct: "
        f"{100 * oracle.accuracy:.2f} % @ {oracle.mean_steps:.2f}.",
        f"Iso-accuracy baseline (as accurate on calibration as T): step {equal.time_steps}, {100 * equal.accuracy:.2f} % "
        f"on test; against it: {saved_in_words(equal.latency_saving)}.",
    ]


def _promise(record: AnalysisRecord) -> str:
    """What the chosen rule may lose, which is more than nothing even where nothing is allowed to be lost."""
    calibrated = record.rules[record.chosen].calibrated
    return "" if calibrated is None else f" to lose at most {100 * calibrated.expected_loss_at_most:.2f} points in expectation"


def warn(console: Terminal, warnings: Sequence[str]) -> None:
    """Print warnings."""
    for warning in warnings:
        console.print(labelled("warning:", "yellow", warning), soft_wrap=True)


def _track(done: FinishedAnalysis, pair: Pair, options: AnalysisOptions, home: Path, console: Terminal) -> None:
    from dynconf_tasks.analyse import track_analysis

    home.mkdir(parents=True, exist_ok=True)  # before Prefect, which the tasks import, creates its own folder there
    from dynconf_tasks.tracking.tracker import TrackingUnavailable

    try:
        track_analysis(done, pair, options, home, shlex.join(["dynconf", *sys.argv[1:]]))
    except TrackingUnavailable as error:
        console.print(f"Not logged to MLflow: {error}", soft_wrap=True)
