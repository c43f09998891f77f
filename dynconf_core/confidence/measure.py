"""The protocol of a confidence measure: how confident an SNN is of its prediction at every step; larger means more confident.

A measure is one class. Its method `step` scores one time step of a running network. The scores of whole traces come from the
same method, unless the class computes the same bits in a faster way, so that a live run exits exactly where the traces say.
Thresholds are scores, and the comparison "greater than" can depend on the last bit: for exponentials, logarithms and sums over
classes use `dynconf_core.confidence.elementary`, whose bits depend on neither batch nor device.

`measure_of` finds the built-in measures, those of installed packages (entry-point group `dynconf.measures`), and your own,
given as `package.module:Class` or as an object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.errors import InputError
from dynconf_core.registry import Registry
from dynconf_core.traces.schema import Traces

# Elements processed at once: 256 KiB of float64 stay in the cache.
CHUNK_ELEMENTS = 2**15
State: TypeAlias = tuple[Tensor, ...]
"""What a measure remembers of n samples between two steps: tensors, batch first."""


class StepOutputs(NamedTuple):
    """What a measure may read of one time step of n samples; the samples may be at different steps.

    Attributes:
        logits: (n, C) float64, the output of this step alone.
        accumulated: z_t (n, C) float64, the sum of the logits so far.
        smoothed: z'_t (n, C) float64 under the rule's smoothing; z_t itself for a measure that does not use smoothing.
        prediction: (n,) int64, argmax z_t.
        step: t (n,) int64, counted from 1.
    """

    logits: Tensor
    accumulated: Tensor
    smoothed: Tensor
    prediction: Tensor
    step: Tensor


class ConfidenceMeasure(ABC):
    """How confident an SNN is of its prediction. Subclasses define `name` and `step`; everything else has a default.

    Parameters belong in the fields of a dataclass: they are then compared, and written to and read from JSON.

    Attributes:
        name: a Python identifier, used in files, tables and commands.
        label: what the number returned by `shown` means, for axis labels and tables.
        reads_smoothing: whether `step` reads `outputs.smoothed`.
        searches_smoothing: whether the stage `search` optimises the smoothing with Optuna instead of trying `smoothings`.
        of_softmax: whether the score is a function of softmax(z'), whose reliability is then shown under the rule's smoothing.
        least_samples, least_steps: the measure is left out for calibration traces smaller than this.
        rival: whether it is another method's rule, which is compared but never chosen as the best.
        default_threshold: the threshold, in units of the score, that the method itself proposes; None: it proposes none.
    """

    name: ClassVar[str]
    label: ClassVar[str] = "score"
    reads_smoothing: ClassVar[bool] = False
    searches_smoothing: ClassVar[bool] = False
    of_softmax: ClassVar[bool] = False
    least_samples: ClassVar[int] = 1
    least_steps: ClassVar[int] = 1
    rival: ClassVar[bool] = False
    default_threshold: ClassVar[float | None] = None

    @abstractmethod
    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        """One time step: the scores (n,) float64, never nan, and the new state; `outputs` and `state` must not be changed."""

    def initial(self, samples: int, classes: int, device: torch.device | str = "cpu") -> State:
        """The state of new samples before their first step: tensors with `samples` rows. Default: no tensors."""
        return ()

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        """Scores (N, T) of all samples at all steps; those after a sample's end are not read. Default: `step`, run over the
        steps for a few samples at a time."""
        scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        for rows, accumulated in chunks(traces, traces.classes):
            logits = logits_of(traces, rows)
            count = len(accumulated)
            state = self.initial(count, traces.classes)
            for t in range(traces.time_steps):
                step = torch.full((count,), t + 1)
                outputs = step_outputs(self, smoothing, logits[:, t], accumulated[:, t], step)
                found, state = self.step(outputs, state)
                if found.shape != (count,):
                    raise InputError(
                        f"measure {self.name!r} gives scores of the shape {tuple(found.shape)} for {count} samples; "
                        "its method step must give one score a sample."
                    )
                scores[rows, t] = found.numpy()
        return scores

    @property
    def fitted(self) -> bool:
        """Whether the measure can score; False if `fit` must be called first."""
        return True

    def fit(self, calibration: Traces, smoothing: Smoothing, seed: int) -> tuple[Self, NDArray[np.float64] | None]:
        """The measure fitted on calibration traces. Default: the measure itself, as there is nothing to fit.

        Args:
            calibration: N >= `least_samples`, T >= `least_steps`.
            smoothing: the smoothing under which the measure will be used.
            seed: of the folds.

        Returns:
            The fitted measure, and out-of-fold scores (N, T) for the threshold search, each computed with parameters fitted
            without the sample; None if fitting does not bias the scores of the samples used for it.
        """
        return self, None

    def smoothings(self, traces: Traces) -> Sequence[Smoothing]:
        """The smoothings that are tried with it on these calibration traces. Default: the plain sum."""
        return (PLAIN,)

    def shown(self, score: float) -> float:
        """The number shown to people for a score or threshold; `label` says what it means. Default: the score."""
        return float(score)

    def coverage(self, traces: Traces, steps: NDArray[np.int64], threshold: float) -> float | None:
        """The share of samples whose true class is in the set that the measure predicts at the exit steps (N,) of a threshold.
        Default: None, as it predicts no sets."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The parameters as stored in `rule.json`. Default: the fields of a dataclass, with lists for tuples."""
        return {name: _listed(value) for name, value in asdict(self).items()} if is_dataclass(self) else {}

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Default: the parameters are passed to the class.

        Raises:
            InputError: for parameters that the class does not accept.
        """
        try:
            return cls(**parameters)
        except TypeError as error:
            raise InputError(f"measure {cls.name!r} does not take the parameters {dict(parameters)!r}: {error}.") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_json().items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, ConfidenceMeasure) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.to_json())))


class SmoothedMeasure(ConfidenceMeasure):
    """A measure that is a function of z'_t alone: `of_smoothed` serves single steps and whole traces."""

    reads_smoothing = True

    @abstractmethod
    def of_smoothed(self, smoothed: Tensor) -> Tensor:
        """Scores (...) float64 of z' (..., C) float64."""

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return self.of_smoothed(outputs.smoothed), state

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> NDArray[np.float64]:
        scores = np.empty((traces.samples, traces.time_steps), dtype=np.float64)
        steps = torch.arange(1, traces.time_steps + 1)
        for rows, accumulated in chunks(traces):
            scores[rows] = self.of_smoothed(smoothing.smoothed(accumulated, steps)).numpy()
        return scores


MeasureLike: TypeAlias = str | type[ConfidenceMeasure] | ConfidenceMeasure
"""A measure by name or as `package.module:Class`, as a class, or as an object."""

MEASURES: Registry[type[ConfidenceMeasure]] = Registry(
    "measure",
    "dynconf.measures",
    {
        "max_softmax": "dynconf_core.confidence.max_softmax:MaxSoftmax",
        "entropy": "dynconf_core.confidence.entropy:Entropy",
        "gap": "dynconf_core.confidence.gap:Gap",
        "patience": "dynconf_core.confidence.patience:Patience",
        "learned": "dynconf_core.confidence.learned:Learned",
        "seenn_1": "dynconf_core.confidence.seenn_1:SeennI",
        "seenn_2": "dynconf_core.confidence.seenn_2:SeennII",
        "dt_snn": "dynconf_core.confidence.dt_snn:DtSnn",
        "snncutoff": "dynconf_core.confidence.snncutoff:SnnCutoff",
        "spikecp": "dynconf_core.confidence.spikecp:SpikeCP",
        "spikecp_simes": "dynconf_core.confidence.spikecp:SpikeCPSimes",
        "boosted_gate": "dynconf_core.confidence.boosted_gate:BoostedGate",
    },
)


def measure_of(given: MeasureLike) -> ConfidenceMeasure:
    """The measure that `given` names or is.

    Raises:
        InputError: for an unknown name (the message lists the known ones), and for anything that is not a measure, cannot be
            made without arguments, or has a name that is not an identifier or belongs to another measure.
    """
    found: object = MEASURES.get(given) if isinstance(given, str) else given
    if isinstance(found, type) and issubclass(found, ConfidenceMeasure):
        try:
            found = found()
        except TypeError as error:
            raise InputError(f"measure {given!r} cannot be made without arguments ({error}); hand over an object.") from None
        except Exception as error:  # somebody else's code raises nearly anything
            raise InputError(f"measure {given!r} cannot be made: {type(error).__name__}: {error}.") from error
    if not isinstance(found, ConfidenceMeasure):
        known = ", ".join(MEASURES.names())
        raise InputError(f"measure {given!r} is none: give one of {known}, or a subclass of ConfidenceMeasure.")
    name = getattr(found, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"measure {given!r}: its name = {name!r} is no identifier; set the class attribute name.")
    if MEASURES.lasting(name) and MEASURES.get(name) is not type(found):
        raise InputError(f"measure {given!r}: the name {name!r} belongs to another measure; set the class attribute name anew.")
    return found


def measures_of(given: Sequence[MeasureLike] | None = None) -> list[ConfidenceMeasure]:
    """The measures that `given` lists, each once; None: all known ones.

    Raises:
        InputError: as `measure_of`, and for two different measures with the same name.
    """
    found: dict[str, ConfidenceMeasure] = {}
    for one in MEASURES.names() if given is None else given:
        measure = measure_of(one)
        known = found.setdefault(measure.name, measure)
        if known is not measure and known != measure:
            raise InputError(f"two measures are called {measure.name!r}; give one of them another name.")
    return list(found.values())


def own_measures() -> tuple[str, ...]:
    """The names of the known measures that are no rivals: those among which the best is chosen."""
    return tuple(name for name in MEASURES.names() if not getattr(MEASURES.get(name), "rival", False))


def source_of(measure: ConfidenceMeasure) -> str | None:
    """`package.module:Class` of a measure from outside; None for a measure that every process finds by its name."""
    kind = type(measure)
    return None if MEASURES.lasting(measure.name) else f"{kind.__module__}:{kind.__qualname__}"


def scores_of(measure: ConfidenceMeasure, traces: Traces, smoothing: Smoothing) -> NDArray[np.float64]:
    """The measure's scores (N, T) float64, validated.

    Raises:
        InputError: for a measure that is not fitted, or scores that have another shape or type or are not numbers.
    """
    if not measure.fitted:
        raise InputError(f"measure {measure.name!r} needs its fitted parameters: call fit on calibration traces first.")
    scores = measure.scores(traces, smoothing)
    return checked_scores(measure, scores, traces)


def checked_scores(measure: ConfidenceMeasure, scores: NDArray[np.float64], traces: Traces) -> NDArray[np.float64]:
    """`scores` unchanged, if they are (N, T) float64 numbers for these traces.

    Raises:
        InputError: if they are not.
    """
    shape = (traces.samples, traces.time_steps)
    if not isinstance(scores, np.ndarray) or scores.shape != shape or scores.dtype != np.float64:
        described = f"{getattr(scores, 'dtype', type(scores).__name__)} of the shape {getattr(scores, 'shape', ())}"
        raise InputError(f"measure {measure.name!r} gives {described}; its scores must be float64 of the shape {shape}.")
    if np.isnan(scores.max()):
        sample, step = np.argwhere(np.isnan(scores))[0]
        raise InputError(f"measure {measure.name!r} gives nan for sample {sample} at step {step + 1}; give a number.")
    return scores


def _listed(value: Any) -> Any:
    """A value as JSON gives it back: tuples as lists, inside and out."""
    if isinstance(value, Mapping):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def step_outputs(
    measure: ConfidenceMeasure, smoothing: Smoothing, logits: Tensor, accumulated: Tensor, step: Tensor
) -> StepOutputs:
    """What `measure` reads of one step; z'_t is computed only if it is used."""
    smoothed = smoothing.smoothed(accumulated, step) if measure.reads_smoothing else accumulated
    return StepOutputs(logits, accumulated, smoothed, accumulated.argmax(dim=-1), step)


def chunks(traces: Traces, elements: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """z_t of all samples in pieces that fit into the cache: (slice of samples, z (n, T, C) float64).

    Args:
        traces: of N samples.
        elements: number of elements per sample that are processed at once; None: all T C.
    """
    size = max(1, CHUNK_ELEMENTS // (elements or traces.time_steps * traces.classes))
    for piece, accumulated in traces.accumulated():
        start = piece.start
        for chunk in torch.from_numpy(accumulated).split(size):
            yield slice(start, start + len(chunk)), chunk
            start += len(chunk)


def logits_of(traces: Traces, rows: slice) -> Tensor:
    """The logits (n, T, C) of each step for some samples, float64; 0 after a sample's end."""
    return torch.from_numpy(traces.outputs(rows))
