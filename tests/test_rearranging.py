"""Values that are moved, repeated and left out: permutations, flips, shuffles, views, nearest upsampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_checks import same
from network_forms import Applied, kinds, settles_exactly
from second_simulation import exact_run
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.errors import InputError
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.simulation import integer, products
from dynconf_core.simulation.counts import Counter, fan_out

TIME_STEPS = 40


def layer(inputs: int = 3, outputs: int = 8, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **settings)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """ShuffleNet's."""
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).contiguous().view(count, -1, height, width)


def head(features: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 5))


Function = Callable[[Tensor], Tensor]
BETWEEN: dict[str, tuple[Function, int]] = {
    "channels by a list": (lambda x: x[:, [3, 1, 0, 2, 7, 6, 5, 4]], 512),
    "channels by a tensor": (lambda x: x[:, torch.tensor([7, 0, 0, 2])], 256),
    "index_select": (lambda x: x.index_select(1, torch.arange(7, -1, -1)), 512),
    "channel shuffle": (partial(shuffled, groups=2), 512),
    "channel shuffle of torch": (lambda x: functional.channel_shuffle(x, 4), 512),
    "flip": (lambda x: x.flip(-1), 512),
    "flip of channels": (lambda x: torch.flip(x, (1, 2)), 512),
    "roll": (lambda x: x.roll((1, 3), (2, 3)), 512),
    "rotation": (lambda x: torch.rot90(x, 1, (2, 3)), 512),
    "rows and columns swapped": (lambda x: x.transpose(2, 3), 512),
    "pixel unshuffle": (lambda x: functional.pixel_unshuffle(x, 2), 512),
    "pixel shuffle": (lambda x: functional.pixel_shuffle(x, 2), 512),
    "nearest upsampling": (lambda x: functional.interpolate(x, scale_factor=2), 2048),
    "one row": (lambda x: x[:, :, 3], 64),
    "patches": (lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5), 512),
    "to the end": (lambda x: x.permute(0, 2, 3, 1), 512),
    "halves beside each other": (lambda x: torch.cat([x[:, :4], x[:, 4:].flip(3)], 3), 512),
    "stacked": (lambda x: torch.stack([x, x.flip(2)], 2), 1024),
    "repeated": (lambda x: x.repeat(1, 2, 1, 1), 1024),
    "reflected borders": (lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"), 968),
    "circular borders": (lambda x: functional.pad(x, (1, 1, 1, 1), mode="circular"), 800),
    "unequal windows": (lambda x: functional.adaptive_avg_pool2d(x, (3, 11)), 264),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_between_neurons_and_weights(name: str, tmp_path: Path) -> None:
    """The graph is the network; the SNN settles at its reference, in float32, float64 and from its file."""
    torch.manual_seed(0)
    function, features = BETWEEN[name]
    network = Applied(lambda m, x: m[2](function(m[1](m[0](x)))), layer(), nn.ReLU(), head(features)).eval()
    same(network, gaussian_images(3, 7).double())
    settles_exactly(network, gaussian_images(8, 1), TIME_STEPS, tmp_path)


def test_a_permutation_before_a_convolution_moves_whole_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per-channel thresholds go with their channels, and integer products change no bit."""
    torch.manual_seed(0)
    network = Applied(
        lambda m, x: m[3](m[1](m[2](functional.pixel_unshuffle(shuffled(m[1](m[0](x)), 2), 2)))),
        *(layer(), nn.ReLU(), layer(32, 6), head(96)),
    ).eval()
    images = gaussian_images(8, 1)
    snn = settles_exactly(network, images, TIME_STEPS, tmp_path)
    assert kinds(snn).count("rearrange") == 1, "two that follow each other are one"
    assert not snn.graph.of_kind("scale")
    (moved,) = snn.graph.of_kind("rearrange")
    assert moved.name in snn.graph.spikes()
    plain = snn(images, TIME_STEPS)
    monkeypatch.setattr(products, "prepare", partial(integer.prepare, must_pay=False))
    if integer.available():
        assert "parts.2" in snn.accelerate(len(images) * 4)
    assert torch.equal(snn(images, TIME_STEPS), plain)


def test_an_image_with_channels_last() -> None:
    """What goes to the network's own order and back is nothing at all."""
    torch.manual_seed(0)
    network = Applied(
        lambda m, x: m[3](m[1](m[2](m[1](m[0](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))),
        *(layer(), nn.ReLU(), layer(8, 4), head(256)),
    ).eval()
    images = gaussian_images(4, 0).permute(0, 2, 3, 1)
    graph = activations_first(folded(traced(network, images)))
    assert [node.kind for node in graph.of_kind("rearrange", "convolution", "activation")] == [
        *("rearrange", "convolution", "activation", "convolution", "activation")
    ]
    snn = convert(network, images, thresholds="error", time_steps=64)
    with torch.no_grad():
        wanted = network(images)
    assert float((snn(images, 64).mean(1) - wanted).norm() / wanted.norm()) < 0.05


def test_channels_of_different_thresholds_in_one(tmp_path: Path) -> None:
    """They get one threshold, so that whole spikes meet weights and max pools; where each has been learned, spikes are brought
    to one unit first, and a max pool cannot compare them."""
    torch.manual_seed(0)

    def function(m: Any, x: Tensor) -> Tensor:
        result: Tensor = m[3](functional.max_pool2d(functional.pixel_shuffle(m[1](m[0](x)), 2), 2))
        return result

    pooled = Applied(function, layer(), nn.ReLU(), nn.Identity(), head(128)).eval()
    for options in ({}, {"correct": True}, {"per_channel": False}):
        snn = settles_exactly(pooled, gaussian_images(8, 1), TIME_STEPS, tmp_path, **options)
        assert not snn.graph.of_kind("scale")
    (neurons,) = snn.layers().values()
    assert len(neurons.tensors["threshold"].unique()) == 1
    beside = Applied(
        lambda m, x: m[3](m[5](m[4](functional.pixel_shuffle(torch.cat([m[1](m[0](x)), m[2](m[0](x))], 1)[:, 2:14], 2)))),
        *(layer(), QCFS(4, 1.0), QCFS(4, 2.0), head(256), layer(3, 1), QCFS(4, 1.0)),
    ).eval()
    snn = convert(beside, gaussian_images(8, 1), time_steps=8)
    assert [node.settings.get("identity") for node in snn.graph.of_kind("scale")] == [True]
    assert torch.equal(exact_run(snn, gaussian_images(8, 1), 8), snn(gaussian_images(8, 1), 8).double().mean(1))
    beside.parts[4] = nn.Sequential(nn.MaxPool2d(3, 1, 1), layer(3, 1))
    with pytest.raises(InputError, match=r"'parts\.4\.0' follows a rearrangement of channels with different thresholds"):
        convert(beside, gaussian_images(8, 1), time_steps=8)


def test_one_pixel_repeated() -> None:
    """A pool to 7 x 7 of one pixel repeats it: the sum of the 49 is 49 times the pixel."""
    network = Applied(lambda m, x: m[1](m[0](x).flatten(1)), nn.AdaptiveAvgPool2d(7), nn.Linear(49, 1, bias=False)).eval()
    nn.init.ones_(network.parts[1].weight)  # type: ignore[arg-type]
    pixel = torch.tensor([[[[0.375]]], [[[-2.0]]]], dtype=torch.float64)
    assert same(network, pixel).of_kind("rearrange")
    assert network.double()(pixel).flatten().tolist() == [49 * 0.375, -98.0]


def test_a_repeated_spike_meets_each_weight_that_it_reaches() -> None:
    """Fan-outs by hand: a channel that stands twice is read by twice as many weights; one left out by none."""
    network = Applied(lambda m, x: m[2](m[1](m[0](x))[:, [0, 0, 2]].flatten(1)), layer(3, 3, 1), nn.ReLU(), nn.Linear(12, 5))
    snn = convert(network.eval(), gaussian_images(4, 0, 2), thresholds="max", time_steps=8)
    (met,) = fan_out(snn.graph).values()
    assert met.flatten(1).unique(dim=1).tolist() == [[10], [0], [5]]
    counter, spikes = Counter(snn), list[Tensor]()
    images = gaussian_images(4, 1, 2)
    snn.step(snn.input_current(images), None, 1, lambda node, sent: (counter(node, sent), spikes.append(sent.clone()))[0])
    _, operations = counter.totals(counter.taken())
    assert operations.tolist() == (spikes[0].double() * met).flatten(1).sum(1).tolist() and operations.sum() > 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.transpose(0, 1), "the first dimension is the batch, and must stay"),
        (lambda x: x.flatten(), "the first dimension is the batch"),
        (lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), "use mode='nearest'"),
    ],
)
def test_what_is_no_rearrangement(function: Function, words: str) -> None:
    with pytest.raises(InputError, match=words):
        traced(Applied(lambda m, x: function(m[0](x)).flatten(1), layer()).eval(), gaussian_images(1, 0))


# Files


def _index(change: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def changed(entry: dict[str, Any]) -> None:
        entry["tensors"]["index"] = change(entry["tensors"]["index"])

    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_index(lambda index: index + 1), r"reads the positions 1 to 512 of 512 values"),
        (_index(lambda index: index - 1), r"reads the positions -1 to"),
        (_index(lambda index: index.float()), "float32, not of 32-bit whole numbers"),
        (_index(lambda index: index.long()), "int64, not of 32-bit whole numbers"),
        (_index(lambda index: index[:1].clone().expand(index.shape)), "larger than its data"),
        (_index(lambda index: index[:-1].clone()), "has the shape .* but its inputs give"),
        (_index(lambda index: index.to_sparse()), "is sparse"),
        (_index(lambda index: 3), "not a complete converted network"),
        (lambda entry: entry["settings"].update(of="rows"), "has the setting of = rows"),
        (lambda entry: entry["settings"].update(of="channels"), "cannot be computed|but its inputs give"),
        (lambda entry: entry.update(tensors={}), "has the tensors"),
    ],
)
def test_a_file_with_positions_of_somebody_else(
    change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path, content: dict[str, Any]
) -> None:
    torch.save(content, tmp_path / "copy.pt")
    changed = torch.load(tmp_path / "copy.pt", weights_only=True)
    change(next(entry for entry in changed["graph"] if entry["kind"] == "rearrange"))
    torch.save(changed, tmp_path / "snn.pt")
    with pytest.raises(InputError, match=words):
        load_snn(tmp_path / "snn.pt")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a file with a rearrangement."""
    path = tmp_path_factory.mktemp("snn") / "snn.pt"
    network = Applied(
        lambda m, x: m[2](m[1](m[0](x)).flip(3).flatten(2).unflatten(2, (4, 16)).flip(3)), layer(), nn.ReLU(), head(512)
    )
    save_snn(convert(network.eval(), gaussian_images(2, 0), thresholds="max", time_steps=4), path)
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found
