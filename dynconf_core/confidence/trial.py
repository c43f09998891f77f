"""A trial of a confidence measure: whether it keeps to its protocol, before a long run relies on it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynconf_core.confidence.measure import MEASURES, ConfidenceMeasure, State, StepOutputs, scores_of, step_outputs
from dynconf_core.confidence.smoothing import PLAIN
from dynconf_core.errors import InputError
from dynconf_core.traces.schema import Traces
from dynconf_core.wording import an

SAMPLES, CLASSES, STEPS = 5, 4, 6


def check_measure(measure: ConfidenceMeasure) -> None:
    """Score a few random samples with a measure from outside, all at once and one alone.

    Raises:
        InputError: where it raises; gives anything but one float64 number a sample; changes what it was given; keeps a state
            of another form or on another device; cannot be written as JSON and read again; or scores a sample otherwise where
            others are beside it, or on whole traces.
    """
    if MEASURES.own(measure.name) or not measure.fitted:
        return
    try:
        _run(measure)
    except InputError:
        raise
    except Exception as error:  # somebody else's code raises nearly anything
        raise InputError(f"measure {measure.name!r} raises {type(error).__name__} on random logits: {error}.") from error


def _run(measure: ConfidenceMeasure) -> None:
    there = _checked_state(measure, measure.initial(SAMPLES, CLASSES, "meta"), SAMPLES)
    if any(tensor.device.type != "meta" for tensor in there):
        raise InputError(f"measure {measure.name!r}: initial must make its state on the device that it is given.")
    logits = torch.randn(STEPS, SAMPLES, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _check_json(measure)
    together, alone = _scored(measure, logits), _scored(measure, logits[:, -1:])
    if not torch.allclose(together[:, -1:], alone, rtol=1e-9):
        raise InputError(f"measure {measure.name!r}: a sample's score depends on the others in its batch; it must not.")
    traces = Traces(logits=logits.transpose(0, 1).contiguous().numpy(), labels=np.zeros(SAMPLES, dtype=np.int64))
    if not np.array_equal(scores_of(measure, traces, PLAIN), together.T.numpy()):
        raise InputError(
            f"measure {measure.name!r}: scores of whole traces differ from those of step; they must be the same bits."
        )


def _check_json(measure: ConfidenceMeasure) -> None:
    parameters = measure.to_json()
    try:
        read = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"measure {measure.name!r}: to_json gives what JSON cannot hold: {error}.") from None
    if type(measure).from_json(read).to_json() != parameters:
        raise InputError(f"measure {measure.name!r}: from_json does not give the measure back that to_json wrote.")


def _scored(measure: ConfidenceMeasure, logits: Tensor) -> Tensor:
    """Scores ``(T, n)`` of logits ``(T, n, C)``."""
    count = logits.shape[1]
    state = measure.initial(count, CLASSES)
    accumulated, scores = torch.zeros_like(logits[0]), []
    for t, of_step in enumerate(logits, 1):
        accumulated = accumulated + of_step
        outputs = step_outputs(measure, PLAIN, of_step, accumulated, torch.full((count,), t))
        before = StepOutputs(*(value.clone() for value in outputs))
        given = measure.step(outputs, state)
        if not isinstance(given, tuple) or len(given) != 2:
            raise InputError(f"measure {measure.name!r}: step must give two things, the scores and the state after it.")
        found, following = given
        _check_scores(measure, found, count)
        if not all(map(torch.equal, outputs, before)):
            raise InputError(f"measure {measure.name!r}: step changes what it is given; work on copies.")
        if len(_checked_state(measure, following, count)) != len(state):
            raise InputError(f"measure {measure.name!r}: a step's state has {len(following)} tensors, initial {len(state)}.")
        state = following
        scores.append(found)
    return torch.stack(scores)


def _check_scores(measure: ConfidenceMeasure, found: Any, count: int) -> None:
    if not isinstance(found, Tensor) or found.shape != (count,) or found.dtype != torch.float64:
        described = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else an(found)
        raise InputError(f"measure {measure.name!r}: step gives {described} as scores; give a float64 tensor ({count},).")
    if bool(found.isnan().any()):
        raise InputError(f"measure {measure.name!r}: step gives nan as a score; give a number.")


def _checked_state(measure: ConfidenceMeasure, state: State, count: int) -> State:
    if not isinstance(state, tuple) or not all(isinstance(one, Tensor) and one.ndim and len(one) == count for one in state):
        raise InputError(f"measure {measure.name!r}: its state must be a tuple of tensors of one row a sample.")
    return state
