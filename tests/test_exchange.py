"""Converted networks in the forms of other libraries: as NIR, which comes back to the bit and which SpikingJelly runs; as a
SpikingJelly module; as a NeuroBench model."""

from __future__ import annotations

import copy
import itertools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from commands import command
from second_simulation import simulated
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, RandomNetwork, charge, dyadic_images, gaussian_images
from torch import Tensor, nn
from trained_digits import digits, trained_on_digits

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import save_snn
from dynconf_core.errors import InputError
from dynconf_core.exchange.from_nir import from_nir
from dynconf_core.exchange.neurobench import Unrolled, neurobench_model
from dynconf_core.exchange.nir_file import read_nir, write_nir
from dynconf_core.exchange.nir_summary import nir_summary
from dynconf_core.exchange.to_nir import to_nir
from dynconf_core.exchange.to_spikingjelly import to_spikingjelly
from dynconf_core.simulation.counts import Counter, fan_out, multiply_accumulates
from dynconf_core.simulation.network import SpikingNetwork

nir = pytest.importorskip("nir", reason="nir is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
SAYABLE = tuple(block for block in BLOCKS + ANALOGUE_BLOCKS if block not in ("max_pool", "concatenate"))
"""Blocks that NIR can say; those with concatenations hold a max pool."""
STEPS = 8


def library(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def spikingjelly() -> ModuleType:
    for part in ("neuron", "layer", "functional", "nir_exchange"):
        library(f"spikingjelly.activation_based.{part}")
    return library("spikingjelly.activation_based")


@pytest.fixture(scope="module")
def digits_snn() -> SpikingNetwork:
    """Three convolutions, a residual block and two linear layers, trained on real digits; its max pool is an average here."""
    network = copy.deepcopy(trained_on_digits("relu"))
    network.pool = nn.AvgPool2d(2)
    return convert(network, digits()[0][:64], thresholds="max", time_steps=STEPS, correct=True, neurons="integrate-and-fire")


# NIR, there and back


@pytest.mark.parametrize("fixed_point", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_nir_comes_back_to_the_bit(seed: int, fixed_point: bool, tmp_path: Path) -> None:
    """Spikes, logits, the cost of a spike, and what is proven of the numbers; from the file, through residuals, option A,
    slices, pools, depthwise and analogue layers; some with an initial potential for each layer."""
    network, images = RandomNetwork(seed, "qcfs", dyadic=False, blocks=SAYABLE), gaussian_images(3, seed)
    potentials = charge(network) if seed % 2 else []
    snn = convert(network, images, time_steps=STEPS, fixed_point=fixed_point)
    write_nir(to_nir(snn), tmp_path / "snn.nir")
    again = from_nir(tmp_path / "snn.nir")
    if potentials:
        found = [float(layer.tensors["initial"]) for layer in again.layers().values()]
        assert sorted(found) == pytest.approx(sorted(potentials), abs=0.02) and len({*found}) > 1
    assert_equal_spikes(snn, again, images)
    assert list(again.layers()) == [name.replace(".", "_") for name in snn.layers()]
    assert (again.image_limit, again.time_steps_limit, again.facts) == (snn.image_limit, snn.time_steps_limit, snn.facts)
    assert multiply_accumulates(again.graph) == multiply_accumulates(snn.graph)
    assert [met.sum() for met in fan_out(again.graph).values()] == [met.sum() for met in fan_out(snn.graph).values()]


def test_concatenations_and_crops_come_back(tmp_path: Path) -> None:
    """A concatenation is written as one selection of channels for each part."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), nn.Conv2d(6, 5, 3)
            self.fire = nn.ModuleList(nn.ReLU() for _ in range(3))
            self.head = nn.Linear(5 * 3 * 4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fire[0](self.a(x))
            x = torch.cat([self.fire[1](self.b(x)), x], 1)
            x = self.fire[2](self.c(x[:, :, 1:6, 2:]))
            return self.head((x + x).flatten(1))  # type: ignore[no-any-return]

    torch.manual_seed(1)
    images = gaussian_images(3, 0)
    snn = convert(Branches().eval(), images, thresholds="max", time_steps=STEPS)
    write_nir(to_nir(snn), tmp_path / "snn.nir")
    again = from_nir(tmp_path / "snn.nir")
    assert_equal_spikes(snn, again, images)
    assert [len(graph.of_kind("concatenate")) for graph in (snn.graph, again.graph)] == [1, 1]
    assert [met.sum() for met in fan_out(again.graph).values()] == [met.sum() for met in fan_out(snn.graph).values()]


def test_signals_and_shuffled_channels(spikingjelly: ModuleType, tmp_path: Path) -> None:
    """Signals (C, L) are written as ``Conv1d``, their pools too; a shuffle is a selection of channels. The same as modules of
    SpikingJelly and of NeuroBench."""
    network = nn.Sequential(
        *(nn.Conv1d(2, 6, 5, stride=2, padding=2, dilation=1), nn.ReLU(), nn.AvgPool1d(3, 2, 1), nn.ChannelShuffle(2)),
        *(nn.Conv1d(6, 6, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5)),
    ).eval()
    signals = torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(0))
    snn = convert(network, signals, thresholds="max", time_steps=STEPS, neurons="integrate-and-fire")
    write_nir(to_nir(snn), tmp_path / "snn.nir")
    again = from_nir(tmp_path / "snn.nir")
    assert_equal_spikes(snn, again, signals)
    assert [node.kind for node in again.graph.nodes] == [node.kind for node in snn.graph.nodes]
    assert {type(node).__name__ for node in read_nir(tmp_path / "snn.nir").nodes.values()} >= {"Conv1d", "Affine", "IF"}
    expected, module = snn(signals, STEPS), to_spikingjelly(snn)
    spikingjelly.functional.set_step_mode(module, "m")
    assert torch.equal(module(signals.expand(STEPS, *signals.shape)).transpose(0, 1), expected)
    assert torch.equal(Unrolled(snn, STEPS)(signals), expected)
    frames = signals[:, None] * torch.linspace(-1, 1, STEPS)[:, None, None]
    assert torch.equal(Unrolled(snn, STEPS)(frames), snn(frames, STEPS))


def assert_equal_spikes(one: SpikingNetwork, other: SpikingNetwork, images: Tensor) -> None:
    (logits, spikes, _), (found, sent, _) = (simulated(snn, images, STEPS) for snn in (one, other))
    assert torch.equal(found, logits)
    assert [spike.shape for spike in sent.values()] == [spike.shape for spike in spikes.values()]
    assert all(torch.equal(a, b) for a, b in zip(sent.values(), spikes.values(), strict=True))
    assert 0.01 < float(torch.cat([spike.flatten() for spike in spikes.values()]).mean()) < 0.9, "no network at rest"


@pytest.mark.parametrize("seed", range(3))
def test_physical_units_are_the_anns(seed: int) -> None:
    """The weights are those of the ANN times the spike's height, and neurons fire at the ANN's thresholds. These are powers of
    two here, so that the other unit changes no bit."""
    network, images = RandomNetwork(seed, "qcfs", blocks=SAYABLE), dyadic_images(3, seed)
    snn = convert(network, images, time_steps=STEPS, fixed_point=False)
    graph = to_nir(snn, "physical")
    fired = {name: node for name, node in graph.nodes.items() if isinstance(node, nir.IF)}
    for name, layer in snn.layers().items():
        theta = float(layer.tensors["threshold"])
        node = fired[name.replace(".", "_")]
        assert (np.unique(node.v_threshold), node.metadata["initial_potential"]) == (theta, theta / 2)
    first, theta = snn.tensors()["stem.0"], float(snn.layers()["stem_activation"].tensors["threshold"])
    for name, value in first.items():
        assert np.array_equal(getattr(graph.nodes["stem_0"], name), (theta * value).numpy())
    if len(network.stem) == 1:
        assert np.array_equal(graph.nodes["stem_0"].weight, network.stem[0].weight.detach().numpy())
    assert_equal_spikes(snn, from_nir(graph), images)


def test_what_stands_in_metadata_alone(digits_snn: SpikingNetwork) -> None:
    graph = to_nir(digits_snn)
    assert graph.metadata["writer"] == "dynconf" and graph.metadata["units"] == "threshold"
    assert graph.metadata["image_limit"] == digits_snn.image_limit
    assert graph.nodes["input"].metadata == {"round_bits": digits_snn.graph.nodes[1].settings["bits"]}
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
    assert len(neurons) == len(digits_snn.layers())
    for node, layer in zip(neurons, digits_snn.layers().values(), strict=True):
        assert np.array_equal(node.metadata["initial_potential"], digits_snn.tensors()[layer.name]["initial"].numpy())
        assert node.metadata["reset"] == "subtract" and not node.v_reset.any() and (node.r == 1).all()
        assert node.v_threshold.shape == layer.shape and (node.v_threshold == 1).all()
    assert not any("float64" in line for line in nir_summary(graph).for_readers)
    graph.metadata["facts"] = json.dumps({"wide": ["last"]})
    assert "add up in float64 to be exact: last" in nir_summary(graph).for_readers[-1]


def test_what_nir_cannot_say_is_refused_with_the_remedy() -> None:
    images = gaussian_images(2, 0)
    signed = convert(RandomNetwork(0, "qffs"), images, time_steps=4, fixed_point=False)
    with pytest.raises(InputError, match="--neurons integrate-and-fire"):
        to_nir(signed)
    with pytest.raises(InputError, match="--neurons integrate-and-fire"):
        to_spikingjelly(signed)
    pooled = convert(RandomNetwork(1, "qcfs", blocks=("max_pool",)), images, time_steps=4)
    with pytest.raises(InputError, match=r"max pool at 'parts\.0\.pool'.*average pools"):
        to_nir(pooled)
    flipped = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.PixelUnshuffle(2), nn.Flatten(), nn.Linear(72, 5)).eval()
    with pytest.raises(InputError, match=r"view, flip, shuffle .* at .* which no convolution does.*leave it out"):
        to_nir(convert(flipped, images, thresholds="max", time_steps=4, neurons="integrate-and-fire"))
    with pytest.raises(InputError, match="choose one of threshold, physical"):
        to_nir(pooled, "volts")


@pytest.mark.parametrize(
    ("package", "call"),
    [("nir", to_nir), ("spikingjelly.activation_based.base", to_spikingjelly), ("neurobench.models", neurobench_model)],
)
def test_a_missing_library_is_named(
    package: str, call: Callable[..., object], digits_snn: SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call is to_spikingjelly:
        from dynconf_core.exchange.to_spikingjelly import layers_of_spikingjelly

        layers_of_spikingjelly.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"`pip install {package.partition('.')[0]}`"):
        call(digits_snn, *([STEPS] if call is neurobench_model else []))


# NIR, run by another library


@pytest.mark.parametrize("fixed_point", [False, True])
@pytest.mark.parametrize("case", ["digits", "residual", "option_a", "average_pool"])
def test_spikingjelly_reads_nir_and_fires_the_same_spikes(
    case: str, fixed_point: bool, spikingjelly: ModuleType, tmp_path: Path
) -> None:
    """Its importer and its own nodes, every layer and every step; what it takes from us is what the metadata say: V(0), the
    soft reset, and with fixed-point weights where values are rounded."""
    if case == "digits":
        network, images = copy.deepcopy(trained_on_digits("relu")), digits()[0][:40]
        network.pool = nn.AvgPool2d(2)
        given = {"thresholds": "max", "time_steps": STEPS, "neurons": "integrate-and-fire"}
        snn = convert(network, images, **given, fixed_point=fixed_point)
    else:
        network, images = RandomNetwork(6, "qcfs", blocks=(case,)), dyadic_images(3, 6)
        images = images + torch.linspace(0, 0.01, images.numel()).view_as(images) if fixed_point else images
        snn = convert(network, images, time_steps=STEPS, fixed_point=fixed_point)
    write_nir(to_nir(snn), tmp_path / "snn.nir")
    graph = nir.read(tmp_path / "snn.nir")
    module = spikingjelly.nir_exchange.import_from_nir(graph, dt=1.0)
    bits = {name: int(node.metadata["round_bits"]) for name, node in graph.nodes.items() if "round_bits" in node.metadata}
    assert ("input" in bits and len(bits) > 1) if fixed_point else not bits
    given_to_theirs = rounded(images, bits.pop("input")) if fixed_point else images
    for name, places in bits.items():
        module.get_submodule(name).register_forward_hook(lambda _, given, values, b=places: rounded(values, b))
    sent: dict[str, list[Tensor]] = {}
    for name, node in module.named_modules():
        if isinstance(node, spikingjelly.neuron.IFNode):
            node.v_reset = None
            node.set_reset_value("v", 0.5)
            node.reset()
            name = name.removesuffix(".module")
            module.get_submodule(name).register_forward_hook(
                lambda _, given, result, name=name: sent.setdefault(name, []).append(result[0])
            )
    state, logits = None, []
    with torch.no_grad():
        for _ in range(STEPS):
            output, state = module(given_to_theirs, state)
            logits.append(output)
    expected, spikes, _ = simulated(snn, images, STEPS)
    assert len(sent) == len(spikes)
    for name, fired in spikes.items():
        assert torch.equal(torch.stack(sent[name.replace(".", "_")], 1), fired), name
    torch.testing.assert_close(
        torch.stack(logits, 1), expected, rtol=0, atol=1e-4 if case == "digits" and not fixed_point else 0
    )


def rounded(values: Tensor, places: int) -> Tensor:
    """The nearest multiples of 2^-places."""
    return (values * 2.0**places).round() / 2.0**places


# NIR from others


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_network_that_spikingjelly_wrote(reset: str, spikingjelly: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        spikingjelly.layer.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        spikingjelly.neuron.IFNode(v_threshold=0.25),
        spikingjelly.layer.AvgPool2d(2),
        spikingjelly.layer.Flatten(),
        spikingjelly.layer.Linear(16, 10),
        spikingjelly.neuron.IFNode(),
    )
    images = torch.rand(3, 1, 8, 8)
    spikingjelly.nir_exchange.export_to_nir(network, images, tmp_path / "theirs.nir")
    with pytest.raises(InputError, match=r"give dt=0\.0001"):
        from_nir(tmp_path / "theirs.nir")
    snn = from_nir(tmp_path / "theirs.nir", dt=1e-4, reset=reset)
    spikingjelly.functional.reset_net(network)
    for module in network:
        if reset == "subtract" and isinstance(module, spikingjelly.neuron.IFNode):
            module.v_reset = None
    with torch.no_grad():
        expected = torch.stack([network(images) for _ in range(20)], 1)
    assert 20 < float(expected.sum()) < 300
    assert torch.equal(snn(images, 20), expected)
    assert snn.neurons.name == {"zero": "reset-to-zero", "subtract": "integrate-and-fire"}[reset]


def neurons(shape: tuple[int, ...] = (2,), **values: Any) -> Any:
    """An IF node of NIR."""
    given = {"r": 1.0, "v_threshold": 1.0, **values}
    return nir.IF(**{name: np.broadcast_to(np.array(value, dtype=np.float32), shape) for name, value in given.items()})


def chain(*nodes: Any, shape: tuple[int, ...] = (3,)) -> Any:
    """A graph of nodes one after the other, whose types nobody has checked."""
    names = ["input", *(f"n{place}" for place in range(len(nodes))), "output"]
    every = (nir.Input({"input": np.array(shape)}), *nodes, nir.Output({"output": np.array([2])}))
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(dict(zip(names, every, strict=True)), edges, type_check=False)


def affine(outputs: int = 2, inputs: int = 3, value: float = 0.3) -> Any:
    return nir.Affine(np.full((outputs, inputs), value, dtype=np.float32), np.zeros(outputs, dtype=np.float32))


def test_resistance_threshold_and_time_step_of_a_strangers_neuron() -> None:
    """V rises by r dt I and fires at v_threshold, one value per channel; by a loop of its own. The weights are torch's, as
    sinabs leaves them in its nodes."""
    weight = torch.tensor([[0.5, 0.25, 0.0], [0.125, 0.5, 1.0]])
    graph = chain(nir.Linear(weight), neurons(r=[2.0, 0.5], v_threshold=[1.5, 0.75]))
    image = torch.tensor([[1.0, 0.5, 0.25]])
    snn = from_nir(graph, dt=0.5, initial_potential=0.25)
    theta, potential, expected = torch.tensor([1.5, 0.75]), torch.tensor([0.375, 0.1875]), []
    for _ in range(10):
        potential = potential + torch.tensor([2.0, 0.5]) * 0.5 * (image @ weight.T)[0]
        fired = (potential >= theta).float()
        potential = potential - theta * fired
        expected.append(fired)
    assert torch.equal(snn(image, 10)[0], torch.stack(expected)) and 0 < float(torch.stack(expected).mean()) < 1


def test_snntorchs_leaky_without_leak_is_read() -> None:
    """beta = 1 is written as a LIF node with tau = r = inf."""
    infinite = np.full(2, np.inf, dtype=np.float32)
    leaky = nir.LIF(infinite, infinite, np.zeros(2), np.ones(2, dtype=np.float32))
    image = torch.ones(1, 3)
    assert torch.equal(from_nir(chain(affine(), leaky))(image, 6), from_nir(chain(affine(), neurons()))(image, 6))


def lif() -> Any:
    return nir.LIF(np.ones(2), np.ones(2), np.zeros(2), np.ones(2))


def recurrent() -> Any:
    graph = chain(affine(), neurons(), affine(2, 2))
    graph.edges.append(("n2", "n1"))
    return graph


def without(name: str) -> Any:
    graph = chain(affine(), neurons())
    del graph.nodes[name]
    return graph


def image_chain(node: Any) -> Any:
    return chain(node, nir.Flatten({"input": None}, 0), neurons((2,)), shape=(1, 4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(affine(), lif()), "'n1' is of the type LIF: its neurons leak"),
        (lambda: chain(affine(), nir.LI(np.ones(2), np.ones(2), np.zeros(2))), "'n1' is of the type LI: it leaks"),
        (lambda: chain(affine(), nir.I(np.ones(2))), "type I: it integrates without firing"),
        (lambda: chain(affine(), nir.Delay(np.ones(2)), neurons()), "type Delay"),
        (lambda: chain(affine(), nir.Threshold(np.ones(2))), "type Threshold: it fires without integrating"),
        (lambda: chain(affine(), chain(neurons(), shape=(2,))), "type NIRGraph: it is a subgraph"),
        (recurrent, "the graph is recurrent"),
        (lambda: chain(affine(), neurons(v_reset=0.5)), "v_reset is not 0"),
        (lambda: chain(affine(), neurons(v_threshold=0)), "must be above 0"),
        (lambda: chain(affine(), neurons(v_threshold=np.nan)), "v_threshold is not finite"),
        (lambda: chain(affine(value=np.inf), neurons()), "weight is not finite"),
        (lambda: chain(affine(2, 5), neurons()), "'n0' .Affine. cannot be computed"),
        (lambda: chain(affine(), neurons((4,))), "r has 4 values|v_threshold has 4 values"),
        (lambda: chain(affine()), "no layer of neurons"),
        (lambda: without("n0"), "no node 'n0'"),
        (lambda: without("input"), "0 nodes of the type Input"),
        (lambda: chain(affine(), neurons(), shape=(2**20, 2**20, 2**20)), "cannot be computed|more than"),
        (lambda: chain(affine(), neurons(), shape=()), "give that of one sample"),
        (lambda: image_chain(nir.Conv2d(None, np.ones((1, 1, 2, 2)), 1, "same", 1, 1, np.zeros(1))), "not the same on both"),
        (
            lambda: image_chain(nir.Conv2d(None, np.ones((1, 1, 2, 2)), 0, 0, 1, 1, np.zeros(1))),
            r"stride is \(0, 0\), not one or two",
        ),
        (lambda: image_chain(nir.Conv2d(None, np.ones((1, 1, 2, 2)), 1, 0, 1, 3, np.zeros(1))), "cannot be computed"),
        (lambda: image_chain(nir.SumPool2d(2.5, 1, 0)), "kernel_size is 2.5"),
        (
            lambda: chain(neurons((1, 4, 4), v_threshold=np.arange(1, 17).reshape(1, 4, 4)), shape=(1, 4, 4)),
            "differs between the neurons of a channel",
        ),
    ],
)
def test_other_graphs_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_nir(make())


def test_arguments_are_checked() -> None:
    graph = chain(affine(), neurons())
    for values, message in (({"dt": 0.0}, "dt=0"), ({"reset": "hard"}, "choose one of subtract, zero")):
        with pytest.raises(InputError, match=message):
            from_nir(graph, **values)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"give a nir\.NIRGraph"):
        from_nir(3)  # type: ignore[arg-type]


def test_metadata_that_lie_are_refused() -> None:
    """What the metadata say of weights is compared with the weights."""
    snn = convert(RandomNetwork(2, "qcfs", blocks=("option_a",)), dyadic_images(2, 0), time_steps=4)
    graph = to_nir(snn)
    graph.nodes["stem_0"].weight = graph.nodes["stem_0"].weight + np.float32(2.0**-20)
    with pytest.raises(InputError, match="are not multiples"):
        from_nir(graph)
    graph = to_nir(snn)
    moved = next(node for node in graph.nodes.values() if "operation" in node.metadata)
    moved.weight = np.roll(moved.weight, 1, axis=1)
    with pytest.raises(InputError, match="its weights are not those of the"):
        from_nir(graph)


def test_files_of_strangers(tmp_path: Path) -> None:
    """Links, data elsewhere, arrays that grow, other content: refused before anything is read."""
    path = tmp_path / "snn.nir"
    write_nir(chain(affine(), neurons()), path)
    assert torch.equal(from_nir(path)(torch.ones(1, 3), 4), from_nir(chain(affine(), neurons()))(torch.ones(1, 3), 4))
    whole = path.read_bytes()

    def changed(change: Callable[[Any], object]) -> Path:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file["node/nodes/n0"])
        return path

    def external(node: Any) -> None:
        del node["weight"]
        node["weight"] = h5py.ExternalLink("/etc/passwd", "/")

    def elsewhere(node: Any) -> None:
        del node["weight"]
        node.create_dataset("weight", (2, 3), "f4", external=[(str(tmp_path / "snn.raw"), 0, 24)])

    def huge(node: Any) -> None:
        del node["weight"]
        node.create_dataset("weight", (2**20, 2**20), "f4", chunks=(1024, 1024), compression="gzip")

    for change, message in (
        (external, "is a link"),
        (elsewhere, "in another file"),
        (huge, "far more than the file"),
        (lambda node: node.pop("weight"), "cannot be read as NIR"),
        (lambda node: node.__setitem__("inside", node.parent), "groups deep"),
    ):
        with pytest.raises(InputError, match=message):
            read_nir(changed(change))  # type: ignore[arg-type]
    for content, message in ((whole[:200], "cannot be read as NIR"), (b"PK\x03\x04", "cannot be read as NIR")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            from_nir(path)
    with pytest.raises(InputError, match="is not a file"):
        from_nir(tmp_path / "none.nir")


def test_the_command_writes_nir_and_says_what_it_cannot_say(
    digits_snn: SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dynconf = command(monkeypatch, capsys, "export-nir")
    save_snn(digits_snn, tmp_path / "snn.pt")
    answer = dynconf(tmp_path / "snn.pt", tmp_path / "snn.nir")
    assert (answer.code, answer.error) == (0, "")
    text = " ".join(answer.out.split())
    assert "4 IF" in text and "initial_potential" in text and "input to 2^-8" in text
    assert_equal_spikes(digits_snn, from_nir(tmp_path / "snn.nir"), digits()[0][:8])
    found = json.loads(dynconf(tmp_path / "snn.pt", tmp_path / "snn.nir", "--units", "physical", "--json").out)
    neurons = sum(int(np.prod(layer.shape)) for layer in digits_snn.layers().values())
    assert (found["schema"], found["units"], found["neurons"]) == (2, "physical", neurons)
    refused = dynconf(tmp_path / "snn.pt", tmp_path / "snn.nir", "--units", "volts")
    assert refused.code == 2 and "choose one of threshold, physical" in refused.error


# SpikingJelly


@pytest.mark.parametrize("case", ["digits", "residual", "several"])
def test_a_spikingjelly_module_fires_the_same_spikes(case: str, spikingjelly: ModuleType) -> None:
    """In both step modes, for every layer and step, and again after ``reset_net``; V(0) differs from channel to channel, or
    from layer to layer."""
    if case == "digits":
        images = digits()[0][:40]
        plain = trained_on_digits("relu")  # with its max pool
        snn = convert(plain, images, thresholds="max", time_steps=STEPS, correct=True, neurons="integrate-and-fire")
    else:
        blocks = ("residual", "option_a", "projection") if case == "residual" else BLOCKS
        network, images = RandomNetwork(3, "qcfs", dyadic=False, blocks=blocks), gaussian_images(3, 3)
        charge(network)
        snn = convert(network, images, time_steps=STEPS)
    logits, spikes, _ = simulated(snn, images, STEPS)
    module, functional = to_spikingjelly(snn), spikingjelly.functional
    sent: dict[str, list[Tensor]] = {}
    for name in snn.layers():
        module.layers[name.replace(".", "/")].register_forward_hook(
            lambda _, given, fired, name=name: sent.setdefault(name, []).append(fired)
        )
    with torch.no_grad():
        for _ in range(2):
            sent.clear()
            functional.reset_net(module)
            assert torch.equal(torch.stack([module(images) for _ in range(STEPS)], 1), logits)
            assert all(torch.equal(torch.stack(sent[name], 1), spikes[name]) for name in snn.layers())
        functional.reset_net(module)
        functional.set_step_mode(module, "m")
        assert torch.equal(module(images.expand(STEPS, *images.shape)).transpose(0, 1), logits)
    assert isinstance(module.layers[next(iter(snn.layers())).replace(".", "/")], spikingjelly.neuron.IFNode)


def test_a_spikingjelly_module_is_trained_further(spikingjelly: ModuleType, digits_snn: SpikingNetwork) -> None:
    """Its weights are parameters of its own, which the surrogate gradient reaches."""
    module, images = to_spikingjelly(digits_snn), digits()[0][:8]
    before = digits_snn(images, 2)
    torch.stack([module(images) for _ in range(4)]).mean(0).square().sum().backward()
    assert any(isinstance(layer, spikingjelly.layer.Conv2d) for layer in module.layers.values())
    for layer in module.layers.values():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.grad is not None and bool(layer.weight.grad.any())
            with torch.no_grad():
                layer.weight.zero_()
    assert torch.equal(digits_snn(images, 2), before)
    with pytest.raises(ValueError, match="reset_net"):
        module(images[:3])


# NeuroBench


def test_neurobench_measures_what_is_measured_here(digits_snn: SpikingNetwork) -> None:
    """Where it is right: spikes of 0 and 1 on weights none of which is 0, an image without zeros. A pool's counts are analogue
    values to it: each is a multiply-accumulate, whatever the number of its spikes."""
    library("neurobench.benchmarks")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload

    def measured(snn: SpikingNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=2)
        chosen: list[list[Any]] = [
            [static.Footprint, static.ConnectionSparsity],
            [workload.ClassificationAccuracy, workload.ActivationSparsity, workload.SynapticOperations],
        ]
        return Benchmark(neurobench_model(snn, STEPS), loader, [], [], chosen).run(quiet=True)  # type: ignore[no-any-return]

    for method in ("qcfs", "qffs"):
        network, images = RandomNetwork(10, method, dyadic=False, blocks=("plain", "projection")), gaussian_images(4, 4)
        snn = convert(network, images, time_steps=STEPS, fixed_point=False)
        logits = snn(images, STEPS)
        found = measured(snn, images, (logits.mean(1).argmax(1) + torch.tensor([0, 0, 0, 1])) % 5)
        spikes, operations = counted(snn, images)
        units = sum(int(np.prod(layer.shape)) for layer in snn.layers().values())
        assert found["ClassificationAccuracy"] == 0.75 and found["ConnectionSparsity"] == 0
        assert found["ActivationSparsity"] == pytest.approx(1 - spikes / (4 * STEPS * units), abs=1e-12)
        synaptic, multiplied = found["SynapticOperations"], multiply_accumulates(snn.graph)
        assert synaptic["Effective_ACs"] == operations / 4
        assert synaptic["Effective_MACs"] == multiplied["once"]
        assert synaptic["Dense"] == multiplied["once"] + STEPS * (multiplied["ann"] - multiplied["once"])
        weights = sum(
            value.nbytes for tensors in snn.tensors().values() for name, value in tensors.items() if name != "threshold"
        )
        assert found["Footprint"] == weights
    images, labels = digits()[0][:4], digits()[1][:4]
    pooled = measured(digits_snn, images, labels)["SynapticOperations"]
    assert pooled["Effective_ACs"] < counted(digits_snn, images)[1] / 4
    assert pooled["Effective_MACs"] > multiply_accumulates(digits_snn.graph)["once"]


def counted(snn: SpikingNetwork, images: Tensor) -> tuple[int, int]:
    """Spikes and synaptic operations of all images."""
    counter, current, state, totals = Counter(snn), snn.input_current(images), None, [0, 0]
    for time_step in range(1, STEPS + 1):
        state = snn.step(current, state, time_step, counter).state
        spikes, operations = counter.totals(counter.taken())
        totals = [totals[0] + int(spikes.sum()), totals[1] + int(operations.sum())]
    return totals[0], totals[1]
