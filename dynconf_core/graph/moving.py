"""Translation of calls that move values without changing them: slices, selections and reshapes.

Each call is run on the positions of the values, so that its spelling does not matter: what it yields is another shape for the
same order, or a slice of the node's channels, rows and columns.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph.writing import Refused, Traced, Writer, viewed

Movement = Callable[..., Any]


def moves(function: Movement) -> Callable[..., Any]:
    """The translation of a function of PyTorch that moves values."""

    def translate(write: Writer, name: str, x: Traced, *arguments: Any, **keywords: Any) -> Any:
        if not isinstance(x, Traced) or any(isinstance(one, Traced) for one in (*arguments, *keywords.values())):
            raise Refused("its indices depend on the network's input")
        batch, count = len(x.value), math.prod(x.shape)
        # float64 holds every position, and more functions take it than take int64.
        positions = torch.arange(batch * count, dtype=torch.float64).view(batch, *x.shape)
        results = function(positions, *arguments, **keywords)
        if isinstance(results, Tensor):
            return _moved(write, name, x, _of_one_sample(results, batch, count))
        parts = [_of_one_sample(part, batch, count) for part in results]
        return tuple(_moved(write, f"{name}.{i}", x, part) for i, part in enumerate(parts))

    SHAPED.add(translate)
    return translate


SHAPED = set[Callable[..., Any]]()
"""Translations that take reshaped values as they are."""


def reshaped(write: Writer, name: str, x: Traced, shape: tuple[int, ...]) -> Traced:
    """The value in another shape for one sample, the order kept."""
    if shape == x.shape:
        return x
    node = write.node(x)
    if node.kind == "flatten" and len(shape) > 1:
        x = write.stored(node.inputs[0])
    if shape == x.stored:
        return write.stored(x.name)
    if len(shape) == 1:
        return write.add(name, "flatten", (write.stored(x.name),))
    return viewed(x, shape)


def shaped_as(write: Writer, name: str, x: Any, other: Any) -> Traced:
    """The value in the shape of another one."""
    shape = other.shape if isinstance(other, Traced) else tuple(other.shape[1:])
    if not isinstance(x, Traced) or math.prod(shape) != math.prod(x.shape):
        raise Refused("it repeats values")
    return reshaped(write, name, x, shape)


def _of_one_sample(results: Tensor, batch: int, count: int) -> Tensor:
    """The positions that a sample's values come from, int64."""
    positions = results.long()
    if positions.numel() == 0:
        raise Refused(f"its result is empty, of shape {tuple(positions.shape)}")
    starts = torch.arange(len(positions) if positions.ndim else 0).view(-1, *[1] * (positions.ndim - 1)) * count
    if positions.ndim == 0 or len(positions) != batch or not torch.equal(positions, positions[:1] + starts):
        raise Refused(
            "it mixes the samples of a batch or takes some of them; only slices of channels, rows and columns, "
            "x[:, a:b, ::2, ::2], are supported, and the first dimension stays the batch"
        )
    return positions[0]


def _moved(write: Writer, name: str, x: Traced, positions: Tensor) -> Traced:
    shape = tuple(positions.shape)
    flat = positions.flatten()
    if len(flat) == math.prod(x.shape) and bool((flat == torch.arange(len(flat))).all()):
        return reshaped(write, name, x, shape)
    bounds = _slices(flat, x.stored)
    if bounds is None:
        raise Refused(
            "it changes the order of the values or repeats them; only slices of channels, rows and columns are supported"
        )
    sliced = write.add(name, "slice", (write.stored(x.name),), {"slices": bounds})
    return reshaped(write, f"{name}.flatten", sliced, shape)


def _slices(positions: Tensor, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...] | None:
    """(start, stop, step) for each dimension, if the positions are those of a slice of the shape, in order; else None."""
    found, grid, rest = [], torch.zeros(1, dtype=torch.int64), positions
    for size, inner in zip(shape, [math.prod(shape[i + 1 :]) for i in range(len(shape))], strict=True):
        along = torch.unique(rest // inner)
        rest = rest % inner
        steps = torch.diff(along).unique()
        if len(steps) > 1:
            return None
        step = int(steps[0]) if len(steps) else 1
        whole = len(along) == size
        found.append((0, size, 1) if whole else (int(along[0]), int(along[-1]) + 1, step))
        grid = (grid.view(-1, 1) + along * inner).flatten()
        if len(grid) > len(positions):
            return None
    return tuple(found) if torch.equal(grid, positions) else None
