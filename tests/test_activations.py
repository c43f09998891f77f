"""QCFS and LSQ: levels and gradients against hand-computed values and against the same function composed in autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from training_cases import activation

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.training.loop import initialise_steps


def qcfs(levels: int, threshold: float) -> QCFS:
    layer = QCFS(levels, threshold).double()
    with torch.no_grad():
        layer.threshold.fill_(threshold)  # made in float32
    return layer


def lsq(bits: int, step: float) -> LSQ:
    layer = LSQ(bits).double()
    with torch.no_grad():
        layer.step.fill_(step)
    return layer


def straight_floor(x: Tensor) -> Tensor:
    """floor(x) with gradient 1."""
    return x + (torch.floor(x) - x).detach()


def numbers(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# QCFS


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (-1.0, 0.0),
        (0.0, 0.0),
        (0.24, 0.0),
        (0.25, 0.5),  # x L / lambda = 1/2: half-way goes up
        (0.5, 0.5),
        (0.74, 0.5),
        (0.75, 1.0),  # half-way between 1/4 and 2/4
        (1.24, 1.0),
        (1.25, 1.5),
        (1.75, 2.0),
        (2.0, 2.0),
        (100.0, 2.0),
    ],
)
def test_qcfs_levels(x: float, expected: float) -> None:
    """lambda = 2, L = 4: steps of a half, shifted left by a quarter."""
    assert qcfs(4, 2.0)(torch.tensor([x], dtype=torch.float64)).item() == expected


def test_qcfs_gradients_by_hand() -> None:
    """lambda = 2, L = 4: dx is 1 within [0, lambda]; d lambda is h/lambda - [inside] x/lambda."""
    layer = qcfs(4, 2.0)
    x = torch.tensor([-0.5, 0.3, 0.9, 1.9, 5.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    (layer(x) * weights).sum().backward()
    assert x.grad is not None and layer.threshold.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    # h / lambda: 0, 1/4, 2/4, 4/4, 1; x / lambda inside: 0.15, 0.45, 0.95
    by_hand = 2 * (0.25 - 0.15) + 3 * (0.5 - 0.45) + 4 * (1 - 0.95) + 5 * 1
    assert layer.threshold.grad.item() == pytest.approx(by_hand, abs=1e-14)


@pytest.mark.parametrize(("levels", "threshold"), [(1, 0.7), (4, 2.0), (8, 8.0), (32, 1.3)])
def test_qcfs_gradients_equal_the_composite(levels: int, threshold: float) -> None:
    """As the authors compose it: scale, clip, quantise straight through, scale back."""
    x = numbers(levels, 4, 3, 5, 5)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    layer = qcfs(levels, threshold)
    lam = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)
    composite = straight_floor((theirs / lam).clamp(0, 1) * levels + 0.5) / levels * lam
    output = layer(ours)
    weights = numbers(99, 4, 3, 5, 5)
    (output * weights).sum().backward()
    (composite * weights).sum().backward()
    assert layer.threshold.grad is not None and lam.grad is not None
    torch.testing.assert_close(output, composite, rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-13)
    torch.testing.assert_close(layer.threshold.grad, lam.grad, rtol=1e-12, atol=1e-12)


def test_qcfs_threshold_is_one_number() -> None:
    """lambda is one number per layer for inputs of any shape, and stays float32 for float32 inputs."""
    layer = QCFS(4, 4.0)
    layer(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert layer.threshold.grad is not None
    assert layer.threshold.grad.shape == () and layer.threshold.grad.dtype == torch.float32
    assert list(layer.state_dict()) == ["threshold"]


# LSQ


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (-3.0, 0.0),
        (-0.25, 0.0),
        (0.0, 0.0),
        (0.2, 0.0),
        (0.25, 0.5),  # u = 1/2 goes up; half to even would stay at 0
        (0.75, 1.0),  # u = 3/2
        (1.25, 1.5),  # u = 5/2 goes up to 3; half to even would give 2
        (1.5, 1.5),
        (9.0, 1.5),
    ],
)
def test_lsq_levels(x: float, expected: float) -> None:
    """s = 1/2, 2 bits: 0, 0.5, 1, 1.5; ties are rounded up."""
    assert lsq(2, 0.5)(torch.tensor([[x]], dtype=torch.float64)).item() == expected


def test_lsq_gradients_by_hand() -> None:
    """s = 1/2, n = 3, two samples of three units: gradient scale 1 / sqrt(3 * 3)."""
    layer = lsq(2, 0.5)
    x = torch.tensor([[-0.4, 0.1, 0.4], [0.7, 1.4, 2.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    (layer(x) * weights).sum().backward()
    assert x.grad is not None and layer.step.grad is not None
    assert x.grad.tolist() == [[0, 2, 3], [4, 5, 0]]
    # u: -0.8 | 0.2, 0.8, 1.4, 2.8 | 4: below 0; round(u) - u inside; n = 3 above.
    by_hand = (2 * (0 - 0.2) + 3 * (1 - 0.8) + 4 * (1 - 1.4) + 5 * (3 - 2.8) + 6 * 3) / 3
    assert layer.step.grad.item() == pytest.approx(by_hand, abs=1e-14)


@pytest.mark.parametrize(("bits", "step"), [(1, 0.9), (2, 0.5), (3, 0.21), (8, 0.01)])
def test_lsq_gradients_equal_the_composite(bits: int, step: float) -> None:
    """As the authors compose it: clip(u), rounded straight through, times s, with only the gradient of s scaled."""
    top = 2**bits - 1
    x = numbers(bits, 4, 3, 5, 5)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    layer = lsq(bits, step)
    s = torch.tensor(step, dtype=torch.float64, requires_grad=True)
    clipped = (theirs / s).clamp(0, top)
    composite = (clipped + (torch.floor(clipped + 0.5) - clipped).detach()) * s
    output = layer(ours)
    weights = numbers(98, 4, 3, 5, 5)
    (output * weights).sum().backward()
    (composite * weights).sum().backward()
    assert layer.step.grad is not None and s.grad is not None
    torch.testing.assert_close(output, composite, rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-13)
    torch.testing.assert_close(layer.step.grad, s.grad / math.sqrt(3 * 5 * 5 * top), rtol=1e-10, atol=1e-12)


# Both against finite differences


PROPERTY = settings(max_examples=50, deadline=None, derandomize=True)
FINE = 1e-6


def slope(function: Callable[[float], float], at: float) -> float:
    """The central difference."""
    return (function(at + FINE) - function(at - FINE)) / (2 * FINE)


def away_from_the_corners(u: Tensor, top: float) -> Tensor:
    """The surrogate is not differentiable at 0 and at the top: numbers near them are moved inwards."""
    near = (u.abs() < 1e-3) | ((u - top).abs() < 1e-3)
    return torch.where(near, torch.full_like(u, 0.4 * top), u)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 32), st.floats(0.05, 20))
def test_qcfs_gradients_by_finite_differences(seed: int, levels: int, threshold: float) -> None:
    """Of the surrogate lambda (clip(x / lambda, 0, 1) + r), the rounding residual r held fixed."""
    layer = qcfs(levels, threshold)
    u = away_from_the_corners(numbers(seed, 12) / 2 + 0.5, 1.0)
    x = (u * threshold).requires_grad_()
    weights = numbers(seed + 1, 12)
    output = layer(x)
    (output * weights).sum().backward()
    residual = (output / threshold - (x / threshold).clamp(0, 1)).detach()

    def surrogate(inputs: Tensor, theta: float) -> float:
        return float((theta * ((inputs / theta).clamp(0, 1) + residual) * weights).sum())

    assert layer.threshold.grad is not None and x.grad is not None
    fixed = x.detach()
    by_threshold = slope(lambda theta: surrogate(fixed, theta), threshold)
    assert layer.threshold.grad.item() == pytest.approx(by_threshold, rel=1e-5, abs=1e-5)
    for index in range(12):
        unit = torch.eye(12, dtype=torch.float64)[index]
        by_x = slope(lambda value, unit=unit: surrogate(fixed + value * unit, threshold), 0.0)  # type: ignore[misc]
        assert x.grad[index].item() == pytest.approx(by_x, rel=1e-5, abs=1e-5)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.01, 5))
def test_lsq_gradients_by_finite_differences(seed: int, bits: int, step: float) -> None:
    """Of the surrogate s (clip(x / s, 0, n) + r), r held fixed; to s before the factor 1 / sqrt(N n), N units a sample."""
    layer, top = lsq(bits, step), 2**bits - 1
    u = away_from_the_corners((numbers(seed, 3, 4) / 2 + 0.5) * top, top)
    x = (u * step).requires_grad_()
    weights = numbers(seed + 1, 3, 4)
    output = layer(x)
    (output * weights).sum().backward()
    residual = (output / step - (x / step).clamp(0, top)).detach()

    def surrogate(inputs: Tensor, size: float) -> float:
        return float((size * ((inputs / size).clamp(0, top) + residual) * weights).sum())

    assert layer.step.grad is not None and x.grad is not None
    fixed = x.detach()
    by_step = slope(lambda size: surrogate(fixed, size), step)
    assert layer.step.grad.item() * math.sqrt(4 * top) == pytest.approx(by_step, rel=1e-5, abs=1e-4)
    for index in range(12):
        unit = torch.eye(12, dtype=torch.float64)[index].view(3, 4)
        by_x = slope(lambda value, unit=unit: surrogate(fixed + value * unit, step), 0.0)  # type: ignore[misc]
        assert x.grad.flatten()[index].item() == pytest.approx(by_x, rel=1e-5, abs=1e-5)


def test_lsq_first_batch_initialisation() -> None:
    """s = 2 mean|x| / sqrt(n)."""
    layer = LSQ(2).double()
    layer.initialise(torch.tensor([[1.0, -3.0], [2.0, -2.0]], dtype=torch.float64))
    assert layer.step.item() == pytest.approx(2 * 2 / math.sqrt(3))
    assert bool(layer.initialised)


def test_lsq_flag_is_state() -> None:
    """A loaded network does not initialise its step again from its first batch."""
    layer = LSQ(2)
    assert not bool(layer.initialised)
    layer.initialise(torch.ones(2, 2))
    state = layer.state_dict()
    assert set(state) == {"step", "initialised"}
    loaded = LSQ(2)
    loaded.load_state_dict(state)
    assert bool(loaded.initialised)
    before = loaded.step.item()
    initialise_steps(loaded, torch.full((2, 2), 50.0))
    assert loaded.step.item() == before


def test_steps_are_initialised_one_after_the_other() -> None:
    """The step of each layer is initialised from inputs quantised by the layers before it, and batch statistics are not
    affected."""
    first, second = LSQ(2), LSQ(2)
    norm = nn.BatchNorm1d(1)
    network = nn.Sequential(first, nn.Identity(), second)
    x = torch.tensor([[0.3], [1.0], [2.2], [4.1]])
    initialise_steps(network, x)
    s = 2 * (0.3 + 1.0 + 2.2 + 4.1) / 4 / math.sqrt(3)
    assert first.step.item() == pytest.approx(s)
    seen = [s * min(3, math.floor(value / s + 0.5)) for value in (0.3, 1.0, 2.2, 4.1)]
    assert second.step.item() == pytest.approx(2 * sum(seen) / 4 / math.sqrt(3))
    assert float(norm.running_mean[0]) == 0  # type: ignore[index]

    spatial = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), LSQ(2))
    initialise_steps(spatial, torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert spatial[1].running_mean.tolist() == [0, 0] and spatial[1].running_var.tolist() == [1, 1]
    assert int(spatial[1].num_batches_tracked) == 0


# What the conversion schemes train with


def test_activations_of_the_schemes() -> None:
    made = activation("qcfs", levels=8, initial_threshold=3.0)()
    assert isinstance(made, QCFS) and made.levels == 8 and made.threshold.item() == 3.0
    made = activation("qffs", bits=3, initial_threshold=3.0)()
    assert isinstance(made, LSQ) and made.top == 7
    assert isinstance(activation("post-training")(), nn.ReLU)
    make: Callable[[], nn.Module] = activation("qcfs", levels=4, initial_threshold=8.0)
    assert make() is not make()


def test_an_unknown_scheme() -> None:
    with pytest.raises(InputError, match="conversion scheme 'relu' is unknown: choose one of qcfs, qffs, post-training"):
        activation("relu")
