"""Both neurons, step by step, against sequences computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynconf_core.neurons import integrate_and_fire, signed


def column(*values: float) -> Tensor:
    return torch.tensor([[value] for value in values], dtype=torch.float64)


def test_integrate_and_fire_by_hand() -> None:
    """theta 1, V(0) 0.5, soft reset: the surplus stays, equality fires, there is no lower bound."""
    parameters = integrate_and_fire.Parameters(1.0)
    state = integrate_and_fire.initial(column(0.0), parameters)
    assert state.potential.item() == 0.5
    # current, spike, membrane potential afterwards (all exact in binary)
    sequence = [
        (0.25, 0, 0.75),
        (0.25, 1, 0.0),  # V = 1 = theta
        (2.5, 1, 1.5),  # one spike a step, however high V is
        (0.0, 1, 0.5),
        (-2.0, 0, -1.5),
        (2.0, 0, 0.5),
        (0.75, 1, 0.25),
    ]
    for current, spike, potential in sequence:
        spikes, state = integrate_and_fire.step(column(current), state, parameters)
        assert (spikes.item(), state.potential.item()) == (spike, potential)


@pytest.mark.parametrize(
    ("current", "count"), [(-0.3, 0), (0.0, 0), (0.124, 0), (0.125, 1), (0.3, 1), (0.7, 3), (1.0, 4), (7.0, 4)]
)
def test_integrate_and_fire_counts_as_qcfs(current: float, count: int) -> None:
    """Four steps of a constant current give clip(floor(4 x / theta + 1/2), 0, 4) spikes: QCFS with L = T."""
    parameters = integrate_and_fire.Parameters(1.0)
    state = integrate_and_fire.initial(column(0.0), parameters)
    total = 0.0
    for _ in range(4):
        spikes, state = integrate_and_fire.step(column(current), state, parameters)
        total += spikes.item()
    assert total == count


def test_signed_by_hand() -> None:
    """theta 3 (n 3, s 1), V(0) 1.5: fires, is taken back, and never leaves 0 to n."""
    parameters = signed.Parameters(3.0, 3)
    state = signed.initial(column(0.0), parameters)
    assert (state.potential.item(), state.net.item()) == (1.5, 0)
    # current, spike, membrane potential, net count
    sequence = [
        (-2.0, 0, -0.5, 0),  # below 0, but there is nothing to take back
        (4.0, 1, 0.5, 1),  # 3.5 >= 3
        (-0.5, 0, 0.0, 1),  # 0 is not below 0
        (-1.0, -1, 2.0, 0),  # -1 < 0: a negative spike
        (1.0, 1, 0.0, 1),  # 3 = theta fires
        (7.0, 1, 4.0, 2),
        (0.0, 1, 1.0, 3),
        (5.0, 0, 6.0, 3),  # above theta, but the net count is n
        (-7.0, -1, 2.0, 2),
        (-9.0, -1, -4.0, 1),
        (0.0, -1, -1.0, 0),
        (0.0, 0, -1.0, 0),
    ]
    for current, spike, potential, net in sequence:
        spikes, state = signed.step(column(current), state, parameters)
        assert (spikes.item(), state.potential.item(), state.net.item()) == (spike, potential, net)


@pytest.mark.parametrize("x", [-2.0, -0.1, 0.0, 0.49, 0.5, 0.51, 1.5, 2.49, 2.5, 3.0, 3.7, 12.0])
def test_signed_settles_at_the_lsq_level(x: float) -> None:
    """s 1, n 3: the current acts for n steps; then c = clip(floor(x / s + 1/2), 0, n), whatever came on the way."""
    parameters = signed.Parameters(3.0, 3)
    state = signed.initial(column(0.0), parameters)
    disturbance = [4.0, -9.0, 5.0, 0.0]  # adds up to nothing
    for time_step in range(12):
        current = (x if time_step < 3 else 0.0) + (disturbance[time_step] if time_step < 4 else 0.0)
        _, state = signed.step(column(current), state, parameters)
    assert state.net.item() == min(3, max(0, int((x + 0.5) // 1)))


@pytest.mark.parametrize("neuron", [integrate_and_fire, signed])
def test_step_is_a_function(neuron: object) -> None:
    """Neither the current nor the old state changes; samples do not touch; type and shape stay."""
    generator = torch.Generator().manual_seed(3)
    current = 4 * torch.randn(5, 2, 3, 3, generator=generator)
    parameters = signed.Parameters(0.7, 3) if neuron is signed else integrate_and_fire.Parameters(0.7)
    state = neuron.initial(current, parameters)  # type: ignore[attr-defined]
    _, state = neuron.step(current.flip(0), state, parameters)  # type: ignore[attr-defined]
    current_before, state_before = current.clone(), [tensor.clone() for tensor in state]
    spikes, after = neuron.step(current, state, parameters)  # type: ignore[attr-defined]
    again, _ = neuron.step(current, state, parameters)  # type: ignore[attr-defined]
    assert torch.equal(current, current_before)
    assert all(torch.equal(tensor, before) for tensor, before in zip(state, state_before, strict=True))
    assert torch.equal(spikes, again)
    assert spikes.shape == current.shape and spikes.dtype == current.dtype
    assert all(tensor.shape == current.shape for tensor in after)
    spikes.mul_(9)  # the caller's to overwrite
    assert torch.equal(neuron.step(current, state, parameters)[0], again)  # type: ignore[attr-defined]
    single, _ = neuron.step(current[2:3], type(state)(*(tensor[2:3] for tensor in state)), parameters)  # type: ignore[attr-defined]
    assert torch.equal(single, again[2:3])
