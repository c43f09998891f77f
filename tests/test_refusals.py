"""What cannot be exact is refused by name, with the reason and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_forms import Applied
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.errors import InputError
from dynconf_core.graph import calls, refusals
from dynconf_core.graph.trace import traced


def message(network: nn.Module) -> str:
    with pytest.raises(InputError) as raised:
        traced(network.eval(), gaussian_images(1, 0))
    return str(raised.value)


CONVOLUTION = nn.Conv2d(3, 4, 3, padding=1)
MODULES: dict[str, nn.Module] = {
    **{
        name: getattr(nn, name)()
        for name in ("SiLU", "Hardswish", "GELU", "Mish", "ELU", "CELU", "SELU", "Softplus", "LogSigmoid")
    },
    **{name: getattr(nn, name)() for name in ("Sigmoid", "Tanh", "Softsign", "Tanhshrink", "Softmax2d")},
    **{name: getattr(nn, name)(1) for name in ("Softmax", "LogSoftmax", "Softmin", "GLU", "LocalResponseNorm")},
    "LayerNorm": nn.LayerNorm([4, 8, 8]),
    "RMSNorm": nn.RMSNorm([8]),
    "GroupNorm": nn.GroupNorm(2, 4),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    refusal = refusals.REFUSED[name]
    behind = [nn.ReLU(), nn.Conv2d(2 if name == "GLU" else 4, 2, 1)]  # a softmax at the end is another matter
    said = message(nn.Sequential(CONVOLUTION, MODULES[name], *behind, nn.Flatten()))
    assert said.startswith(f"{name} at '1' cannot be converted: {refusal.reason}; {refusal.instead}")


def squeezed_and_excited(x: Tensor) -> Tensor:
    return x * functional.hardsigmoid(x.mean((2, 3), keepdim=True))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "layer_norm": lambda x: functional.layer_norm(x, [8]),
    "group_norm": lambda x: functional.group_norm(x, 2),
    "softmax": lambda x: x.flatten(2).softmax(2).view_as(x),
    "normalize": functional.normalize,
    "bmm": lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
    "matmul": lambda x: torch.matmul(x, x),
    "scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "exp": torch.exp,
    "sqrt": lambda x: x.sqrt(),
    "pow": lambda x: x.pow(2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_methods(name: str) -> None:
    refusal = refusals.REFUSED[name]
    network = Applied(lambda m, x: m[1](FUNCTIONS[name](m[0](x)).relu()), CONVOLUTION, nn.Flatten())
    assert f"cannot be converted: {refusal.reason}; {refusal.instead}" in message(network)


def test_products_of_activations() -> None:
    assert "a product of two activations has no spiking counterpart" in message(
        Applied(lambda m, x: squeezed_and_excited(m[0](x)).flatten(1), CONVOLUTION)
    )


def test_every_name_is_one_of_pytorch() -> None:
    """A slip of the pen would refuse nothing."""
    known = {kind.__name__ for kind in refusals.MODULES} | set(refusals.METHODS)
    known |= {name for name in refusals.REFUSED if any(hasattr(room, name) for room in (functional, torch))}
    assert known >= set(refusals.REFUSED)
    assert not [kind for kind in refusals.MODULES if any(issubclass(kind, other) for other in _translated())]
    assert all(re.fullmatch(r"[^A-Z].*[^.]", text) for refusal in refusals.REFUSED.values() for text in refusal)


def _translated() -> list[Any]:
    return [kind for kind, make in calls.MODULES.items() if kind not in refusals.MODULES]
