"""An exit rule: a measure, its smoothing and a threshold, perhaps behind a readout. A sample exits at the first score above the
threshold, else at its end, which is T unless it is shorter.

This is the decision-making agent of Li, Jones and Furber (ICCV 2023) as data: `to_json` gives what `rule.json`, the results and
other programs store, and what `dynconf_core.exit.agent` runs behind a network.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.arguments import file_path, instance, mapping
from dynconf_core.confidence.measure import MEASURES, ConfidenceMeasure, MeasureLike, measure_of, scores_of, source_of
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.readout import DecodedTraces, Readout, check_long_enough
from dynconf_core.exit.shown import exit_text
from dynconf_core.files import NotWritten, write_text
from dynconf_core.registry import unknown
from dynconf_core.strict_json import read_json
from dynconf_core.traces.schema import Traces
from dynconf_core.wording import an

SCHEMA = 2
INFINITIES = {"inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, init=False)
class Rule:
    """Exit at the first step whose score is greater than `threshold`.

    Attributes:
        measure: scores each step; given as an object, a class, a name or `package.module:Class`.
        smoothing: applied to the accumulated logits before they are scored (a measure may ignore it).
        threshold: in units of the score (log-odds for `max_softmax`); inf never exits, -inf exits at once.
        readout: what corrects the accumulated logits, from which everything else is then read, the prediction too; None: they
            are used as they are.

    Raises:
        InputError: for a measure that is unknown or not fitted, or a threshold that is not a number.
    """

    measure: ConfidenceMeasure
    smoothing: Smoothing
    threshold: float
    readout: Readout | None = None

    def __init__(self, measure: MeasureLike, smoothing: Smoothing, threshold: float, readout: Readout | None = None) -> None:
        known = measure_of(measure)
        if not known.fitted:
            raise InputError(f"measure {known.name!r} needs its fitted parameters: give the measure that fit returns.")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise InputError(f'threshold = {threshold!r} is not a number; give one, or "inf" or "-inf".')
        if threshold != threshold:
            raise InputError('threshold = nan cannot be compared with a score; give a number, or "inf" or "-inf".')
        try:
            exact = float(threshold)
        except OverflowError:
            raise InputError('threshold is a number beyond 1e308; give a smaller one, or "inf" or "-inf".') from None
        instance("smoothing", smoothing, Smoothing, 'give a Smoothing, such as Smoothing("sum", 1.0)')
        object.__setattr__(self, "measure", known)
        object.__setattr__(self, "smoothing", smoothing)
        if not (readout is None or isinstance(readout, Readout)):
            raise InputError(f"readout = {readout!r} is none; give a Readout, such as fit_readout makes, or None.")
        object.__setattr__(self, "threshold", exact)
        object.__setattr__(self, "readout", readout)

    def in_words(self) -> str:
        """When samples exit, as the end of a sentence: "exits once the gap of z' = z / 2 passes 3.1, behind a readout"."""
        label = self.measure.label
        if self.measure.reads_smoothing and self.smoothing != PLAIN:
            label += f" of z' = {self.smoothing}"
        when = exit_text(label, self.threshold, self.measure.shown(self.threshold))
        return when if self.readout is None else f"{when}, behind a readout"

    def decoded(self, traces: Traces) -> Traces:
        """The traces behind the readout; the traces themselves without one.

        Raises:
            InputError: if the readout is for another number of classes or for more time steps, or samples end before T.
        """
        if self.readout is None:
            return traces
        check_long_enough(self.readout, traces.time_steps)
        return DecodedTraces.of(traces, [self.readout])

    def scores(self, traces: Traces) -> NDArray[np.float64]:
        """(N, T) the scores that are compared with the threshold."""
        instance("traces", traces, Traces, "give Traces, as Traces.load(PATH) or collect(...) returns them")
        return scores_of(self.measure, self.decoded(traces), self.smoothing)

    def correct(self, traces: Traces) -> NDArray[np.bool_]:
        """(N, T): whether the prediction at each step, that of the readout, is the label."""
        return self.decoded(traces).correct()

    def exit_steps(self, traces: Traces) -> NDArray[np.int64]:
        """(N,) the step, counted from 1, at which each sample of `traces` exits."""
        return exit_steps(self.scores(traces), self.threshold, traces.lengths)

    def to_json(self) -> dict[str, Any]:
        """The entry as stored in files; JSON has no infinity, so the threshold may be "inf" or "-inf"."""
        measure = self.measure
        entry: dict[str, Any] = {
            "measure": measure.name,
            "readout": None if self.readout is None else self.readout.to_json(),
            "smoothing": self.smoothing.to_dict(),
            "threshold": _finite_or_text(self.threshold),
            "threshold_shown": _finite_or_text(measure.shown(self.threshold)),
        }
        if parameters := measure.to_json():
            entry["parameters"] = parameters
        if (source := source_of(measure)) is not None:
            entry["source"] = source
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], measure: MeasureLike | None = None) -> Rule:
        """The inverse of `to_json`; other fields are ignored.

        Code that the entry names is never imported: a measure from outside must be passed in.

        Args:
            entry: the rule as JSON.
            measure: the measure of the rule if it is from outside: a class, an object or `package.module:Class`.

        Raises:
            InputError: naming the field that is missing or wrong, or the measure that must be passed in.
        """
        if not isinstance(entry, Mapping):
            raise InputError(f"a rule is a JSON object, not {an(entry)}.")
        if entry.get("schema", SCHEMA) != SCHEMA:
            raise InputError(f"the rule's schema = {entry['schema']!r} is not known; this version reads {SCHEMA}.")
        for name in ("measure", "smoothing", "threshold"):
            if name not in entry:
                raise InputError(f"the rule lacks the field {name}; it needs measure, smoothing and threshold.")
        readout = entry.get("readout")
        threshold = entry["threshold"]
        if isinstance(threshold, str):
            if threshold not in INFINITIES:
                raise InputError(f'threshold = {threshold!r} is not a number; give one, or "inf" or "-inf".')
            threshold = INFINITIES[threshold]
        smoothing = Smoothing.from_dict(entry["smoothing"])
        known = None if readout is None else Readout.from_json(readout)
        return cls(_measure_in(entry, measure), smoothing, threshold, known)

    def save(self, path: str | os.PathLike[str], record: Mapping[str, Any] | None = None) -> Path:
        """Write the rule to a file, together with `record`: other fields, such as how it was chosen.

        Raises:
            InputError: for a record that would overwrite the rule's own fields or that JSON cannot hold, and for a path that
                cannot be written.
            NotWritten: if the disk is full or fails.
        """
        entry = {"schema": SCHEMA, **self.to_json()}
        record = mapping("record", record)
        if taken := sorted(entry.keys() & record.keys()):
            raise InputError(f"the record's fields {', '.join(taken)} are the rule's own; rename them.")
        try:
            text = json.dumps({**entry, **record}, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the rule's record cannot be written as JSON: {error}.") from error
        target = file_path("path", path)
        try:
            write_text(target, text + "\n")
        except NotWritten as error:
            if error.of_the_disk:
                raise
            raise InputError(str(error)) from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], measure: MeasureLike | None = None) -> Rule:
        """Read a `rule.json`; `measure` as in `from_json`.

        Raises:
            InputError: naming the file, and the field that is missing or wrong or the measure that must be passed in.
        """
        source = file_path("path", path)
        entry = read_json(source)
        try:
            return cls.from_json(entry, measure)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error


def _measure_in(entry: Mapping[str, Any], given: MeasureLike | None) -> ConfidenceMeasure:
    """The measure of an entry with its parameters, from the known measures or from `given`, and from nowhere else."""
    name, source = entry["measure"], entry.get("source")
    if given is not None:
        known = measure_of(given)
        if known.name != name:
            raise InputError(f"the rule's measure is {name!r}, not {known.name!r}: give the measure that it was made with.")
    elif isinstance(name, str) and name in MEASURES.names():
        known = measure_of(name)
    elif source is None:
        raise InputError(unknown("measure", str(name), MEASURES.names()))
    else:
        raise InputError(
            f"the rule's measure {name!r} comes from {source}, which is never imported automatically: give that class, "
            "as measure= in Python or with --rule package.module:Class."
        )
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise InputError(f"parameters = {parameters!r} of the measure {name!r} must be a JSON object.")
    return known if known.to_json() == parameters else type(known).from_json(parameters)


def _finite_or_text(number: float) -> float | str:
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return number


def exit_steps(scores: NDArray[np.float64], threshold: float, lengths: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """(N,) the first step, counted from 1, whose score (N, T) is greater than the threshold; the sample's end if there is none:
    T, or its length (N,)."""
    exits = scores > threshold
    exits[:, -1] = True
    steps: NDArray[np.int64] = exits.argmax(axis=1) + 1
    return steps if lengths is None else np.minimum(steps, lengths)
