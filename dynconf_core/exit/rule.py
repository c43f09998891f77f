"""An exit rule: a score, its smoothing and a threshold; the first score above the threshold exits, else T.

This is the decision-making agent of Li, Jones and Furber (ICCV 2023) as data: `to_json` is what `rule.json`, the results and
a user's own code hold, and what `dynconf_core.exit.agent` runs behind a network.
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

from dynconf_core.confidence.learned import LearnedScore
from dynconf_core.confidence.scores import check_parameters, score, shown
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces

SCHEMA = 2
INFINITIES = {"inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Rule:
    """Exit at the first step whose score `measure` of the smoothed logits is greater than `threshold`.

    Attributes:
        measure: a name in `dynconf_core.confidence.scores.MEASURES`.
        smoothing: what is done to the accumulated logits first (`patience` and `learned` do not look at it).
        threshold: in units of the score (log-odds for `max_softmax`); inf never exits, -inf at once.
        learned: the fitted parameters; with the measure `learned` and no other.

    Raises:
        InputError: for an unknown measure, a threshold that is not a number, parameters that are missing or too many.
    """

    measure: str
    smoothing: Smoothing
    threshold: float
    learned: LearnedScore | None = None

    def __post_init__(self) -> None:
        check_parameters(self.measure, self.learned)
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            raise InputError(f'threshold = {self.threshold!r} is not a number; give one, or "inf" or "-inf".')
        if math.isnan(self.threshold):
            raise InputError('threshold = nan compares with nothing; give a number, or "inf" or "-inf".')
        object.__setattr__(self, "threshold", float(self.threshold))

    def scores(self, traces: Traces) -> NDArray[np.float64]:
        """(N, T) the scores that the threshold is compared with."""
        return score(traces, self.measure, self.smoothing, self.learned)

    def exit_steps(self, traces: Traces) -> NDArray[np.int64]:
        """(N,) the step, from 1, at which each sample of `traces` exits."""
        return exit_steps(self.scores(traces), self.threshold)

    def to_json(self) -> dict[str, Any]:
        """The entry that files hold; JSON has no infinity, so the threshold may be "inf" or "-inf"."""
        entry: dict[str, Any] = {
            "measure": self.measure,
            "readout": None,
            "smoothing": self.smoothing.to_dict(),
            "threshold": _finite_or_text(self.threshold),
            "threshold_shown": _finite_or_text(shown(self.measure, self.threshold)),
        }
        return entry if self.learned is None else {**entry, "parameters": self.learned.to_dict()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Rule:
        """The reverse of `to_json`; further fields are left alone.

        Raises:
            InputError: naming the field that is missing or wrong.
        """
        if not isinstance(entry, Mapping):
            raise InputError(f"a rule is a JSON object, not a {type(entry).__name__}.")
        if entry.get("schema", SCHEMA) != SCHEMA:
            raise InputError(f"the rule's schema = {entry['schema']!r} is not known; this version reads {SCHEMA}.")
        for name in ("measure", "smoothing", "threshold"):
            if name not in entry:
                raise InputError(f"the rule lacks the field {name}; it needs measure, smoothing and threshold.")
        threshold = entry["threshold"]
        if isinstance(threshold, str):
            if threshold not in INFINITIES:
                raise InputError(f'threshold = {threshold!r} is not a number; give one, or "inf" or "-inf".')
            threshold = INFINITIES[threshold]
        learned = entry.get("parameters")
        return cls(
            entry["measure"],
            Smoothing.from_dict(entry["smoothing"]),
            threshold,
            None if learned is None else LearnedScore.from_dict(learned),
        )

    def save(self, path: str | os.PathLike[str], record: Mapping[str, Any] | None = None) -> Path:
        """Write the rule as a file of its own, with `record`: further fields, such as how it was calibrated.

        Raises:
            InputError: for a record that would overwrite the rule's own fields or that JSON cannot hold, and for a path that
                cannot be written.
        """
        entry = {"schema": SCHEMA, **self.to_json()}
        record = record or {}
        if taken := sorted(entry.keys() & record.keys()):
            raise InputError(f"the record's fields {', '.join(taken)} are the rule's own; name them otherwise.")
        try:
            text = json.dumps({**entry, **record}, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the rule's record cannot be written as JSON: {error}.") from error
        target = Path(path)
        try:
            target.write_text(text + "\n")
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}.") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Rule:
        """Read a `rule.json`.

        Raises:
            InputError: naming the file, and the field that is missing or wrong.
        """
        source = Path(path)
        try:
            entry = json.loads(source.read_text())
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror or error}; name a rule.json.") from error
        except ValueError as error:
            raise InputError(f"{source} is no JSON ({error}); name a rule.json.") from error
        try:
            return cls.from_json(entry)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error


def _finite_or_text(number: float) -> float | str:
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return number


def exit_steps(scores: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """(N,) the first step, from 1, whose score (N, T) is greater than the threshold; T where none is."""
    leaves = scores > threshold
    leaves[:, -1] = True
    steps: NDArray[np.int64] = leaves.argmax(axis=1) + 1
    return steps
