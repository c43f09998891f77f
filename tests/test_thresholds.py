"""Where thresholds come from: each way against numpy and a search of its own, on networks small enough to see through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained_digits import DigitsNetwork, digits, trained_on_digits

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion import thresholds
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.thresholds import find_thresholds
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph
from dynconf_core.graph.operations import run
from dynconf_core.graph.trace import activations_first, folded, traced

METHODS_OF_DATA = ("max", "percentile", "error")


def graph_of(network: nn.Module, images: Tensor) -> Graph:
    return activations_first(folded(traced(network, images)))


def two_layers(seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 5, 3, padding=1), activation(), nn.Conv2d(5, 4, 3, stride=2), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(36, 3)).eval()


def images(count: int = 70, seed: int = 3) -> Tensor:
    """More than one batch of them, so that batches are joined."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def activations(network: nn.Module, batch: Tensor) -> dict[str, np.ndarray]:
    """``(C, everything else)`` of each activation, float64."""
    seen: dict[str, np.ndarray] = {}

    def keep(node: object, value: Tensor) -> None:
        if node.kind == "activation":  # type: ignore[attr-defined]
            seen[node.name] = value.transpose(0, 1).flatten(1).double().numpy()  # type: ignore[attr-defined]

    graph = graph_of(network, batch)
    run(graph, batch.double(), keep)
    return seen


def found(network: nn.Module, method: str, batch: Tensor, **options: object) -> dict[str, np.ndarray]:
    graph = graph_of(network, batch)
    return {name: theta.numpy() for name, theta in find_thresholds(graph, method, batch, time_steps=8, **options).items()}  # type: ignore[arg-type]


# Each way


@pytest.mark.parametrize("per_channel", [True, False])
def test_max(per_channel: bool) -> None:
    network, batch = two_layers(), images()
    theta = found(network, "max", batch, per_channel=per_channel)
    for name, values in activations(network, batch).items():
        expected = values.max(1) if per_channel else values.max()
        np.testing.assert_allclose(theta[name], expected, rtol=1e-5)
        assert theta[name].shape == np.shape(expected)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9, 100.0])
def test_percentile(percentile: float, per_channel: bool) -> None:
    """Of all activations, zeros counted, to within a bin; where that is 0, the median of the layer's channels (or its largest
    activation)."""
    network, batch = two_layers(), images()
    theta = found(network, "percentile", batch, percentile=percentile, per_channel=per_channel)
    for name, values in activations(network, batch).items():
        expected = np.percentile(values, percentile, axis=1 if per_channel else None, method="inverted_cdf")
        within = 3 * values.max() / thresholds.BINS
        usual = float(torch.tensor(theta[name][expected > 0]).median()) if (expected > 0).any() else values.max()
        expected = np.where(expected > 0, np.maximum(expected, thresholds.LEAST * usual), usual)
        np.testing.assert_allclose(theta[name], expected, rtol=0, atol=within)


def squared_error(values: np.ndarray, theta: float, time_steps: int) -> float:
    step = theta / time_steps
    return float(((values - step * np.clip(np.floor(values / step + 0.5), 0, time_steps)) ** 2).sum())


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("time_steps", [2, 8, 64])
def test_error(time_steps: int, per_channel: bool) -> None:
    """No other candidate quantises the activations themselves clearly better."""
    network, batch = two_layers(), images(20)
    graph = graph_of(network, batch)
    theta = find_thresholds(graph, "error", batch, time_steps=time_steps, per_channel=per_channel)
    for name, values in activations(network, batch).items():
        rows = values if per_channel else [values]
        for row, chosen in zip(rows, theta[name].reshape(-1).tolist(), strict=True):
            best = min(squared_error(row, row.max() * fraction, time_steps) for fraction in np.linspace(0.02, 1, 197))
            assert squared_error(row, chosen, time_steps) <= 1.05 * best + 1e-12, name


def test_few_steps_want_low_thresholds() -> None:
    """With few levels it pays to cut off the largest activations; with many it does not."""
    network, batch = two_layers(), images()
    graph = graph_of(network, batch)
    few, many = (find_thresholds(graph, "error", batch, time_steps=steps)["1"] for steps in (2, 256))
    assert bool((few < many).all())
    assert bool((many <= find_thresholds(graph, "max", batch, time_steps=2)["1"] + 1e-6).all())


def test_silent_and_rare_channels() -> None:
    """A channel that never fires gets a threshold that does no harm; one that hardly fires none that makes huge weights."""
    network, batch = two_layers(), images()
    with torch.no_grad():
        network[0].bias[0] = -20.0  # type: ignore[index, operator, union-attr]
        network[0].weight[1].mul_(1e-5)  # type: ignore[index, operator, union-attr]
        network[0].bias[1] = 0.0  # type: ignore[index, operator, union-attr]
    for method in METHODS_OF_DATA:
        theta = found(network, method, batch)["1"]
        usual = float(torch.tensor(theta[1:]).median())
        assert theta[0] == usual and theta[1] == pytest.approx(thresholds.LEAST * usual, rel=1e-9)
        assert convert(network, batch, thresholds=method, time_steps=8)(batch, 8).isfinite().all()
    with torch.no_grad():
        network[0].weight.zero_()  # type: ignore[operator, union-attr]
        network[0].bias.fill_(-1.0)  # type: ignore[operator, union-attr]
    assert (found(network, "error", batch)["1"] == 1).all(), "a layer that never fires"


def test_features() -> None:
    """Thresholds of a layer ``(N, F)`` are one a feature."""
    torch.manual_seed(0)
    network, batch = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)).eval(), torch.randn(50, 6)
    theta = found(network, "max", batch)
    np.testing.assert_allclose(theta["1"], activations(network, batch)["1"].max(1), rtol=1e-5)


# Known and learned ones


def test_learned_thresholds() -> None:
    """theta = lambda, n s, or the top of a clip; ReLU has none."""
    torch.manual_seed(0)
    layers = {"qcfs": QCFS(4, 1.5), "lsq": LSQ(2), "relu6": nn.ReLU6(), "clip": nn.Hardtanh(0, 0.75)}
    layers["lsq"].step.data.fill_(0.25)  # type: ignore[union-attr, operator]
    for name, expected in (("qcfs", 1.5), ("lsq", 0.75), ("relu6", 6.0), ("clip", 0.75)):
        network = nn.Sequential(nn.Linear(4, 3), layers[name], nn.Linear(3, 2)).eval()
        theta = found(network, "learned", torch.randn(3, 4))
        assert theta["1"].shape == () and theta["1"] == expected
        snn = convert(network, torch.randn(3, 4))
        assert snn.tensors()["1"]["threshold"].item() == expected
    with pytest.raises(InputError, match=r"1 is a ReLU, which has no learned threshold: .*thresholds='error'"):
        found(two_layers(), "learned", images())


@pytest.mark.parametrize("method", METHODS_OF_DATA)
def test_data_leave_learned_thresholds_alone(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), QCFS(4, 1.5), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    theta = found(network, method, torch.randn(40, 4))
    assert theta["1"] == 1.5 and theta["3"].shape == (3,)


@pytest.mark.parametrize("method", METHODS_OF_DATA)
def test_data_may_lower_a_clip_but_never_raise_it(method: str) -> None:
    network, batch = two_layers(activation=nn.ReLU6), images()
    theta = found(network, method, batch)
    assert all((value <= 6).all() for value in theta.values()) and (theta["1"] < 6).all()
    assert (found(network, method, 100 * batch)["1"] <= 6).all()
    assert (found(network, "max", 100 * batch)["1"] == 6).all()
    silent = nn.Sequential(nn.Linear(4, 3), nn.Hardtanh(0, 0.25), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        silent[0].bias.fill_(-50.0)  # type: ignore[operator, union-attr]
    assert (found(silent, method, torch.randn(9, 4))["1"] == 0.25).all(), "not even where nothing ever fires"


# What is refused


def test_refuses() -> None:
    network, batch = two_layers(), images(4)
    graph = graph_of(network, batch)
    for method, data, options, words in (
        ("mean", batch, {}, r"thresholds='mean' is unknown: choose one of learned, max, percentile, error"),
        ("percentile", batch, {"percentile": 0.999}, r"percentile=0\.999: give a number from 50 to 100, in per cent"),
        ("percentile", batch, {"percentile": 100.5}, r"percentile=100\.5"),
        ("max", None, {}, r"thresholds='max' needs calibration images"),
        ("max", batch[:0], {}, "needs calibration images"),
    ):
        with pytest.raises(InputError, match=words):
            find_thresholds(graph, method, data, time_steps=8, **options)  # type: ignore[arg-type]


# On a trained network


@torch.no_grad()
def accuracies(network: DigitsNetwork, method: str, time_steps: int, **options: object) -> tuple[float, float]:
    """Of the ANN and, after T steps, of the SNN, on digits that neither saw."""
    pictures, labels = digits()
    snn = convert(network, pictures[:256], thresholds=method, time_steps=time_steps, **options)
    logits = snn(pictures[1200:], time_steps).double().sum(1)
    truth = labels[1200:]
    return float((network(pictures[1200:]).argmax(1) == truth).float().mean()), float(
        (logits.argmax(1) == truth).float().mean()
    )


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("method", METHODS_OF_DATA)
@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_a_pretrained_network_needs_no_training(kind: str, method: str, per_channel: bool) -> None:
    ann, snn = accuracies(trained_on_digits(kind), method, 32, per_channel=per_channel)
    assert ann > 0.96 and snn > ann - 0.02


def test_least_error_has_the_least_error() -> None:
    """At few steps the layers of the trained network are nearer to the ANN's than with the largest activations."""
    pictures, _ = digits()
    network = trained_on_digits("relu")
    seen = activations(network, pictures[1200:])
    errors = {}
    for method in ("max", "error"):
        theta = found(network, method, pictures[:256])
        errors[method] = [
            sum(squared_error(row, limit, 8) for row, limit in zip(seen[name], theta[name], strict=True)) for name in seen
        ]
    assert all(least < largest for least, largest in zip(errors["error"], errors["max"], strict=True))
