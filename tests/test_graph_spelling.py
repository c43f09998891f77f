"""The same operation under another name, and code that asks for sizes: each network against a plain one of the same modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from graph_checks import disturbed
from network_forms import Applied
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph
from dynconf_core.graph.operations import run
from dynconf_core.graph.trace import activations_first, folded, traced

Function = Callable[[Any, Tensor], Any]


def flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def modules() -> list[nn.Module]:
    """m[0], m[1]: convolutions with 4 channels, m[2]: a normalisation of these, m[3]: a linear layer of the image."""
    convolutions = [nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)]
    return [*convolutions, nn.BatchNorm2d(4), nn.Linear(192, 6), nn.Conv2d(6, 4, 1), nn.Linear(4, 5)]


def normalised(kind: Callable[..., nn.Module], m: Any, x: Tensor) -> Any:
    """m[2] as a module of another kind."""
    other = kind(4).eval()
    other.load_state_dict(m[2].state_dict())
    return other(x)


def stochastic_depth(x: Tensor, training: bool, p: float = 0.5) -> Tensor:
    return x if not training else x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 1 - p))


def norm(m: Any, x: Tensor) -> Any:
    return flat(m[2](m[0](x)))


def conv(m: Any, x: Tensor) -> Any:
    return flat(m[0](x))


def relu(m: Any, x: Tensor) -> Any:
    return flat(functional.relu(m[0](x)))


def clip(m: Any, x: Tensor) -> Any:
    return flat(m[0](x).clamp(0, 1))


def pooled(m: Any, x: Tensor) -> Any:
    return flat(functional.avg_pool2d(m[0](x), 8))


def strongest(m: Any, x: Tensor) -> Any:
    return flat(functional.max_pool2d(m[0](x), 8))


def linear(m: Any, x: Tensor) -> Any:
    return m[3](flat(x))


def running(m: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return m[2].running_mean, m[2].running_var, m[2].weight, m[2].bias


SPELLINGS: dict[str, tuple[Function, Function]] = {
    # normalisation
    "SyncBatchNorm": (lambda m, x: flat(normalised(nn.SyncBatchNorm, m, m[0](x))), norm),
    "batch_norm()": (lambda m, x: flat(functional.batch_norm(m[0](x), *running(m), m[2].training)), norm),
    "torch.batch_norm by keywords": (
        lambda m, x: flat(functional.batch_norm(m[0](x), *running(m), training=False, momentum=0.1, eps=1e-5)),
        norm,
    ),
    "instance_norm() with running statistics": (
        lambda m, x: flat(functional.instance_norm(m[0](x), *running(m), use_input_stats=False)),
        norm,
    ),
    "normalisation by hand": (
        lambda m, x: flat(
            (m[0](x) - m[2].running_mean[:, None, None])
            / torch.sqrt(m[2].running_var + 1e-5).view(1, -1, 1, 1)
            * m[2].weight.reshape(4, 1, 1)
            + m[2].bias[None, :, None, None].expand_as(x.new_zeros(1, 4, 8, 8))
        ),
        norm,
    ),
    # dropout and identity
    "alpha_dropout()": (lambda m, x: flat(functional.alpha_dropout(m[0](x), 0.5, m.training)), conv),
    "feature_alpha_dropout()": (lambda m, x: flat(functional.feature_alpha_dropout(m[0](x), 0.5, m.training)), conv),
    "dropout3d()": (lambda m, x: flat(functional.dropout3d(m[0](x), 0.5, m.training)), conv),
    "torch.dropout": (lambda m, x: flat(torch.dropout(m[0](x), 0.5, m.training)), conv),
    "dropout modules made in forward": (
        lambda m, x: nn.Dropout(0.5).eval()(flat(nn.AlphaDropout().eval()(nn.Dropout3d().eval()(m[0](x))))),
        conv,
    ),
    "stochastic depth": (lambda m, x: flat(stochastic_depth(m[0](x), m.training)), conv),
    "float()": (lambda m, x: flat(m[0](x.float()).double().half()), conv),
    "to()": (lambda m, x: flat(m[0](x.to(torch.float32).to(x.device, x.dtype).to(x).cpu()).type_as(x)), conv),
    "clone, contiguous, detach": (
        lambda m, x: torch.clone(flat(m[0](x).contiguous().detach().data).requires_grad_(False)),
        conv,
    ),
    "unary plus": (lambda m, x: flat(+m[0](x)), conv),
    # limits
    "Threshold": (lambda m, x: flat(nn.Threshold(0, 0)(m[0](x))), relu),
    "threshold()": (lambda m, x: flat(functional.threshold(m[0](x), 0.0, 0.0, inplace=True)), relu),
    "LeakyReLU(0)": (lambda m, x: flat(nn.LeakyReLU(0.0)(m[0](x))), relu),
    "clamp_min": (lambda m, x: flat(m[0](x).clamp_min(0)), relu),
    "clamp(min=0)": (lambda m, x: flat(torch.clamp(m[0](x), min=0.0)), relu),
    "max with 0": (lambda m, x: flat(torch.max(m[0](x), torch.tensor(0.0))), relu),
    "maximum with zeros": (lambda m, x: (lambda y: flat(torch.maximum(torch.zeros_like(y), y)))(m[0](x)), relu),
    "where": (lambda m, x: (lambda y: flat(torch.where(y > 0, y, torch.zeros_like(y))))(m[0](x)), relu),
    "where, the other way": (lambda m, x: (lambda y: flat(y.where(y > 0, torch.tensor(0.0))))(m[0](x)), relu),
    "times a mask": (lambda m, x: (lambda y: flat(y * (y > 0)))(m[0](x)), relu),
    "times a mask of numbers": (lambda m, x: (lambda y: flat((y >= 0).to(y.dtype).mul(y)))(m[0](x)), relu),
    "where in where": (
        lambda m, x: (lambda y: flat(torch.where(y < 0, torch.zeros_like(y), torch.where(y > 1, torch.ones_like(y), y))))(
            m[0](x)
        ),
        clip,
    ),
    "where around where": (
        lambda m, x: (lambda y: flat(torch.where(y > 1, torch.ones(()), torch.where(y <= 0, torch.zeros(()), y))))(m[0](x)),
        clip,
    ),
    "leaky where": (
        lambda m, x: (lambda y: flat(torch.where(y > 0, y, 0.1 * y)))(m[0](x)),
        lambda m, x: flat(functional.leaky_relu(m[0](x), 0.1)),
    ),
    "relu6": (lambda m, x: flat(functional.relu6(6 * m[0](x)) / 6), clip),
    "ReLU6 in place": (lambda m, x: flat(nn.ReLU6(inplace=True)(6 * m[0](x)) / 6), clip),
    "hardtanh_": (lambda m, x: flat(functional.hardtanh_(m[0](x), 0.0, 1.0)), clip),
    "limits one after the other": (lambda m, x: flat(m[0](x).clamp(min=0).clamp(max=1)), clip),
    "the upper limit first": (lambda m, x: flat(functional.relu(m[0](x).clamp_max(1))), clip),
    "minimum and relu": (lambda m, x: flat(torch.minimum(functional.relu(m[0](x)), torch.ones(1))), clip),
    "maximum of minimum": (
        lambda m, x: flat(torch.maximum(torch.min(m[0](x), torch.tensor(1.0)), torch.tensor(0.0))),
        clip,
    ),
    "in place, upper limit first": (lambda m, x: flat(m[0](x).clamp_(max=1).clamp_(min=0)), clip),
    "a limit below another": (lambda m, x: flat(functional.relu6(m[0](x)).clamp(max=1)), clip),
    # means, sums and maxima
    "mean of means": (lambda m, x: m[0](x).mean(-1).mean(-1), pooled),
    "mean of columns, then rows": (lambda m, x: m[0](x).mean(2).mean(dim=2), pooled),
    "mean of the flattened image": (lambda m, x: m[0](x).flatten(2).mean(2), pooled),
    "mean of a view": (lambda m, x: (lambda y: y.view(y.size(0), y.size(1), -1).mean(dim=-1))(m[0](x)), pooled),
    "mean by axis": (lambda m, x: m[0](x).mean(axis=(2, 3), keepdims=True).squeeze(-1).squeeze(-1), pooled),
    "torch.mean": (lambda m, x: torch.mean(m[0](x), [3, 2], True).flatten(1), pooled),
    "sum over the image": (lambda m, x: m[0](x).sum((2, 3)) / 64, pooled),
    "sum of sums": (lambda m, x: torch.sum(torch.sum(m[0](x), -1), dim=-1) / (x.shape[2] * x.shape[3]), pooled),
    "pool, then squeeze": (lambda m, x: nn.AdaptiveAvgPool2d(1)(m[0](x)).squeeze(), pooled),
    "pool by keywords": (lambda m, x: functional.avg_pool2d(input=m[0](x), kernel_size=x.shape[-1]).squeeze(), pooled),
    "adaptive_avg_pool2d to (1, 1)": (lambda m, x: functional.adaptive_avg_pool2d(m[0](x), (1, 1))[:, :, 0, 0], pooled),
    "amax": (lambda m, x: m[0](x).amax((2, 3)), strongest),
    "amax of the flattened image": (lambda m, x: m[0](x).flatten(2).amax(-1), strongest),
    "amax of rows, then columns": (lambda m, x: m[0](x).amax(3).amax(2), strongest),
    "adaptive max pool": (lambda m, x: flat(nn.AdaptiveMaxPool2d(1)(m[0](x))), strongest),
    "torch.max_pool2d": (lambda m, x: flat(torch.max_pool2d(m[0](x), [8, 8])), strongest),
    "values of max": (lambda m, x: m[0](x).max(-1).values.max(2)[0], strongest),
    "max by dim": (lambda m, x: torch.max(flat_rows(m[0](x)), dim=2, keepdim=True)[0].squeeze(-1), strongest),
    "max pool with indices": (lambda m, x: flat(functional.max_pool2d(m[0](x), 8, return_indices=True)[0]), strongest),
    # sums of several shapes
    "less the mean": (
        lambda m, x: (lambda y: flat(y - y.mean((2, 3), keepdim=True)))(m[0](x)),
        lambda m, x: (lambda y: flat(y - y.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)))(m[0](x)),
    ),
    "a channel added to all": (
        lambda m, x: (lambda y: flat(y[:, :1] + y))(m[0](x)),
        lambda m, x: (lambda y: flat(y + y[:, [0, 0, 0, 0]]))(m[0](x)),
    ),
    # leaky, masked and written
    "the larger of x and a tenth": (
        lambda m, x: (lambda y: flat(torch.maximum(0.1 * y, y)))(m[0](x)),
        lambda m, x: flat(functional.leaky_relu(m[0](x), 0.1)),
    ),
    "the larger of x and twice x": (
        lambda m, x: (lambda y: flat(torch.max(y, 2 * y)))(m[0](x)),
        lambda m, x: flat(functional.leaky_relu(2 * m[0](x), 0.5)),
    ),
    "masked_fill": (lambda m, x: (lambda y: flat(y.masked_fill(y < 0, 0)))(m[0](x)), relu),
    "masked by an index": (lambda m, x: written(m[0](x), lambda y: y < 0), relu),
    "zeros written": (
        lambda m, x: written(m[0](x), lambda y: (slice(None), slice(1, 3), 2)),
        lambda m, x: (lambda y, z: flat(torch.cat([y[:, :1], z, y[:, 3:]], 1)))(
            m[0](x), functional.pad(m[0](x)[:, 1:3, 3:], (0, 0, 3, 0)) + functional.pad(m[0](x)[:, 1:3, :2], (0, 0, 0, 6))
        ),
    ),
    "values written": (
        lambda m, x: (lambda y: written(y, lambda _: (..., slice(4), 0), y[..., 4:, 1]))(m[0](x)),
        lambda m, x: (lambda y: flat(torch.cat([torch.cat([y[..., 4:, 1:2], y[..., 4:, :1]], 2), y[..., 1:]], 3)))(m[0](x)),
    ),
    "pow(1)": (lambda m, x: flat(m[0](x).pow(1) ** 1.0), conv),
    "lerp": (lambda m, x: flat(torch.lerp(m[0](x), m[1](x), 0.25)), lambda m, x: flat(0.75 * m[0](x) + 0.25 * m[1](x))),
    # parts and shapes
    "unfold()": (
        lambda m, x: flat(functional.unfold(m[0](x), 4, stride=4)),
        lambda m, x: flat(m[0](x).view(-1, 4, 2, 4, 2, 4).permute(0, 1, 3, 5, 2, 4)),
    ),
    "Unfold of overlapping windows": (
        lambda m, x: flat(nn.Unfold((3, 2), dilation=(1, 2), padding=1, stride=2)(m[0](x)).view(-1, 4, 3, 2, 4, 4)),
        lambda m, x: (lambda y: flat(y.unfold(2, 3, 2).unfold(3, 3, 2)[..., ::2].permute(0, 1, 4, 5, 2, 3)))(
            functional.pad(m[0](x), (1, 1, 1, 1))
        ),
    ),
    "stacked and averaged": (
        lambda m, x: flat(torch.stack([m[0](x), m[1](x)], 1).mean(1)),
        lambda m, x: flat(0.5 * (m[0](x) + m[1](x))),
    ),
    "sum()": (lambda m, x: flat(sum([m[0](x), m[1](x)])), lambda m, x: flat(m[0](x) + m[1](x))),
    "unbind": (lambda m, x: flat(torch.stack(m[0](x).unbind(1)[:2], 1)), lambda m, x: flat(m[0](x)[:, :2])),
    "narrow": (lambda m, x: flat(m[0](x).narrow(1, 1, 2)), lambda m, x: flat(m[0](x)[:, 1:3])),
    "select": (lambda m, x: flat(m[0](x).select(1, 2)), lambda m, x: flat(m[0](x)[:, 2:3])),
    "one channel": (lambda m, x: flat(m[0](x)[:, 0]), lambda m, x: flat(m[0](x)[:, :1])),
    "one pixel": (lambda m, x: m[0](x)[..., 3, 4], lambda m, x: flat(m[0](x)[:, :, 3:4, 4:5])),
    "split by rows": (lambda m, x: flat(m[0](x).split(3, dim=2)[1]), lambda m, x: flat(m[0](x)[:, :, 3:6])),
    "tensor_split": (lambda m, x: flat(torch.tensor_split(m[0](x), 2, dim=1)[1]), lambda m, x: flat(m[0](x)[:, 2:])),
    "split_with_sizes": (lambda m, x: flat(m[0](x).split_with_sizes([1, 3], 1)[1]), lambda m, x: flat(m[0](x)[:, 1:])),
    "a new dimension and away": (lambda m, x: flat(m[0](x)[:, :, None].squeeze(2).unsqueeze(1)), conv),
    "unflatten": (lambda m, x: flat(m[0](x).flatten(1).unflatten(1, (4, 8, 8)).relu()), relu),
    "grouped view": (lambda m, x: m[0](x).view(-1, 2, 2, 8, 8).relu().reshape(len(x), -1), relu),
    "view_as": (lambda m, x: flat(flat(m[0](x)).view_as(m[1](x)).relu()), relu),
    "permuted twice": (lambda m, x: flat(m[0](x).permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2)), relu),
    # weights
    "einsum, a factor": (
        lambda m, x: flat(torch.einsum("nchw,c->nchw", m[0](x), m[2].weight)),
        lambda m, x: flat(m[0](x) * m[2].weight.view(4, 1, 1)),
    ),
    "einsum, a factor for each column": (
        lambda m, x: flat(torch.einsum("w,nchw->nwch", torch.arange(8.0), m[0](x))),
        lambda m, x: (lambda y: flat(y.permute(0, 3, 1, 2) * torch.arange(8.0).view(8, 1, 1)))(m[0](x)),
    ),
    "einsum, a layer": (
        lambda m, x: flat(torch.einsum("ncl,lk->nck", m[0](x).flatten(2), m[3].weight[:, :64].t())),
        lambda m, x: flat(functional.linear(m[0](x).flatten(2), m[3].weight[:, :64])),
    ),
    "einsum, a layer for each channel": (
        lambda m, x: flat(torch.einsum("nchw,chk->nkc", m[0](x), m[3].weight.view(6, 4, 6, 8).permute(1, 3, 0, 2)[..., 0])),
        lambda m, x: (lambda y: flat(torch.stack([y[:, c] @ m[3].weight.view(6, 4, 6, 8)[:, c, 0].t() for c in range(4)], 2)))(
            m[0](x).sum(3)
        ),
    ),
    "a transposed convolution of stride 1": (
        lambda m, x: flat(functional.conv_transpose2d(m[0](x), m[1].weight.view(4, 3, 3, 3), None, 1, 1)),
        lambda m, x: flat(functional.conv2d(m[0](x), m[1].weight.view(4, 3, 3, 3).transpose(0, 1).flip(2, 3), padding=1)),
    ),
    "matmul": (lambda m, x: torch.matmul(flat(x), m[3].weight.t()) + m[3].bias, linear),
    "@": (lambda m, x: flat(x) @ m[3].weight.T + m[3].bias, linear),
    "addmm": (lambda m, x: torch.addmm(m[3].bias, flat(x), m[3].weight.t()), linear),
    "a layer of one pixel": (
        lambda m, x: m[4](m[3](flat(x))[:, :, None, None]).squeeze(),
        lambda m, x: functional.linear(m[3](flat(x)), m[4].weight.flatten(1), m[4].bias),
    ),
    "conv2d() with padding": (lambda m, x: flat(functional.conv2d(x, m[0].weight, m[0].bias, padding="same")), conv),
    "torch.conv2d by position": (lambda m, x: flat(torch.conv2d(x, m[0].weight, m[0].bias, (1, 1), (1, 1), 1, 1)), conv),
    "add with alpha": (lambda m, x: flat(torch.add(m[0](x), m[1](x), alpha=2)), lambda m, x: flat(m[0](x) + 2 * m[1](x))),
    "sub with alpha": (lambda m, x: flat(m[0](x).sub(m[1](x), alpha=0.5)), lambda m, x: flat(m[0](x) - 0.5 * m[1](x))),
    "numpy numbers": (lambda m, x: flat(np.float64(2) * m[0](x) / np.float32(4)), lambda m, x: flat(0.5 * m[0](x))),
    # what the code may ask for
    "asserts": (lambda m, x: asserting(m[0], x), conv),
    "a loop over channels": (
        lambda m, x: flat(sum(m[0](x)[:, i : i + 1] for i in range(x.shape[1]))),
        lambda m, x: (lambda y: flat(y[:, :1] + y[:, 1:2] + y[:, 2:3]))(m[0](x)),
    ),
    "a list of chunks": (
        lambda m, x: (lambda parts: flat(parts[0] + parts[-1]))(list(m[0](x).chunk(2, 1))),
        lambda m, x: flat(m[0](x)[:, :2] + m[0](x)[:, 2:]),
    ),
    "unpacked": (
        lambda m, x: (lambda a, b, *rest: flat(torch.cat([b, a, *rest], 1)))(*m[0](x).split(1, 1)),
        lambda m, x: (lambda y: flat(torch.cat([y[:, 1:2], y[:, :1], y[:, 2:3], y[:, 3:]], 1)))(m[0](x)),
    ),
    "sizes as numbers": (lambda m, x: m[0](x).view(int(x.size(0)), -1), conv),
    "sizes unpacked": (lambda m, x: (lambda n, c, h, w: m[0](x).reshape(n, 4 * h * w))(*x.shape), conv),
    "a branch on the rank": (lambda m, x: m[0](x) if x.dim() != 4 else flat(m[0](x)), conv),
    "printed": (lambda m, x: flat(m[0](x)) if len(f"{x} {x.shape} {x!r}") else None, conv),
    "what is not used": (lambda m, x: (flat(m[0](x)), x.exp().cumsum(1))[0], conv),
    "modules made in forward": (lambda m, x: nn.Flatten()(nn.ReLU()(m[0](x))), relu),
}


def flat_rows(x: Tensor) -> Tensor:
    return x.flatten(2)


def written(x: Tensor, where: Callable[[Tensor], Any], value: Any = 0) -> Tensor:
    x = x.clone()
    x[where(x)] = value
    return flat(x)


def asserting(layer: nn.Module, x: Tensor) -> Tensor:
    assert x.shape[1] == 3 and x.ndim == 4 and x.is_floating_point() and not x.requires_grad, "not an image"
    assert x.dtype == torch.float32 and x.device.type == "cpu" and isinstance(x, Tensor), "not of the right type"
    if x.shape[2] % 2 or not torch.is_tensor(x) or len(x) < 1:
        raise ValueError("an odd image")
    y: Tensor = layer(x)
    return flat(y)


def graph(function: Function, parts: list[nn.Module]) -> Graph:
    return traced(disturbed(Applied(function, *parts)), gaussian_images(1, 3))


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_another_spelling(spelling: str) -> None:
    torch.manual_seed(0)
    parts, x = modules(), gaussian_images(4, 7).double()
    other, plain = (graph(function, parts) for function in SPELLINGS[spelling])
    expected = run(plain, x)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(run(other, x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(run(activations_first(folded(other)), x), expected, rtol=0, atol=1e-12)


def test_sums_become_factors_of_the_weights_that_follow() -> None:
    torch.manual_seed(0)
    parts = modules()
    found = folded(graph(lambda m, x: m[5](m[0](x).relu().sum((2, 3))), parts))
    assert [node.kind for node in found.nodes] == ["input", "convolution", "activation", "average_pool", "flatten", "linear"]
    torch.testing.assert_close(found.output.tensors["weight"], 64 * parts[5].weight.detach().double(), rtol=0, atol=0)


# The signature of forward


class Optional(nn.Module):
    """``forward`` with arguments that have defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, features: bool = False, **more: Any) -> Any:
        y = self.relu(self.conv(x))
        if mask is not None:
            y = y * mask
        for other in rest:
            y = y + other
        if features:
            return y, y.flatten(1)
        return more or y.flatten(1)


def test_default_arguments_are_bound() -> None:
    torch.manual_seed(0)
    network = Optional().eval()
    x = gaussian_images(3, 7)
    torch.testing.assert_close(run(traced(network, x), x.double()), network(x).double().detach(), rtol=0, atol=1e-6)


def test_a_missing_argument_is_named() -> None:
    class Conditioned(nn.Module):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return flat(x + condition)

    with pytest.raises(InputError, match=r"missing 1 required positional argument: 'condition'"):
        traced(Conditioned().eval(), gaussian_images(1, 0))


# squeeze() and the batch


@pytest.mark.parametrize("images", [1, 2, 4])
def test_squeeze_does_not_depend_on_the_batch_of_the_example(images: int) -> None:
    """With one image the network itself would squeeze the batch away; its graph keeps it."""
    torch.manual_seed(0)
    network = Applied(
        lambda m, x: m[2](m[1](m[0](x)).squeeze()), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)
    ).eval()
    found, x = traced(network, gaussian_images(images, 1)), gaussian_images(5, 2)
    torch.testing.assert_close(run(found, x.double()), network(x).double().detach(), rtol=0, atol=1e-6)
    assert run(found, x[:1].double()).shape == (1, 3)


# The end


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("softmax", nn.Softmax(dim=1)),
        ("softmax", lambda x: functional.softmax(x, -1)),
        ("log_softmax", nn.LogSoftmax(dim=-1)),
        ("log_softmax", lambda x: x.log_softmax(dim=1)),
    ],
)
def test_a_last_softmax_is_left_out(name: str, end: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    network, x = Applied(lambda m, y: end(m[0](y)), body).eval(), gaussian_images(6, 1)
    found = traced(network, x)
    assert found.left_out == (name,) and folded(found).left_out == (name,)
    assert torch.equal(run(found, x.double()), run(traced(body, x), x.double()))
    snn = convert(network, x, thresholds="error", neurons="signed", levels=7, time_steps=8)
    assert snn.facts["left_out"] == [name]
    assert "left_out" not in convert(body, x, thresholds="error", neurons="signed", levels=7, time_steps=8).facts


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.ConvTranspose2d(4, 6, 3, (2, 1), (1, 0), (1, 0), groups=2), (4, 8, 8)),
        (lambda: nn.ConvTranspose2d(4, 6, 2, 3, 1, dilation=2, bias=False), (4, 8, 8)),
        (lambda: nn.ConvTranspose2d(4, 6, 1, 2, 1), (4, 8, 8)),
        (lambda: nn.ConvTranspose1d(4, 6, 4, 2, 1, groups=2), (4, 9)),
    ],
)
def test_transposed_convolutions(layer: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """The comparison of ``traced`` with the network is the test; and an SNN has the layer, too."""
    torch.manual_seed(0)
    network = nn.Sequential(layer(), nn.ReLU(), nn.Flatten()).eval()
    x = torch.randn(4, *shape)
    found = run(activations_first(folded(traced(network, x))), x.double())
    torch.testing.assert_close(found.float(), network(x), rtol=0, atol=1e-5)
