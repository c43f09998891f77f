"""Translation of means, sums and maxima over the image or over stacked tensors into graph nodes."""

import math
from typing import Any

from dynconf_core.graph.arrangement import multiply
from dynconf_core.graph.moving import reshaped
from dynconf_core.graph.writing import Refused, Traced, Writer, viewed

OVER = (
    "only the mean over the image, mean((2, 3)), over its rows or its columns, or over stacked tensors is supported (sums "
    "likewise, and the maximum over the image); write a mean over the channels as a 1 x 1 convolution with equal weights"
)

STACKED = 64
"""The most tensors in a stack whose sum becomes additions."""


def mean(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False, **words: Any) -> Traced:
    """The mean over the image: a global pool."""
    dims, shape = _dimensions(x, dim, keepdim)
    if dims == [1] and _stacked(x):
        return _finished(write, name, _over_stacked(write, name, x, 1 / x.shape[0]), shape)
    return _finished(write, name, _pooled(write, name, x, dims, "average_pool"), shape)


def total(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False, **words: Any) -> Traced:
    """The sum over the image: a global pool times its area."""
    dims, shape = _dimensions(x, dim, keepdim)
    if dims == [1] and _stacked(x):
        return _finished(write, name, _over_stacked(write, name, x, 1.0), shape)
    pooled = _pooled(write, name, x, dims, "average_pool")
    area = math.prod(x.shape[d - 1] for d in dims)
    return _finished(write, name, pooled if area == 1 else multiply(write, f"{name}.area", pooled, float(area)), shape)


def maximum(write: Writer, name: str, x: Traced, dim: Any = None, keepdim: bool = False) -> Traced:
    """The maximum over the image: a global max pool."""
    dims, shape = _dimensions(x, dim, keepdim)
    return _finished(write, name, _pooled(write, name, x, dims, "max_pool"), shape)


def _dimensions(x: Traced, dim: Any, keepdim: bool) -> tuple[list[int], tuple[int, ...]]:
    """The dimensions, from 1 for the channels, and the shape that is left of one sample."""
    rank = x.value.ndim
    given = range(rank) if dim is None or dim == () or dim == [] else (dim,) if isinstance(dim, int) else dim
    dims = sorted({int(d) % rank for d in given})
    if not dims or dims[0] == 0:
        raise Refused(OVER)
    left = [(1 if d in dims else size) for d, size in enumerate(x.value.shape) if d and (keepdim or d not in dims)]
    return dims, tuple(left)


def _pooled(write: Writer, name: str, x: Traced, dims: list[int], kind: str) -> Traced:
    """Rows, columns or both of the node's image pooled to one."""
    stored = x.stored
    if len(stored) == 1 and all(x.shape[d - 1] == 1 for d in dims):
        return write.stored(x.name)
    if len(stored) != 3 or 1 in dims or x.shape[0] != stored[0]:
        raise Refused(OVER)
    if x.shape == stored:
        kernel = (stored[1] if 2 in dims else 1, stored[2] if 3 in dims else 1)
    elif all(d + 2 in dims or size == 1 for d, size in enumerate(x.shape[1:])):
        kernel = stored[1:]
    else:
        raise Refused(OVER)
    image = write.stored(x.name)
    if kernel == (1, 1):
        return image
    settings: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": (0, 0)}
    if kind == "max_pool":
        settings |= {"dilation": (1, 1), "ceil_mode": False}
    return write.add(name, kind, (image,), settings)


def _stacked(x: Traced) -> bool:
    """Whether the first dimension counts tensors that stand beside each other as channels."""
    return x.node_shape is not None and x.shape[0] <= STACKED and x.stored[0] % x.shape[0] == 0


def _over_stacked(write: Writer, name: str, x: Traced, factor: float) -> Traced:
    channels = x.stored[0] // x.shape[0]
    whole, image = write.stored(x.name), [(0, size, 1) for size in x.stored[1:]]
    bounds = [(i * channels, (i + 1) * channels, 1) for i in range(x.shape[0])]
    parts = [write.add(f"{name}.{i}", "slice", (whole,), {"slices": (channel, *image)}) for i, channel in enumerate(bounds)]
    added = write.add(name, "add", tuple(parts)) if len(parts) > 1 else parts[0]
    return added if factor == 1 else multiply(write, f"{name}.factor", added, factor)


def _finished(write: Writer, name: str, x: Traced, shape: tuple[int, ...]) -> Traced:
    """The result in the shape that the network sees."""
    if math.prod(shape) != math.prod(x.stored):
        raise Refused(OVER)
    return x if shape == x.shape else reshaped(write, f"{name}.flatten", viewed(x, x.stored), shape)
