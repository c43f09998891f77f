"""A trial of a neuron model: whether it keeps to what it says of itself, on which conversion and simulation rely."""

from __future__ import annotations

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.neurons.model import NeuronModel, State

SAMPLES, UNITS, STEPS = 4, 64, 64
"""STEPS are the most that are tried."""
STRENGTHS = (0.05, 0.4, 1.0, 3.0)
"""Of the input current, in thresholds, by sample: from neurons that hardly fire to neurons that always do."""


@torch.no_grad()
def check_model(neurons: NeuronModel, time_steps: int) -> None:
    """Run a few neurons on random input currents for ``time_steps`` steps, at most ``STEPS``.

    Raises:
        InputError: where the model raises, sends anything but whole numbers within its bounds, leaves the bound of its membrane
            potential, keeps a state of another form, or steps otherwise where it may reuse memory.
    """
    name = f"neuron model {neurons.name!r}"
    try:
        _run(neurons, name, min(time_steps, STEPS))
    except InputError:
        raise
    except Exception as error:  # somebody else's code raises nearly anything
        raise InputError(f"{name} raises {type(error).__name__} in a step: {error}.") from error


def _run(neurons: NeuronModel, name: str, time_steps: int) -> None:
    low, high = neurons.sends
    if not (isinstance(low, int) and isinstance(high, int) and low <= 0 <= high):
        raise InputError(f"{name}: sends={(low, high)}: give two whole numbers, the first at most 0, the second at least 0.")
    generator = torch.Generator().manual_seed(0)
    strengths = torch.tensor(STRENGTHS).view(SAMPLES, 1)
    mean = torch.randn(SAMPLES, UNITS, generator=generator)
    state = _checked_state(neurons.initial(mean, 0.5), name)
    again = tuple(tensor.clone() for tensor in state)
    sent = torch.zeros_like(mean)
    come, least, most = (torch.zeros_like(mean) for _ in range(3))
    for t in range(1, time_steps + 1):
        current = strengths * (mean + torch.randn(SAMPLES, UNITS, generator=generator))
        spikes, state = neurons.step(current, state)
        _checked_state(state, name)
        reused, again = neurons.step(current.clone(), again, reuse=True)
        if spikes.shape != current.shape or not torch.equal(spikes, reused) or not torch.equal(state[0], again[0]):
            raise InputError(f"{name}: a step must give one number a neuron, the same with and without reuse of memory.")
        _check_bounds(spikes, low, high, f"{name}: sends={(low, high)}, in step {t}")
        sent += spikes
        _check_bounds(sent, *neurons.sends_in_all(t), f"{name}: sends_in_all({t})={neurons.sends_in_all(t)}")
        come = come + current
        least, most = torch.minimum(least, come), torch.maximum(most, come)
        allowed = 0.5 + 2 + (most - least) + neurons.excess(t)
        if neurons.exact and bool((state[0].abs() > allowed + 1e-3).any()):
            raise InputError(f"{name}: excess({t})={neurons.excess(t)}, and a membrane potential goes further: give more.")


def _check_bounds(spikes: Tensor, low: int, high: int, claim: str) -> None:
    if not torch.equal(spikes, spikes.round()):
        raise InputError(f"{claim}: a neuron sends {float(spikes[spikes != spikes.round()][0]):g}; spikes are whole numbers.")
    found = int(spikes.min()), int(spikes.max())
    if found[0] < low or found[1] > high:
        raise InputError(f"{claim}: neurons send {found[0]} to {found[1]}; give true bounds, exactness rests on them.")


def _checked_state(state: State, name: str) -> State:
    if not (isinstance(state, tuple) and state and all(isinstance(one, Tensor) and len(one) == SAMPLES for one in state)):
        raise InputError(f"{name}: its state must be a tuple of tensors, the batch first.")
    return state
