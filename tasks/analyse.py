"""The analysis of a pair of traces: reading their files, analysing them, writing the results and logging them to MLflow."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from dynconf_core.choosing.candidates import CHOOSE, check_readout
from dynconf_core.confidence.measure import ConfidenceMeasure, measure_of
from dynconf_core.confidence.smoothing import FORMS, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import Analysis, analyse, fixed_smoothing
from dynconf_core.evaluation.precautions import check_options, check_pair
from dynconf_core.experiment.plan import MAX_DROP
from dynconf_core.figures.analysis import analysis_figures
from dynconf_core.home.running import running
from dynconf_core.report.writing import write_analysis_report
from dynconf_core.results.analysis_folder import analysis_key, kept_folder, write_analysis
from dynconf_core.results.records import flat
from dynconf_core.results.trace_pairs import Pair
from dynconf_core.traces.foreign import HOUSE, check_layout
from dynconf_core.traces.groups import Groups
from dynconf_core.traces.parts import Split, split_in_two
from dynconf_core.traces.schema import Traces
from dynconf_tasks.interruption import deferred

DEMO_ALPHA = 30.0
"""Alpha in the authors' demo."""
NO_SEARCH = ("seed", "time_steps", "layout", "accumulated", "groups")
"""Options that are no settings of the search."""
LONGEST_SOURCE = 72
"""Characters of a source that fit above a figure."""


@dataclass(frozen=True)
class AnalysisOptions:
    """The options of an analysis, validated on construction.

    Attributes:
        epsilon, delta: parameters of the guarantee; both or neither.
        max_drop: the accuracy that the chosen rule may lose in expectation, a fraction.
        time_steps: the number of first time steps to which the traces are cut; None keeps all.
        rule: the measure of the chosen rule, a name or ``package.module:Class``; None chooses it.
        smoothing, alpha: the smoothing of that rule. If only one is given, the other is the sum or, as in the authors' demo,
            30; if neither, the smoothing is chosen.
        seed: seed of splits, folds and bootstraps.
        layout: "NTC" or "TNC", the order of the axes of logits; None: NTC, unless it cannot be told.
        accumulated: whether the traces hold running sums.
        readout: "plain", "decoded" or "choose"; see ``analyse``.
        groups: the guarantee is to hold for each group: ("class",), or files with the groups of the samples; None: for all
            samples together.

    Raises:
        InputError: for an unknown measure or smoothing, a smoothing or readout that the measure does not use, or a value out of
            range.
    """

    epsilon: float | None = None
    delta: float | None = None
    max_drop: float = MAX_DROP
    time_steps: int | None = None
    rule: str | None = None
    smoothing: str | None = None
    alpha: float | None = None
    seed: int = 0
    layout: str | None = None
    accumulated: bool = False
    readout: str = CHOOSE
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.layout is not None:
            check_layout(self.layout)
        check_options(self.epsilon, self.delta, self.max_drop)
        check_readout(self.readout, self.given_measure())
        fixed_smoothing(self.given_measure(), self.given_smoothing())

    def given_measure(self) -> ConfidenceMeasure | None:
        """The measure of the rule; None if it is to be chosen."""
        return None if self.rule is None else measure_of(self.rule)

    def given_smoothing(self) -> Smoothing | None:
        """The smoothing of the rule; None if it is to be chosen."""
        if self.smoothing is None and self.alpha is None:
            return None
        if self.smoothing is not None and self.smoothing not in FORMS:
            raise InputError(f"smoothing {self.smoothing!r} cannot be fixed: give one of {', '.join(FORMS)}.")
        return Smoothing(self.smoothing or "sum", DEMO_ALPHA if self.alpha is None else self.alpha)


@dataclass(frozen=True)
class FinishedAnalysis:
    """An analysis and its files.

    Attributes:
        name: the name of the traces.
        out: the folder of the analysis; None if it was not kept.
        analysis: the analysis.
        files: the files in the folder.
        source: what was run, according to the traces.
    """

    name: str
    out: Path | None
    analysis: Analysis
    files: tuple[Path, ...]
    source: str


def loaded(
    pair: Pair, seed: int, time_steps: int | None = None, layout: str | None = None, accumulated: bool = False
) -> tuple[Traces, Traces, Split | None]:
    """Load the calibration and test traces of a pair, cut to ``time_steps``, and the split if one set was split.

    Raises:
        InputError: if traces are missing or malformed, do not fit together, or may be in either layout while none is given.
    """
    calibration, split = _read(pair.calibration, layout, accumulated), None
    if pair.test is None:
        calibration, test, split = split_in_two(calibration, seed)
    else:
        test = _read(pair.test, layout, accumulated)
    if time_steps is not None:
        calibration, test = calibration.cut(time_steps), test.cut(time_steps)
    check_pair(calibration, test)
    return calibration, test, split


def _read(path: Path, layout: str | None, accumulated: bool) -> Traces:
    traces = Traces.load(path, layout=layout or HOUSE, accumulated=accumulated)
    if layout is None and traces.samples == traces.time_steps:
        raise InputError(
            f"{path}: logits has the shape {traces.logits.shape}, with as many samples as time steps, so that their order "
            "cannot be told: give --layout NTC if the samples come first, --layout TNC if the time steps do."
        )
    return traces


def analyse_pair(
    pair: Pair, out: Path | None, options: AnalysisOptions | None = None, home: Path | None = None
) -> FinishedAnalysis:
    """Analyse a pair of traces and write the results into the folder ``out``, or else into one of the home.

    Args:
        pair: the traces.
        out: folder for ``analysis.json``, ``rule.json``, ``front.csv`` and the figures; None: see ``kept_folder``.
        options: options of the analysis; None stands for the defaults.
        home: the home in which the analysis is kept if ``out`` is None; if both are, nothing is written.

    Raises:
        InputError: if the traces cannot be analysed; nothing is written.
    """
    asked = options or AnalysisOptions()
    calibration, test, split = loaded(pair, asked.seed, asked.time_steps, asked.layout, asked.accumulated)
    analysis = analyse(
        calibration,
        test,
        epsilon=asked.epsilon,
        delta=asked.delta,
        max_drop=asked.max_drop,
        measure=asked.given_measure(),
        smoothing=asked.given_smoothing(),
        seed=asked.seed,
        split=split,
        readout=asked.readout,
        groups=None if asked.groups is None else Groups.read(asked.groups, calibration, test, split),
    )
    source = described(test)
    if out is None and home is not None:
        out = kept_folder(home, pair.name, analysis)
    written: list[Path] = []
    if out is not None:
        written += write_analysis(analysis, out, analysis_figures(analysis, test, pair.name, source))
        report = write_analysis_report(pair.name, source, analysis, test, out, _command(pair, asked))
        written += [report] if report else []
    return FinishedAnalysis(pair.name, out, analysis, tuple(written), source)


def _command(pair: Pair, asked: AnalysisOptions) -> str:
    """The command that repeats an analysis."""
    given = [("test", pair.test), *vars(asked).items()]
    given += [("groups", name) for name in asked.groups or ()]
    options = (
        f"--{field.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for field, value in given
        if value is not None and not isinstance(value, tuple) and value != getattr(AnalysisOptions, field, None)
    )
    return " ".join(["dynconf analyse", shlex.quote(str(pair.calibration)), *options])


def described(traces: Traces) -> str:
    """What was run, according to the traces' meta data: their source, and what the data stand in for; "" if unknown."""
    source, data, place = (traces.meta.get(name) for name in ("source", "data", "stands_in_for"))
    found = " ".join(str(source).split()) if source else ""
    if len(found) > LONGEST_SOURCE:
        found = found[: LONGEST_SOURCE - 1] + "…"
    stand_in = f"{data} instead of {place}" if data and place else ""
    return "; ".join(part for part in (found, stand_in) if part)


def track_analysis(done: FinishedAnalysis, pair: Pair, options: AnalysisOptions, home: Path, command: str | None = None) -> str:
    """Log an analysis to MLflow, in the experiment ``dynconf-analysis``; returns the run's id.

    Repeating an analysis with the same result returns the existing run. ``command`` is the command line, if there is one.
    """
    from dynconf_core.results.environment import environment
    from dynconf_tasks.links import NOTE
    from dynconf_tasks.tracking.datasets import traces_of
    from dynconf_tasks.tracking.descriptions import analysis_description
    from dynconf_tasks.tracking.runs import Content
    from dynconf_tasks.tracking.shown import analysis_shown
    from dynconf_tasks.tracking.tags import Source
    from dynconf_tasks.tracking.tracker import Tracker

    record = done.analysis.record
    chosen = record.rule
    key = analysis_key(done.name, done.analysis)
    given = vars(options)
    params = {
        "traces.calibration": str(pair.calibration),
        "traces.test": str(pair.test) if pair.test else "the other half",
        "traces.source": done.source or None,
        "traces.layout": given["layout"],
        "traces.accumulated": given["accumulated"] or None,
        "seed": given["seed"],
        "time_steps": record.time_steps,
        "groups": " ".join(options.groups) if options.groups else None,
        **{f"search.{name}": value for name, value in given.items() if name not in NO_SEARCH},
        "rule.measure": chosen.measure,
        "rule.readout": chosen.readout or "plain",
        **{f"rule.{name}": value for name, value in flat(chosen.smoothing).items()},
        "rule.threshold": chosen.threshold_shown,
    }
    description = analysis_description(record, done.source, done.out)
    tags = {"traces": done.name, "seed": str(options.seed), NOTE: description}
    content = Content(tags, analysis_shown(record), params, done.files, traces_of(pair, record))
    tracking = Tracker(home, "analyse them again to log the analysis")
    with running(home, f"analyse {pair.calibration}"), deferred():  # a signal does not leave the run unfinished
        return tracking.analysis(done.name, content, key, Source(command, environment().commit))
