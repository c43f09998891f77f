"""An analysis of a pair of traces, from their files to its own and to MLflow; without Prefect."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynconf_core.confidence.measure import ConfidenceMeasure, measure_of
from dynconf_core.confidence.smoothing import FORMS, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import Analysis, analyse, fixed_smoothing
from dynconf_core.evaluation.precautions import check_options, check_pair
from dynconf_core.figures.analysis import analysis_figures
from dynconf_core.results.analysis_folder import write_analysis
from dynconf_core.results.records import flat, json_text
from dynconf_core.results.trace_pairs import Pair
from dynconf_core.traces.parts import Split, split_in_two
from dynconf_core.traces.schema import Traces

TRACKED = ("ann_accuracy", "reference_accuracy", "exit", "baselines", "oracle_gap", "spikes_per_inference", "energy")
"""What MLflow gets of the record as it is, under the names of the results."""
DEMO_ALPHA = 30.0
LONGEST_SOURCE = 72
"""Characters of a source that fit above a picture."""


@dataclass(frozen=True)
class FinishedAnalysis:
    """An analysis and its files.

    Attributes:
        name: of the traces.
        out: its folder.
        analysis: what it found.
        files: what it wrote into the folder.
        source: what was run, as the traces say.
    """

    name: str
    out: Path
    analysis: Analysis
    files: tuple[Path, ...]
    source: str


def wanted_rule(rule: Mapping[str, Any]) -> tuple[ConfidenceMeasure, Smoothing | None]:
    """The measure of ``{"rule", "smoothing", "alpha"}`` and its smoothing, None where that is to be chosen.

    Of smoothing and alpha one may be None: the smoothing is then the sum, alpha 30 as in the authors' demo.

    Raises:
        InputError: for an unknown measure or smoothing, an alpha out of range, a smoothing that the measure does not read.
    """
    measure = measure_of(rule["rule"])
    form, alpha = rule.get("smoothing"), rule.get("alpha")
    if form is None and alpha is None:
        return measure, None
    if form is not None and form not in FORMS:
        raise InputError(f"smoothing {form!r} cannot be fixed: give one of {', '.join(FORMS)}.")
    smoothing = Smoothing(form or "sum", DEMO_ALPHA if alpha is None else alpha)
    fixed_smoothing(measure, smoothing)
    return measure, smoothing


def loaded(pair: Pair, seed: int, time_steps: int | None = None) -> tuple[Traces, Traces, Split | None]:
    """The calibration and the test traces, cut to ``time_steps``, and which samples are which where one set was split.

    Raises:
        InputError: where they are missing, malformed or do not fit together.
    """
    calibration, split = Traces.load(pair.calibration), None
    if pair.test is None:
        calibration, test, split = split_in_two(calibration, seed)
    else:
        test = Traces.load(pair.test)
    if time_steps is not None:
        calibration, test = calibration.cut(time_steps), test.cut(time_steps)
    check_pair(calibration, test)
    return calibration, test, split


def analyse_pair(
    pair: Pair,
    out: Path,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    max_drop: float = 0.0,
    time_steps: int | None = None,
    rule: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> FinishedAnalysis:
    """Analyse a pair of traces into the folder ``out``.

    Args:
        pair: the traces.
        out: for ``analysis.json``, ``rule.json``, ``front.csv`` and the pictures.
        epsilon, delta: of the guarantee, both or neither.
        max_drop: that the chosen rule may lose in expectation.
        time_steps: T, where the traces are to be cut to their first steps.
        rule: ``{"rule", "smoothing", "alpha"}`` as ``wanted_rule`` takes it.
        seed: of splits, folds and bootstraps.

    Raises:
        InputError: where traces or options cannot work; nothing was written.
    """
    check_options(epsilon, delta, max_drop)
    measure, smoothing = (None, None) if rule is None else wanted_rule(rule)
    calibration, test, split = loaded(pair, seed, time_steps)
    analysis = analyse(
        calibration,
        test,
        epsilon=epsilon,
        delta=delta,
        max_drop=max_drop,
        measure=measure,
        smoothing=smoothing,
        seed=seed,
        split=split,
    )
    source = described(test)
    written = write_analysis(analysis, out, analysis_figures(analysis, test, pair.name, source))
    return FinishedAnalysis(pair.name, out, analysis, tuple(written), source)


def described(traces: Traces) -> str:
    """What was run, as the traces' meta says it: their source, and what the data stand in for; "" where it says nothing."""
    source, data, place = (traces.meta.get(name) for name in ("source", "data", "stands_in_for"))
    found = " ".join(str(source).split()) if source else ""
    if len(found) > LONGEST_SOURCE:
        found = found[: LONGEST_SOURCE - 1] + "…"
    stand_in = f"{data} in the place of {place}" if data and place else ""
    return "; ".join(part for part in (found, stand_in) if part)


def track_analysis(done: FinishedAnalysis, pair: Pair, options: Mapping[str, Any], home: Path) -> str:
    """Log an analysis to MLflow, in the experiment ``dynconf-analysis``; the run's id.

    A rerun that finds the same finds its run, too, and adds no twin.
    """
    from dynconf_tasks.track import tracker

    record = done.analysis.record
    chosen = record.rule
    key = hashlib.sha256(f"{done.name}\n{json_text(record)}".encode()).hexdigest()
    figures = {
        **{name: getattr(record, name) for name in TRACKED},
        "accuracy_at_t": record.accuracy_at_t.test,
        "oracles": record.oracles.test,
        "threshold": chosen.threshold,
        "rules": {entry.measure: entry.test for entry in record.rules},
    }
    if record.guarantee is not None:
        figures["guarantee"] = replace(record.guarantee, halves=None)
    params = {
        "traces": str(pair.calibration),
        "test_traces": str(pair.test) if pair.test else None,
        "source": done.source or None,
        **options,
        "time_steps": record.time_steps,
        "rule": chosen.measure,
        **{f"smoothing_{name}": value for name, value in flat(chosen.smoothing).items()},
    }
    return tracker(home).analysis(done.name, flat(figures), params, done.files, key)
