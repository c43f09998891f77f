"""What cannot become a graph is refused with its position, the reason and an alternative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_forms import Applied
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError
from dynconf_core.graph.trace import traced


def convolution(inputs: int = 3, outputs: int = 4, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


def flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def images(count: int = 3, seed: int = 7) -> Tensor:
    return gaussian_images(count, seed).double()


def of(function: Callable[..., Any], *modules: nn.Module) -> nn.Module:
    return Applied(lambda m, x: flat(function(m, m[0](x))), convolution(), *modules)


REFUSED: list[tuple[str, Callable[[], nn.Module], str]] = [
    (
        "a module",
        lambda: nn.Sequential(convolution(), nn.LPPool2d(2, 2)),
        "LPPool2d at '1' cannot be converted: it is a square, or the root of a mean of squares, of activations; use means and "
        r"maxima over the image\.$",
    ),
    ("a deep module", lambda: nn.Sequential(nn.Sequential(convolution(), nn.Tanh())), "Tanh at '0.1' cannot"),
    ("a function", lambda: of(lambda m, x: torch.exp(x)), "exp at 'exp' cannot be converted"),
    ("a method", lambda: of(lambda m, x: x.cumsum(1)), "cumsum at 'cumsum' cannot be converted"),
    ("the batch moved", lambda: of(lambda m, x: x.transpose(0, 1)), "the first dimension is the batch, and must stay"),
    ("a product", lambda: of(lambda m, x: x * x), "mul at 'mul' cannot be converted: a product of two activations"),
    ("a quotient", lambda: of(lambda m, x: 1 / x), "a quotient of activations"),
    ("a division by 0", lambda: of(lambda m, x: x / 0), "it divides by 0"),
    (
        "a field of constants",
        lambda: of(lambda m, x: x + torch.arange(64.0).view(8, 8)),
        r"its constant has the shape \(8, 8\)",
    ),
    (
        "no reason of its own",
        lambda: nn.Sequential(convolution(), nn.FractionalMaxPool2d(2, 4)),
        "FractionalMaxPool2d at '1' .* does not support it. Conversion supports convolutions",
    ),
    ("shapes", lambda: of(lambda m, x: x + x[:, :3]), r"it adds shapes \(4, 8, 8\) and \(3, 8, 8\)"),
    ("the batch added to rows", lambda: of(lambda m, x: x + x.mean((2, 3))), r"\(4, 8, 8\) and \(4,\)"),
    ("a stack before the batch", lambda: of(lambda m, x: torch.stack([x, x]).mean(0)), r"torch.stack\(parts, 1\)"),
    ("ones written", lambda: of(lambda m, x: (x.__setitem__((slice(None), 0), 1.0), x)[1]), "writes constants other than 0"),
    ("the batch written", lambda: of(lambda m, x: (x.__setitem__(0, 0.0), x)[1]), "values from one sample|part of the batch"),
    ("an einsum of two", lambda: of(lambda m, x: torch.einsum("nchw,nchw->nc", x, x)), "activations with each other"),
    (
        "an implicit einsum",
        lambda: of(lambda m, x: torch.einsum("nchw,c", x, torch.ones(4))),
        "with a letter for each dimension",
    ),
    ("a square", lambda: of(lambda m, x: x**2), "it is a curve"),
    ("a weight of the input", lambda: of(lambda m, x: torch.lerp(x, x, x)), "activations with each other"),
    ("a limit for each channel", lambda: of(lambda m, x: torch.minimum(x, torch.rand(4, 1, 1))), "its limit differs"),
    ("an upper limit alone", lambda: of(lambda m, x: x.clamp(max=6)), r"give it the lower limit 0 too, as clamp\(0, top\)"),
    ("the larger of two", lambda: of(lambda m, x: torch.maximum(x, x.flip(1))), "the larger of two activations"),
    ("a threshold above 0", lambda: of(lambda m, x: functional.threshold(x, 0.5, 0)), r"only Threshold\(0, 0\), which is ReLU"),
    ("a comparison", lambda: of(lambda m, x: (x > 0) * 2), r"as torch.where\(x > 0, x, 0\) and x \* \(x > 0\) it is ReLU"),
    ("a mask of another", lambda: of(lambda m, x: (m[0](x[:, :3]) > 0) * x), r"only x \* \(x > 0\)"),
    ("a mask at 1", lambda: of(lambda m, x: x * (x > 1)), r"only x \* \(x > 0\), which is ReLU"),
    ("a choice of another", lambda: of(lambda m, x: torch.where(x > 0, 2 * x, 0.0)), "the constant that it is compared with"),
    ("softmax inside", lambda: of(lambda m, x: x.softmax(1)), "softmax at 'softmax' cannot be converted"),
    ("softmax, then more", lambda: Applied(lambda m, x: 2 * flat(x).softmax(1)), "leave it out at the end"),
    ("assembled", lambda: of(lambda m, x: torch.zeros(len(x), 5, 8, 8).index_copy_(1, torch.arange(4), x)), "use torch.cat"),
    ("written into", lambda: of(lambda m, x: torch.clamp(x, min=0, out=torch.empty(1))), "writes into another tensor"),
    ("whole numbers", lambda: of(lambda m, x: x.to(torch.int64)), "activations are real numbers"),
    ("weights of the input", lambda: of(lambda m, x: functional.conv2d(x, x[:1].detach())), "takes a part of the batch"),
    ("zeros joined", lambda: of(lambda m, x: torch.cat([x, torch.zeros(1, 1, 8, 8)], 1)), "to add zeros use functional.pad"),
    ("a part of the batch", lambda: of(lambda m, x: x[:1]), "a part of the batch"),
    ("an empty slice", lambda: of(lambda m, x: x[:, 4:]), "its result is empty"),
    ("ones", lambda: of(lambda m, x: functional.pad(x, (1, 1), value=1.0)), "value=1.0; pad with zeros, or"),
    ("a negative pad", lambda: of(lambda m, x: functional.pad(x, (-1, 0))), "slice instead"),
    ("an uneven same", lambda: nn.Sequential(nn.Conv2d(3, 4, 2, padding="same")), "'same' padding of an even kernel"),
    ("padding left out", lambda: nn.Sequential(nn.AvgPool2d(2, padding=1, count_include_pad=False)), "count_include_pad=True"),
    ("a divisor", lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), "a divisor of its own"),
    ("cut windows", lambda: nn.Sequential(nn.AvgPool2d(3, 2, ceil_mode=True)), "ceil_mode=True cuts windows"),
    ("a pool of features", lambda: nn.Sequential(nn.Flatten(), nn.AvgPool2d(2)), "pools are over images"),
    (
        "indices",
        lambda: of(lambda m, x: functional.max_unpool2d(*m[1](x), 2), nn.MaxPool2d(2, 2, 0, 1, True)),
        "the indices of",
    ),
    ("a mean over the batch", lambda: of(lambda m, x: x.mean(0)), "a mean over the batch"),
    ("the batch flattened", lambda: of(lambda m, x: x.flatten()), "the batch, and must stay"),
    ("a clip at 0", lambda: of(lambda m, x: x.clamp(0, 0)), "its upper limit is 0"),
    ("dropout that stays", lambda: of(lambda m, x: functional.dropout(x, 0.5)), "pass training=self.training"),
    ("a branch", lambda: of(lambda m, x: x if x.sum() > 0 else -x), "must not branch on the values of a tensor"),
    ("a number", lambda: of(lambda m, x: x * float(x.mean())), "or convert them to Python numbers"),
    ("an item", lambda: of(lambda m, x: x * x.amax().item()), "item at 'item'.*: its forward must not branch"),
    ("a list", lambda: of(lambda m, x: x * x.flatten().tolist()[0]), "must not branch"),
    ("numpy", lambda: of(lambda m, x: x * x.numpy().max()), "must not branch"),
    ("a loop on a value", lambda: of(lambda m, x: x * len([0 for _ in range(int(x.sum()))])), "must not branch"),
    ("an assert on values", lambda: of(lambda m, x: (x, [][0])[0] if torch.isnan(x).any() else x), "must not branch"),
    (
        "its own error",
        lambda: of(lambda m, x: {}["channels"]),
        "its code raises KeyError: 'channels'",
    ),
    ("a batch of its own", lambda: Applied(lambda m, x: x.reshape(3, -1)), r"returns \(3, 128\) for 2 images"),
    ("two outputs", lambda: Applied(lambda m, x: (flat(x), flat(x))), "returns a tuple of 2, not one tensor"),
    ("a dictionary", lambda: Applied(lambda m, x: {"logits": flat(x)}), "a dictionary with 'logits', not one tensor"),
    ("an image", lambda: nn.Sequential(convolution()), r"output has the shape \(N, 4, 8, 8\): logits \(N, C\) are needed"),
    ("no input", lambda: Applied(lambda m, x: flat(m[0].weight), convolution()), "output does not depend on its input"),
    ("another size", lambda: nn.Sequential(nn.Conv2d(1, 4, 3)), "Conv2d at '0' does not take an input of shape"),
    ("an image that is too small", lambda: nn.Sequential(nn.Conv2d(3, 4, 9)), "Conv2d at '0' does not take an input of shape"),
]


@pytest.mark.parametrize(("name", "make", "words"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_refuses(name: str, make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(InputError, match=words):
        traced(make().eval(), images())


def test_refuses_training_mode() -> None:
    network = nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    with pytest.raises(InputError, match=r"Sequential is in training mode: call \.eval\(\)"):
        traced(network.train(), images())
    for number in (1, 2):
        network.eval()[number].train()
        with pytest.raises(InputError, match=f"{number} is in training mode"):
            traced(network, images())
    with pytest.raises(InputError, match="1 is a batch normalisation without running statistics"):
        traced(nn.Sequential(convolution(), nn.BatchNorm2d(4, track_running_stats=False)).eval(), images())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "1.bias"])
def test_refuses_weights_that_are_not_finite(name: str, value: float) -> None:
    network = nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.Flatten()).eval()
    with torch.no_grad():
        network.state_dict()[name].flatten()[1] = value
    with pytest.raises(InputError, match=f"{name} holds NaN or infinite values"):
        traced(network, images())


def test_a_network_that_returns_nan_is_told_so() -> None:
    network = nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.Flatten()).eval()
    network.state_dict()["1.running_var"][1] = -0.5
    with pytest.raises(InputError, match=r"1\.running_var holds -0\.5: its root is NaN, and so is what the network"):
        traced(network, images())
    with pytest.raises(InputError, match="itself returns NaN"):
        traced(of(lambda m, x: x * torch.sqrt(-torch.ones(()))).eval(), images())


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("layer", [QCFS(4), LSQ(2)])
def test_refuses_thresholds_that_never_or_always_fire(layer: QCFS | LSQ, threshold: float) -> None:
    with torch.no_grad():
        (layer.threshold if isinstance(layer, QCFS) else layer.step).fill_(threshold)
    with pytest.raises(InputError, match=r"must be above 0|holds NaN"):
        traced(nn.Sequential(convolution(), layer, nn.Flatten()).eval(), images())


def test_refuses_anything_but_a_module() -> None:
    with pytest.raises(InputError, match=r"the network is a dict: give a torch\.nn\.Module"):
        traced({}, images())  # type: ignore[arg-type]
