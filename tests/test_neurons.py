"""The neurons and the spiking max pool, step by step, against sequences computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynconf_core.graph.graph import Node
from dynconf_core.neurons import integrate_and_fire, signed, spiking_max_pool

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def column(*values: float) -> Tensor:
    return torch.tensor([[value] for value in values], dtype=torch.float64)


def test_integrate_and_fire_by_hand() -> None:
    """theta 1, V(0) 0.5, soft reset: the surplus stays, equality fires, there is no lower bound."""
    parameters = integrate_and_fire.Parameters(1.0)
    state = integrate_and_fire.initial(column(0.0), 0.5)
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
    state = integrate_and_fire.initial(column(0.0), 0.5)
    total = 0.0
    for _ in range(4):
        spikes, state = integrate_and_fire.step(column(current), state, parameters)
        total += spikes.item()
    assert total == count


@PROPERTY
@given(st.lists(st.integers(-64, 96), min_size=1, max_size=40), st.sampled_from((0.25, 1.0, 2.0)))
def test_integrate_and_fire_keeps_its_charge(currents: list[int], threshold: float) -> None:
    """V(T) = V(0) + sum of I - theta times the count: nothing is lost or made, at any step."""
    state = integrate_and_fire.initial(column(0.0), threshold / 2)
    charge, count = threshold / 2, 0.0
    for current in currents:
        spikes, state = integrate_and_fire.step(column(current / 32), state, integrate_and_fire.Parameters(threshold))
        charge, count = charge + current / 32, count + spikes.item()
        assert spikes.item() in (0, 1)
        assert state.potential.item() == charge - threshold * count
        assert spikes.item() == 1 or state.potential.item() < threshold


def test_signed_by_hand() -> None:
    """theta 3 (n 3, s 1), V(0) 1.5: fires, is taken back, and never leaves 0 to n."""
    parameters = signed.Parameters(3.0, 3)
    state = signed.initial(column(0.0), 1.5)
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


@PROPERTY
@given(st.integers(-200, 200), st.integers(1, 7), st.lists(st.integers(-300, 300), max_size=12))
def test_signed_settles_at_the_lsq_level(current: int, top: int, disturbance: list[int]) -> None:
    """s 1: the current acts for n steps; then c = clip(floor(x / s + 1/2), 0, n), whatever came on the way, ties up."""
    x = current / 32
    come = [value / 16 for value in disturbance]
    come.append(-sum(come))  # adds up to nothing
    state = signed.initial(column(0.0), top / 2)
    for time_step in range(max(top, len(come)) + 2 * top + 400):
        given_now = (x if time_step < top else 0.0) + (come[time_step] if time_step < len(come) else 0.0)
        spikes, state = signed.step(column(given_now), state, signed.Parameters(float(top), top))
        assert 0 <= state.net.item() <= top and spikes.item() in (-1, 0, 1)
    assert spikes.item() == 0, "it has settled"
    assert state.net.item() == min(top, max(0, (current + 16) // 32))


@pytest.mark.parametrize("neuron", [integrate_and_fire, signed])
def test_step_is_a_function(neuron: object) -> None:
    """Neither the current nor the old state changes; samples do not touch; type and shape stay."""
    generator = torch.Generator().manual_seed(3)
    current = 4 * torch.randn(5, 2, 3, 3, generator=generator)
    parameters = signed.Parameters(0.7, 3) if neuron is signed else integrate_and_fire.Parameters(0.7)
    state = neuron.initial(current, 0.35)  # type: ignore[attr-defined]
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


@pytest.mark.parametrize("neuron", [integrate_and_fire, signed])
def test_reused_memory_changes_no_number(neuron: object) -> None:
    """With ``reuse`` the current and the old state may be used up; the outcome is the same."""
    parameters = signed.Parameters(1.0, 3) if neuron is signed else integrate_and_fire.Parameters(1.0)
    generator = torch.Generator().manual_seed(5)
    states = [neuron.initial(torch.zeros(4, 6), 0.5) for _ in range(2)]  # type: ignore[attr-defined]
    for _ in range(12):
        current = torch.randn(4, 6, generator=generator)
        kept, states[0] = neuron.step(current.clone(), states[0], parameters)  # type: ignore[attr-defined]
        reused, states[1] = neuron.step(current.clone(), states[1], parameters, reuse=True)  # type: ignore[attr-defined]
        assert torch.equal(kept, reused)
        assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_initial_potentials_of_channels() -> None:
    """V(0) one a channel, as calibration finds them, and for both neurons."""
    start = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1)
    current = torch.zeros(2, 3, 4, 4)
    for neuron in (integrate_and_fire, signed):
        state = neuron.initial(current, start)
        assert torch.equal(state.potential, start.expand(2, 3, 4, 4))
        state.potential.add_(1)  # memory of its own
        assert torch.equal(start.flatten(), torch.tensor([0.25, 0.5, 0.75]))


# The spiking max pool


def pool(kernel: int = 2, stride: int = 2, padding: int = 0, ceil_mode: bool = False) -> Node:
    window = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (padding, padding), "dilation": (1, 1)}
    return Node("pool", "max_pool", ("x",), (1, 1, 1), {**window, "ceil_mode": ceil_mode})


def test_spiking_max_pool_by_hand() -> None:
    """Sends a spike when the highest running count grows: not for every spike, and not only for one of the inputs."""
    state = None
    # spikes of the four inputs, what the pool sends
    sequence = [
        ((1, 0, 0, 0), 1),  # counts 1 0 0 0
        ((0, 1, 0, 0), 0),  # 1 1 0 0
        ((0, 1, 0, 0), 1),  # 1 2 0 0: the lead changes
        ((1, 0, 1, 0), 0),  # 2 2 1 0
        ((0, 0, 0, 0), 0),
        ((1, 1, 1, 1), 1),  # 3 3 2 1
        ((0, -1, 0, 0), 0),  # 3 2 2 1
        ((-1, 0, 0, 0), -1),  # 2 2 2 1: a spike is taken back when no input holds the count any more
    ]
    for given_spikes, sent in sequence:
        spikes = torch.tensor(given_spikes, dtype=torch.float32).view(1, 1, 2, 2)
        out, state = spiking_max_pool.step(pool(), spikes, state)
        assert out.item() == sent


@PROPERTY
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from(((2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (3, 1, 1, False))),
)
def test_spiking_max_pool_has_the_maximum_of_the_counts(
    seed: int, both_signs: bool, window: tuple[int, int, int, bool]
) -> None:
    """At every step, at every border; and it sends at most one spike a step, of either sign only where its inputs do."""
    generator = torch.Generator().manual_seed(seed)
    plain = torch.nn.MaxPool2d(window[0], window[1], window[2], ceil_mode=window[3])
    counts, sent, state = torch.zeros(2, 3, 7, 7), torch.zeros(()), None
    for _ in range(9):
        spikes = torch.randint(-1 if both_signs else 0, 2, counts.shape, generator=generator).float()
        spikes = torch.maximum(spikes, -counts)  # a count never falls below 0
        counts = counts + spikes
        out, state = spiking_max_pool.step(pool(*window), spikes, state)
        sent = sent + out
        assert torch.equal(sent, plain(counts))
        assert set(out.unique().tolist()) <= ({-1.0, 0.0, 1.0} if both_signs else {0.0, 1.0})
