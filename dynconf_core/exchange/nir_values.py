"""Values of NIR's nodes, from numpy, torch or plain Python, as those of ours; ``ValueError`` for what is none."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynconf_core.errors import InputError

MOST = 2**31
"""The largest whole number of a setting."""


def numbers(values: Any, what: str, kind: Any = np.float32) -> Tensor:
    """Finite numbers, at least one, of the type ``kind``."""
    plain = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if plain.dtype.kind not in "fiu" or not plain.size:
        raise ValueError(f"{what} is no array of numbers")
    found = torch.from_numpy(np.array(plain, dtype=kind))
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"{what} is not finite")
    return found


def number(value: Any, what: str) -> float:
    """One finite number."""
    found = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if found.dtype.kind not in "fiu" or found.size != 1 or not abs(float(found.reshape(()))) < MOST:
        raise ValueError(f"{what} is no number")
    return float(found.reshape(()))


def flag(value: Any) -> bool:
    """A truth value."""
    return bool(np.asarray(value).reshape(-1)[:1].any())


def pair(value: Any, what: str, least: int = 1) -> tuple[int, int]:
    """Two whole numbers, of one or two."""
    found = [number(one, what) for one in np.asarray(value.cpu() if isinstance(value, Tensor) else value).reshape(-1)]
    if len(found) not in (1, 2) or any(one != int(one) or one < least for one in found):
        raise ValueError(f"{what} is {value}, not one or two whole numbers of at least {least}")
    return int(found[0]), int(found[-1])


def conv_padding(value: Any, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    """A convolution's padding, which may be "same" or "valid"."""
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        return pair(value, "padding", 0)
    if text == "valid":
        return 0, 0
    spans = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
    if text != "same" or any(span % 2 for span in spans) or tuple(stride) != (1, 1):
        raise ValueError(f"padding={text!r} of a kernel {tuple(kernel)} is not the same on both sides; give numbers")
    return spans[0] // 2, spans[1] // 2


def shape_of(value: Any, name: str) -> tuple[int, ...]:
    """The shape of an input, for one sample."""
    found = tuple(int(number(side, "a side")) for side in np.asarray(value).reshape(-1))
    if not 1 <= len(found) <= 3 or any(side < 1 for side in found):
        raise InputError(f"node {name!r} has the shape {found}: give that of one sample, (C, H, W) or (F,).")
    return found


def by_channel(values: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """One number, or one per channel.

    Args:
        values: one number, one per channel, or one per neuron of ``shape``.
        shape: of one sample.
        what: what they are, for messages.

    Raises:
        ValueError: if they have another shape, or differ within a channel.
    """
    if values.numel() == 1:
        return values.reshape(())
    if values.numel() == shape[0]:
        found = values.reshape(-1)
    elif values.numel() == math.prod(shape):
        rows = values.reshape(shape[0], -1)
        if not bool((rows == rows[:, :1]).all()):
            raise ValueError(f"{what} differs between the neurons of a channel; only one value per channel can be simulated")
        found = rows[:, 0].clone()
    else:
        raise ValueError(f"{what} has {values.numel()} values for neurons of the shape {shape}")
    return found[0] if bool((found == found[0]).all()) else found
