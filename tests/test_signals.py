"""One-dimensional signals (N, C, L), from the module to live exit."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_checks import disturbed, same
from network_forms import Applied, kinds, settles_exactly
from second_simulation import in_float64, simulated
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.report import conversion_report
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.graph.trace import traced
from dynconf_core.simulation import integer, products
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.counts import fan_out
from dynconf_core.simulation.live import run_until_confident

LENGTH = 32


def layer(inputs: int = 3, outputs: int = 8, size: int = 3, **settings: Any) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, size, padding=size // 2, **settings)


def signals(count: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, LENGTH, generator=torch.Generator().manual_seed(seed))


def of(function: Callable[..., Tensor], features: int, *modules: nn.Module) -> nn.Module:
    """A function of the spikes of one layer, then a linear layer."""
    return Applied(lambda m, x: m[1](function(m, torch.relu(m[0](x))).flatten(1)), layer(), nn.Linear(features, 5), *modules)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a plain network": lambda: nn.Sequential(
        nn.Conv1d(3, 8, 7, 2, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Dropout1d(),
        layer(8, 8, groups=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ),
    "depthwise": lambda: nn.Sequential(
        layer(3, 6, 5, groups=3),
        nn.ReLU(),
        layer(6, 6, 5, groups=6),
        nn.ReLU(),
        layer(6, 6, 1),
        nn.ReLU(),
        nn.AvgPool1d(4),
        nn.Flatten(),
        nn.Linear(48, 5),
    ),
    "a shortcut": lambda: of(lambda m, x: torch.relu(m[2](x) + x).mean(-1), 8, layer(8, 8)),
    "dilation and stride": lambda: of(
        lambda m, x: torch.relu(functional.conv1d(x, m[2].weight, m[2].bias, 2, 1, 3)), 112, layer(8, 8)
    ),
    "same of an even kernel": lambda: of(lambda m, x: torch.relu(m[2](x)), 128, nn.Conv1d(8, 4, 4, padding="same")),
    "circular": lambda: of(lambda m, x: torch.relu(m[2](x)), 128, layer(8, 4, padding_mode="circular")),
    "functional pools": lambda: of(lambda m, x: functional.avg_pool1d(functional.max_pool1d(x, 3, 1, 1), 3, 2, 1), 128),
    "overlapping max pool": lambda: of(lambda m, x: m[2](x), 128, nn.MaxPool1d(5, 2, 1, ceil_mode=True)),
    "adaptive pools": lambda: of(lambda m, x: functional.adaptive_avg_pool1d(functional.adaptive_avg_pool1d(x, 8), 3), 24),
    "padding": lambda: of(lambda m, x: m[2](functional.pad(x, (0, 3))), 8 * 37, nn.ZeroPad1d((2, 0))),
    "concatenation and slices": lambda: of(lambda m, x: torch.cat([x[:, :, ::2], x[:, :4, 1::2]], 1), 192),
    "a mean over the channels": lambda: of(lambda m, x: x.mean(1), LENGTH),
    "linear layers over the channels": lambda: Applied(
        lambda m, x: m[2](torch.relu(m[1](torch.relu(m[0](x.transpose(1, 2))))).mean(1)),
        *(nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 5)),
    ),
    "seen as an image": lambda: of(lambda m, x: torch.relu(m[2](x.unsqueeze(1))).mean((2, 3)), 4, nn.Conv2d(1, 4, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = disturbed(NETWORKS[name]())
    same(network, signals().double())
    settles_exactly(network, signals(), 40, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_is_an_image_of_height_one(seed: int) -> None:
    """The same logits, spikes and fan-outs as the two-dimensional network with the same weights."""
    torch.manual_seed(seed)
    line = nn.Sequential(
        layer(3, 6, 5), nn.ReLU(), nn.MaxPool1d(2), layer(6, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    flat = nn.Sequential(
        *(nn.Conv2d(3, 6, (1, 5), padding=(0, 2)), nn.ReLU(), nn.MaxPool2d((1, 2))),
        *(nn.Conv2d(6, 4, (1, 3), padding=(0, 1)), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
    ).eval()
    flat.load_state_dict({name: value.reshape(flat.state_dict()[name].shape) for name, value in line.state_dict().items()})
    options: dict[str, Any] = {"thresholds": "error", "time_steps": 12, "neurons": "signed", "levels": 5, "correct": True}
    one, other = convert(line, signals(), **options), convert(flat, signals().unsqueeze(2), **options)
    logits, spikes, _ = simulated(one, signals(4, 1), 12)
    expected, wanted, _ = simulated(other, signals(4, 1).unsqueeze(2), 12)
    assert torch.equal(logits, expected) and spikes.keys() == wanted.keys()
    assert all(torch.equal(sent, wanted[name].squeeze(3)) for name, sent in spikes.items())
    other_fans = fan_out(other.graph)
    assert all(torch.equal(met, other_fans[name].squeeze(1)) for name, met in fan_out(one.graph).items())


def test_integer_products_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(layer(3, 16), nn.ReLU(), nn.MaxPool1d(2), layer(16, 16, 5, groups=2), nn.ReLU(), layer(16, 16), nn.ReLU()),
        *(nn.AvgPool1d(4), nn.Flatten(), nn.Linear(64, 5)),
    ).eval()
    snn = convert(network, signals(), thresholds="error", time_steps=16, neurons="signed", levels=7)
    plain = snn(signals(), 16)
    assert torch.equal(plain.double(), in_float64(snn, signals(), 16)[0])
    monkeypatch.setattr(products, "prepare", partial(integer.prepare, must_pay=False))
    if integer.available():
        assert {"3", "5"} <= set(snn.accelerate(32))
    assert torch.equal(snn(signals(), 16), plain)


# A data set


def tones(count: int, seed: int) -> TensorImages:
    """Which of four tones sounds, in noise of any strength: easy signals and hard ones."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    phase, noise = torch.rand(count, 2, 1, generator=generator), torch.rand(count, 1, 1, generator=generator)
    pitch = torch.tensor([2.0, 3.0, 5.0, 8.0])[labels].view(-1, 1, 1)
    sound = torch.sin(2 * math.pi * (pitch * torch.arange(LENGTH) / LENGTH + phase))
    return TensorImages(
        sound + 1.5 * noise * torch.randn(count, 2, LENGTH, generator=generator), labels, 4, Normalisation((0.0,), (1.0,))
    )


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network that tells tones apart."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv1d(2, 12, 7, padding=3), nn.BatchNorm1d(12), nn.LeakyReLU(0.1), nn.MaxPool1d(2)),
        *(
            nn.Conv1d(12, 16, 5, padding=2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
            nn.Linear(64, 4),
        ),
    )
    data = tones(512, 0)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimiser.zero_grad()
        functional.cross_entropy(network(data.pixels), data.labels).backward()
        optimiser.step()
    return network.eval()


def test_from_training_to_live_exit(trained: nn.Module, tmp_path: Path) -> None:
    """Exit steps and predictions of a live run are those on the traces, for any batch; the SNN is as good as the network."""
    train, test, time_steps = tones(256, 1), tones(150, 2), 16
    limit = 1.5 * float(tones(512, 0).pixels.abs().max())
    snn = settles_exactly(trained, train.pixels, 48, tmp_path, image_limit=limit)
    assert kinds(snn).count("max_pool") == 2
    snn = convert(
        *(trained, train.pixels),
        thresholds="error",
        time_steps=time_steps,
        neurons="signed",
        levels=7,
        image_limit=limit,
        correct=True,
    )
    traces = collect(snn, trained, test, time_steps)
    labels, logits = test.labels.numpy(), np.cumsum(traces.logits, axis=1, dtype=np.float64)
    assert traces.ann_logits is not None
    right, ann = (logits[:, -1].argmax(1) == labels).mean(), (traces.ann_logits.argmax(1) == labels).mean()
    assert ann > 0.85 and right > ann - 0.05
    rule = Rule("max_softmax", Smoothing("sum", 4.0), 0.9)
    steps = rule.exit_steps(traces)
    assert len(set(steps.tolist())) >= 4
    for batch in (1, 7, 64, None):
        exits = run_until_confident(snn, ExitAgent(rule), test, time_steps, batch=batch)
        np.testing.assert_array_equal(exits.steps, steps)
        np.testing.assert_array_equal(exits.logits, logits[np.arange(len(labels)), steps - 1])
    report = conversion_report(snn, trained, test.pixels, time_steps, test.labels)
    assert [layer.name for layer in report.layers] == ["2", "2.negative", "6"] and report.agreement > 0.9


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.AvgPool1d(4, padding=1, count_include_pad=False)), "count_include_pad=True"),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.AvgPool1d(4, ceil_mode=True)), "cuts windows at the end"),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(2, return_indices=True)), "returns indices"),
        (nn.Sequential(nn.Flatten(), nn.MaxPool1d(2)), r"it is for signals \(C, L\)"),
        (nn.Sequential(nn.Conv1d(4, 4, 3)), "does not take an input of shape"),
        (nn.Sequential(nn.Conv1d(3, 4, 3)), r"logits \(N, C\) are needed"),
    ],
)
def test_refused(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words):
        traced(network.eval(), signals())


def test_a_signal_of_another_length() -> None:
    torch.manual_seed(0)
    snn = convert(nn.Sequential(layer(), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).eval(), signals(), thresholds="max")
    with pytest.raises(InputError, match=r"the images have the shape \(3, 31\), but the network was converted for \(3, 32\)"):
        snn(signals()[:, :, 1:], 4)
