"""Sums too wide for float32: float64 holds them, node by node, to the bit; an own simulation in whole numbers says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from second_simulation import places_of
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.errors import InputError
from dynconf_core.exchange.from_nir import from_nir
from dynconf_core.exchange.neurobench import Unrolled
from dynconf_core.exchange.to_nir import to_nir
from dynconf_core.exchange.to_spikingjelly import to_spikingjelly
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.graph.graph import Graph
from dynconf_core.graph.operations import evaluate, unfolded
from dynconf_core.neurons.signed import Signed
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.footprint import bytes_a_sample
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_counts
from dynconf_core.traces.schema import Traces

Whole = NDArray[np.int64]


class Bottlenecks(nn.Module):
    """Linear bottlenecks with shortcuts, as in MobileNetV2: expand, depthwise, project without an activation, add."""

    def __init__(self, method: str, seed: int, width: int = 6, blocks: int = 2, positive: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        made = {"qcfs": lambda: QCFS(4, 1.0), "signed": lambda: LSQ(5), "relu6": nn.ReLU6}[method]
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), made(), nn.Conv2d(8, width, 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(width, 4 * width, 1), made(), nn.Conv2d(4 * width, 4 * width, 3, 1, 1, groups=4 * width)),
                *(made(), nn.Conv2d(4 * width, width, 1)),
            )
            for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.Conv2d(width, 10, 1), made(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    size = 4.0 / module.weight[0].numel() ** 0.5
                    module.weight.copy_(torch.rand_like(module.weight) if positive else size * torch.randn_like(module.weight))
                    assert module.bias is not None
                    module.bias.copy_(torch.rand_like(module.bias) if positive else 0.2 * torch.randn_like(module.bias))
                elif isinstance(module, LSQ):
                    module.step.fill_(0.004)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        found: Tensor = self.head(x)
        return found


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def wide_snn(method: str, seed: int, time_steps: int = 512, **options: Any) -> SpikingNetwork:
    """Proven for so many steps that float32 does not suffice."""
    network = Bottlenecks(method, seed, options.pop("width", 6), positive=bool(options.pop("positive", False)))
    options |= {"thresholds": "error" if method == "relu6" else "learned"}
    snn = convert(network, images(4, seed), time_steps=time_steps, image_limit=1.0, **options)
    assert any(node.wide for node in snn.graph.nodes)
    return snn


# The simulation in whole numbers


class InWholeNumbers:
    """An SNN of these networks in 64-bit integers, each value in units of 2^-places; nothing of the product computes it."""

    def __init__(self, snn: SpikingNetwork) -> None:
        self.snn, self.places = snn, places_of(snn.graph)
        self.potential: dict[str, Whole] = {}
        self.net: dict[str, Whole] = {}
        self.largest: dict[str, int] = {}

    def _whole(self, values: Tensor, places: int) -> Whole:
        scaled = values.double().numpy() * 2.0**places
        assert np.array_equal(scaled, np.round(scaled)), "on the grid"
        return scaled.astype(np.int64)

    def step(self, pixels: Tensor, time_step: int) -> tuple[dict[str, Whole], Whole]:
        """The spikes of every layer, and the logits in their own units."""
        snn, values, spikes = self.snn, dict[str, Whole](), dict[str, Whole]()
        acting = snn.active_steps is None or time_step <= snn.active_steps
        once = {node.name for node in snn.graph.nodes} - snn.graph.after(("neurons",))
        for node in snn.graph.nodes:
            own, here = snn.tensors()[node.name], self.places[node.name]
            given = [(values[name], self.places[name]) for name in node.inputs]
            if node.kind == "input":
                value = np.zeros(0, np.int64)  # rounded by the node after it
            elif node.kind == "round":
                bits = int(node.settings["bits"])
                if node.inputs[0] == snn.graph.input.name:
                    value = np.round(pixels.double().numpy() * 2.0**bits).astype(np.int64)
                else:
                    (x, places), unit = given[0], 1 << max(0, self.places[node.inputs[0]] - bits)
                    value = np.round(x / unit).astype(np.int64) if places > bits else x << (bits - places)
            elif node.kind in ("convolution", "linear"):
                weight = self._whole(own["weight"], int(node.settings["bits"]))
                value = (
                    _linear(given[0][0], weight) if node.kind == "linear" else _convolved(given[0][0], weight, node.settings)
                )
                if acting or node.name in once:
                    bias = self._whole(own["bias"], here)
                    value = value + bias.reshape(1, -1, *[1] * (value.ndim - 2))
            elif node.kind == "scale":
                weight = self._whole(own["weight"], int(node.settings["bits"]))
                value = given[0][0] * weight.reshape(1, -1, *[1] * (given[0][0].ndim - 2))
            elif node.kind == "add":
                value = sum((x << (here - places) for x, places in given), start=np.zeros_like(given[0][0]))
            elif node.kind == "sum_pool":
                value = given[0][0].sum((2, 3), keepdims=True)
            elif node.kind == "flatten":
                value = given[0][0].reshape(len(given[0][0]), -1)
            else:
                assert node.kind == "neurons"
                value = spikes[node.name] = self._fired(
                    node.name, *given[0], own["initial"], acting or node.inputs[0] not in once
                )
            values[node.name] = value
            self.largest[node.name] = max(self.largest.get(node.name, 0), int(np.abs(value).max(initial=0)))
        return spikes, values[snn.graph.output.name]

    def _fired(self, name: str, current: Whole, places: int, initial: Tensor, acting: bool) -> Whole:
        one = 1 << max(1, places)
        current = (current << (max(1, places) - places)) * acting
        start = self._whole(initial, max(1, places)).reshape(1, -1, *[1] * (current.ndim - 2))
        potential = self.potential.get(name, start + 0 * current) + current
        self.largest[f"{name} charged"] = max(self.largest.get(f"{name} charged", 0), int(np.abs(potential).max()))
        net = self.net.get(name, 0 * current)
        if isinstance(self.snn.neurons, Signed):
            up, down = (potential >= one) & (net < self.snn.neurons.levels), (potential < 0) & (net > 0)
            sent = up.astype(np.int64) - down.astype(np.int64)
        else:
            sent = (potential >= one).astype(np.int64)
        self.potential[name], self.net[name] = potential - sent * one, net + sent
        return sent


def _linear(x: Whole, weight: Whole) -> Whole:
    return x @ weight.T


def _convolved(x: Whole, weight: Whole, settings: Any) -> Whole:
    (down, across), (rows, columns), groups = settings["stride"], settings["padding"], settings["groups"]
    x = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    outputs, inputs, height, width = weight.shape
    sides = (x.shape[2] - height) // down + 1, (x.shape[3] - width) // across + 1
    found = np.zeros((len(x), outputs, *sides), np.int64)
    for place, kernel in enumerate(weight):
        first = place // (outputs // groups) * inputs
        for i in range(height):
            for j in range(width):
                cut = x[:, first : first + inputs, i : i + down * sides[0] : down, j : j + across * sides[1] : across]
                found[:, place] += np.tensordot(cut, kernel[:, i, j], (1, 0))
    return found


def agreement(snn: SpikingNetwork, pixels: Tensor, time_steps: int) -> tuple[bool, InWholeNumbers]:
    """Whether every spike, membrane potential and logit of every step is that of the simulation in whole numbers."""
    whole, input_current, state, same = InWholeNumbers(snn), snn.input_current(pixels), None, True
    sent: dict[str, NDArray[Any]] = {}
    for time_step in range(1, time_steps + 1):
        step = snn.step(input_current, state, time_step, lambda node, spikes: sent.update({node.name: spikes.clone().numpy()}))
        state = step.state
        expected, outputs = whole.step(pixels, time_step)
        logits = outputs / 2.0 ** whole.places[snn.graph.output.name]  # rounded to float32 where the output layer is wide
        same &= np.array_equal(step.logits.numpy(), logits.astype(np.float32) if snn.graph.output.wide else logits)
        for name, node in snn.layers().items():
            unit = 2.0 ** max(1, whole.places[node.inputs[0]])
            same &= np.array_equal(sent[name], expected[name])
            same &= np.array_equal(state[name][0].double().numpy() * unit, whole.potential[name])
    return same, whole


# Exactness


@pytest.mark.parametrize("positive", [False, True], ids=["random", "all positive"])
@pytest.mark.parametrize("method", ["qcfs", "signed", "relu6"])
def test_every_step_is_that_of_whole_numbers(method: str, positive: bool) -> None:
    """And float32 in place of float64 is not exact: the same network without its wide nodes gives other bits."""
    differed = 0
    for seed in range(2):
        snn = wide_snn(method, seed, positive=positive)
        same, whole = agreement(snn, images(2, seed + 7), 10)
        assert same
        for node in snn.graph.nodes:
            limit = 2 ** (53 if node.wide else 24)
            if node.kind == "neurons":
                assert whole.largest[f"{node.name} charged"] <= limit
            elif node.kind != "input":
                assert whole.largest[node.name] <= limit, node.name
        assert all(name in snn.facts["wide"] for name in (node.name for node in snn.graph.nodes if node.wide))
        differed += not agreement(narrowed(snn), images(2, seed + 7), 10)[0]
    assert differed, "these sums need float64"


def narrowed(snn: SpikingNetwork) -> SpikingNetwork:
    """The same weights with everything in float32."""
    nodes = (
        replace(node, settings={key: value for key, value in node.settings.items() if key != "wide"})
        for node in snn.graph.nodes
    )
    limits = {"image_limit": snn.image_limit, "time_steps_limit": snn.time_steps_limit}
    return SpikingNetwork(Graph(tuple(nodes)), snn.neurons, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["signed", "relu6"])
def test_a_settled_network_equals_the_quantised_one(method: str) -> None:
    """The logits of T steps add up to n times those of the quantised network, to the bit."""
    for seed in range(2):
        options: dict[str, Any] = {"neurons": "signed", "levels": 15, "width": 16} if method == "relu6" else {}
        snn, pixels = wide_snn(method, seed, **options), images(8, seed + 3)
        total = snn(pixels, 256).double().sum(1)
        assert torch.equal(total, reference_counts(snn, pixels).double())


def test_the_same_bits_however_it_is_run(tmp_path: Path) -> None:
    """For any batch, memory layout, number of threads and pace, with integer products, and from a file."""
    snn, pixels = wide_snn("qcfs", 3), images(9, 1)
    expected = snn(pixels, 12)
    assert torch.equal(torch.cat([snn(part, 12) for part in pixels.split([1, 5, 3])]), expected)
    assert torch.equal(snn(pixels.contiguous(memory_format=torch.channels_last), 12), expected)
    save_snn(snn, tmp_path / "snn.pt")
    loaded = load_snn(tmp_path / "snn.pt")
    assert [node.wide for node in loaded.graph.nodes] == [node.wide for node in snn.graph.nodes]
    assert torch.equal(loaded(pixels, 12), expected)
    loaded.accelerate(9)
    assert torch.equal(loaded(pixels, 12), expected)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(snn(pixels, 12), expected)
    finally:
        torch.set_num_threads(threads)


def test_live_equals_collected() -> None:
    """Rows that are refilled and compacted keep their float64 membrane potentials."""
    snn, pixels = wide_snn("signed", 1, neurons="auto"), images(12, 5)
    traces = Traces(snn(pixels, 40).numpy(), np.zeros(12, np.int64))
    endless = Rule("max_softmax", Smoothing("sum", 10.0), np.inf)
    rule = Rule("max_softmax", endless.smoothing, float(np.median(endless.scores(traces))))
    found = run_until_confident(snn, ExitAgent(rule), pixels, 40, batch=4)
    assert np.array_equal(found.steps, rule.exit_steps(traces)) and len(set(found.steps.tolist())) > 3
    summed = traces.logits.cumsum(1, dtype=np.float64)[np.arange(12), found.steps - 1]
    assert np.array_equal(found.logits, summed)


def test_unfolded_convolutions_in_float64() -> None:
    """The form for GPUs gives the bits of the form for CPUs."""
    snn = wide_snn("qcfs", 0)
    for node in snn.graph.of_kind("convolution"):
        own = snn.tensors()[node.name]
        x = torch.randint(-999, 999, (3, *snn.graph.by_name[node.inputs[0]].shape)) / 128
        assert torch.equal(unfolded(node, x.to(own["weight"].dtype), own), evaluate(node, [x], own)) or not node.wide
    check_exactness(snn, 3)


def test_what_needs_float64_is_counted_in_memory() -> None:
    snn = wide_snn("qcfs", 0)
    assert bytes_a_sample(snn) > 1.3 * bytes_a_sample(narrowed(snn))
    assert {value.dtype for value in snn.buffers()} == {torch.float32, torch.float64}


class Tail(nn.Module):
    """Sums of activations, averaged and handed to a linear layer without an activation between them."""

    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.d = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.e = nn.Conv2d(16, 16, 1) if bottleneck else nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu()
        x = x + self.d(x).relu()
        x = self.e(x) if isinstance(self.e, nn.Conv2d) else x + self.e(x)
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


@pytest.mark.parametrize("bottleneck", [False, True])
def test_small_weights_keep_their_significant_bits(bottleneck: bool) -> None:
    """The divisor of a mean makes them small; 7 binary places would round them to 0."""
    network, pixels = Tail(bottleneck).eval(), torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"thresholds": "error", "time_steps": 32, "neurons": "signed", "levels": 20}
    snn, plain = convert(network, pixels, **options), convert(network, pixels, fixed_point=False, **options)
    settled, expected = snn(pixels, 32).double().sum(1) / 20, plain(pixels, 32).double().sum(1) / 20
    assert float((settled - expected).norm() / expected.norm()) < 0.02
    with plain_arithmetic():
        check_exactness(snn, 3)
    same, _ = agreement(snn, pixels[:2], 6)
    assert same


# Refusals


def test_what_float64_cannot_hold_is_refused_before_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many layers without an activation, a sum of a value and what weights made of it: named, with the remedy."""

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("calibrated")

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.fire, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
            self.between = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.between(self.fire(self.first(x)))
            found: Tensor = self.last(self.fire(x + self.second(x)))
            return found

    def chain(length: int, width: int = 6) -> nn.Module:
        between = [nn.Linear(width, width) for _ in range(length)]
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), *between, nn.ReLU(), nn.Linear(width, 3)).eval()

    torch.manual_seed(0)
    monkeypatch.setattr("dynconf_core.conversion.convert.corrected", never)
    pixels = torch.randn(16, 4)
    options: dict[str, Any] = {"thresholds": "error", "correct": True, "time_steps": 8}
    for network, words in (
        (Sum().eval(), r"^second: its output is added to its input without an activation .*--no-fixed-point"),
        (chain(12), r"^10: 9 weighted layers follow each other .*fixed_point=False"),
        (chain(8), r"not even float64 can hold its sums exactly .*8 weighted layers .*fixed_point=False.*put activations"),
        (chain(8), r"with at least 6 binary places for its weights: [345] binary places would be left"),
        (
            chain(5, 96),
            r"with the 6 binary places .* change its sums by \d+\.\d%, and at most 5% is accepted.*fixed_point=False",
        ),
    ):
        with pytest.raises(InputError, match=words):
            convert(network, pixels, **options)
    with pytest.raises(InputError, match="all images are 0"):
        convert(chain(1), torch.zeros(2, 4), **options)


@pytest.mark.parametrize("seed", [0, 1])
def test_other_libraries_modules_are_exact_too(seed: int) -> None:
    """Made for SpikingJelly and NeuroBench, the modules compute the same nodes in float64."""
    spikingjelly = pytest.importorskip("spikingjelly.activation_based.functional")
    snn, pixels = wide_snn("qcfs", seed), images(2, 9)
    expected = snn(pixels, 8)
    assert torch.equal(Unrolled(snn, 8)(pixels), expected)
    network = to_spikingjelly(snn)
    spikingjelly.reset_net(network)
    with torch.no_grad():
        assert torch.equal(torch.stack([network(pixels) for _ in range(8)], 1), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_through_nir_and_back(seed: int, tmp_path: Path) -> None:
    """What needs float64 is found again from the bounds; limits that nothing holds are refused."""
    nir = pytest.importorskip("nir")
    snn, pixels = wide_snn("qcfs", seed), images(3, 9)
    nir.write(tmp_path / "snn.nir", to_nir(snn))
    back = from_nir(tmp_path / "snn.nir")
    assert (back.exact, back.image_limit, back.time_steps_limit) == (True, snn.image_limit, snn.time_steps_limit)
    wide = {node.name.replace(".", "_") for node in snn.graph.nodes if node.wide and node.tensors}
    assert wide and wide <= {node.name for node in back.graph.nodes if node.wide}
    assert torch.equal(back(pixels, 12), snn(pixels, 12))
    with plain_arithmetic():
        check_exactness(back, 3)
    graph = to_nir(snn)
    graph.metadata["time_steps_limit"] = 2**30
    with pytest.raises(InputError, match=r"not even float64 holds them exactly: the limits of exactness"):
        from_nir(graph)
