"""The neurons and the spiking max pool, step by step, against sequences computed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Node
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import NEURONS, NeuronModel, State, loaded
from dynconf_core.neurons.signed import PotentialAndCount, Signed
from dynconf_core.simulation import spiking_max_pool

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
MODELS = pytest.mark.parametrize("neuron", [IntegrateAndFire(), Signed(3)], ids=str)


def column(*values: float) -> Tensor:
    return torch.tensor([[value] for value in values], dtype=torch.float64)


def test_integrate_and_fire_by_hand() -> None:
    """V(0) = 1/2, soft reset: the excess is kept, equality fires, there is no lower limit."""
    neuron = IntegrateAndFire()
    state = neuron.initial(column(0.0), 0.5)
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
        spikes, state = neuron.step(column(current), state)
        assert (spikes.item(), state[0].item()) == (spike, potential)


@pytest.mark.parametrize(
    ("current", "count"), [(-0.3, 0), (0.0, 0), (0.124, 0), (0.125, 1), (0.3, 1), (0.7, 3), (1.0, 4), (7.0, 4)]
)
def test_integrate_and_fire_counts_as_qcfs(current: float, count: int) -> None:
    """Four steps of a constant current give clip(floor(4 x / theta + 1/2), 0, 4) spikes: QCFS with L = T."""
    neuron, total = IntegrateAndFire(), 0.0
    state: State = neuron.initial(column(0.0), 0.5)
    for _ in range(4):
        spikes, state = neuron.step(column(current), state)
        total += spikes.item()
    assert total == count


@PROPERTY
@given(st.lists(st.integers(-64, 96), min_size=1, max_size=40), st.sampled_from((16, 32, 128)))
def test_integrate_and_fire_conserves_charge(currents: list[int], parts: int) -> None:
    """V(T) = V(0) + sum of I - the spike count: no charge is lost or created, at any step."""
    neuron = IntegrateAndFire()
    state: State = neuron.initial(column(0.0), 0.5)
    charge, count = 0.5, 0.0
    for current in currents:
        spikes, state = neuron.step(column(current / parts), state)
        charge, count = charge + current / parts, count + spikes.item()
        assert spikes.item() in (0, 1)
        assert state[0].item() == charge - count
        assert spikes.item() == 1 or state[0].item() < 1


def test_signed_by_hand() -> None:
    """n = 3, V(0) = 1/2: spikes are sent and taken back, and the count never leaves 0 to n."""
    neuron = Signed(3)
    state = neuron.initial(column(0.0), 0.5)
    assert (state.potential.item(), state.net.item()) == (0.5, 0)
    # current, spike, membrane potential, net count
    sequence = [
        (-0.75, 0, -0.25, 0),  # below 0, but there is nothing to take back
        (1.5, 1, 0.25, 1),  # 1.25 >= 1
        (-0.25, 0, 0.0, 1),  # 0 is not below 0
        (-0.25, -1, 0.75, 0),  # -0.25 < 0: a negative spike
        (0.25, 1, 0.0, 1),  # 1 = theta fires
        (2.25, 1, 1.25, 2),
        (0.0, 1, 0.25, 3),
        (1.75, 0, 2.0, 3),  # above theta, but the net count is n
        (-2.25, -1, 0.75, 2),
        (-3.0, -1, -1.25, 1),
        (0.0, -1, -0.25, 0),
        (0.0, 0, -0.25, 0),
    ]
    for current, spike, potential, net in sequence:
        spikes, after = neuron.step(column(current), state)
        assert (spikes.item(), *(tensor.item() for tensor in after)) == (spike, potential, net)
        state = PotentialAndCount(*after)


@PROPERTY
@given(st.integers(-200, 200), st.sampled_from((1, 2, 4, 8)), st.lists(st.integers(-300, 300), max_size=12))
def test_signed_settles_at_the_lsq_level(current: int, top: int, disturbance: list[int]) -> None:
    """The input current is applied for n steps; finally c = clip(floor(x / s + 1/2), 0, n), s = 1 / n, for any intermediate
    spikes; ties are rounded up."""
    neuron, x = Signed(top), current / 32 / top
    come = [value / 16 / top for value in disturbance]
    come.append(-sum(come))  # adds up to nothing
    state: State = neuron.initial(column(0.0), 0.5)
    for time_step in range(max(top, len(come)) + 2 * top + 400):
        given_now = (x if time_step < top else 0.0) + (come[time_step] if time_step < len(come) else 0.0)
        spikes, state = neuron.step(column(given_now), state)
        assert 0 <= state[1].item() <= top and spikes.item() in (-1, 0, 1)
    assert spikes.item() == 0, "it has settled"
    assert state[1].item() == min(top, max(0, (current + 16) // 32))


@MODELS
def test_step_is_a_function(neuron: NeuronModel) -> None:
    """Neither the input current nor the old state is changed; samples do not interact; type and shape are kept."""
    generator = torch.Generator().manual_seed(3)
    current = 4 * torch.randn(5, 2, 3, 3, generator=generator)
    state = neuron.initial(current, 0.5)
    _, state = neuron.step(current.flip(0), state)
    current_before, state_before = current.clone(), [tensor.clone() for tensor in state]
    spikes, after = neuron.step(current, state)
    again, _ = neuron.step(current, state)
    assert torch.equal(current, current_before)
    assert all(torch.equal(tensor, before) for tensor, before in zip(state, state_before, strict=True))
    assert torch.equal(spikes, again)
    assert spikes.shape == current.shape and spikes.dtype == current.dtype
    assert all(tensor.shape == current.shape for tensor in after)
    spikes.mul_(9)  # the caller's to overwrite
    assert torch.equal(neuron.step(current, state)[0], again)
    single, _ = neuron.step(current[2:3], tuple(tensor[2:3] for tensor in state))
    assert torch.equal(single, again[2:3])


@MODELS
def test_reused_memory_changes_no_number(neuron: NeuronModel) -> None:
    """With ``reuse`` the memory of the input current and the old state may be reused; the result is the same."""
    generator = torch.Generator().manual_seed(5)
    states = [neuron.initial(torch.zeros(4, 6), 0.5) for _ in range(2)]
    for _ in range(12):
        current = torch.randn(4, 6, generator=generator)
        kept, states[0] = neuron.step(current.clone(), states[0])
        reused, states[1] = neuron.step(current.clone(), states[1], reuse=True)
        assert torch.equal(kept, reused)
        assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


@MODELS
def test_initial_membrane_potentials_per_channel(neuron: NeuronModel) -> None:
    """One V(0) per channel, as the correction computes them."""
    start = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1)
    state = neuron.initial(torch.zeros(2, 3, 4, 4), start)
    assert torch.equal(state[0], start.expand(2, 3, 4, 4))
    state[0].add_(1)  # memory of its own
    assert torch.equal(start.flatten(), torch.tensor([0.25, 0.5, 0.75]))
    assert len(state) == neuron.state_tensors


@MODELS
@PROPERTY
@given(seed=st.integers(0, 10**6), scale=st.sampled_from((0.3, 1.0, 5.0)))
def test_what_a_model_declares_is_true(neuron: NeuronModel, seed: int, scale: float) -> None:
    """Spikes are whole and within the bounds of one step and of all steps, and V within the bound for which fixed-point
    weights are chosen."""
    generator, time_steps = torch.Generator().manual_seed(seed), 24
    state = neuron.initial(torch.zeros(200, dtype=torch.float64), 0.5)
    total, charge, least, most = (torch.zeros(200, dtype=torch.float64) for _ in range(4))
    for step in range(1, time_steps + 1):
        current = scale * (torch.randn(200, generator=generator, dtype=torch.float64) + 0.2)
        spikes, state = neuron.step(current, state)
        total, charge = total + spikes, charge + current
        least, most = torch.minimum(least, charge), torch.maximum(most, charge)
        low, high = neuron.sends
        assert torch.equal(spikes, spikes.round()) and low <= int(spikes.min()) <= int(spikes.max()) <= high
        low, high = neuron.sends_in_all(step)
        assert low <= int(total.min()) <= int(total.max()) <= high
        assert bool((state[0].abs() <= 0.5 + 2 + most - least + neuron.excess(step)).all())


# Models by name, in files and from elsewhere


def test_models_are_found_by_name() -> None:
    assert NEURONS.names()[:2] == ("integrate-and-fire", "signed")
    assert NEURONS.get("signed").of(7) == Signed(7) and NEURONS.get("integrate-and-fire").of(4) == IntegrateAndFire()
    with pytest.raises(InputError, match=r"neuron model 'sigmed' is unknown \(did you mean 'signed'\?\)"):
        NEURONS.get("sigmed")
    assert (str(IntegrateAndFire()), str(Signed(7))) == ("integrate-and-fire", "signed with n = 7")


@MODELS
def test_json_holds_a_model(neuron: NeuronModel) -> None:
    held = json.loads(json.dumps(neuron.to_json()))
    assert held["model"] == neuron.name and loaded(held) == neuron


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "leaky"}, "model 'leaky', which is none of integrate-and-fire, signed"),
        ({"model": "os:getcwd"}, "which is none of"),
        ({}, "which is none of"),
        ({"model": "signed"}, "are not of the neuron model 'signed'"),
        ({"model": "signed", "levels": 3, "leak": 0.5}, "are not of the neuron model 'signed'"),
        ({"model": "signed", "levels": 0}, "levels=0"),
    ],
)
def test_a_file_with_other_values_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        loaded(values)
    with pytest.raises(InputError, match="are not of the neuron model 'integrate-and-fire'"):
        loaded({"model": "signed", "levels": 3}, IntegrateAndFire)


# The spiking max pool


def pool(kernel: int = 2, stride: int = 2, padding: int = 0, ceil_mode: bool = False) -> Node:
    window = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (padding, padding), "dilation": (1, 1)}
    return Node("pool", "max_pool", ("x",), (1, 1, 1), {**window, "ceil_mode": ceil_mode})


def test_spiking_max_pool_by_hand() -> None:
    """Sends a spike when the largest running count grows: not for every spike, and not only for one of the inputs."""
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
    """At every step and every border; at most one spike per step, of either sign only if its inputs send both."""
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
