"""Positions in a channel, spread over the image, that stand for all of them where a statistic would take long on all."""

import torch
from torch import Tensor


def spread(available: int, wanted: int) -> Tensor:
    """``wanted`` of the positions 0 to ``available`` - 1, at least one; all of them, in order, if no more are available.

    One lies in each of as many equal shares, at random within it, so that no stride meets a pattern.
    """
    count = min(available, max(1, wanted))
    if count == available:
        return torch.arange(available)
    edges = torch.arange(count, dtype=torch.float64) + torch.rand(count, generator=torch.Generator().manual_seed(0)).double()
    return (edges * available / count).long()


def at(values: Tensor, chosen: Tensor) -> Tensor:
    """``values (n, C, ...)`` at the same positions of each channel, ``(n, C, len(chosen))``."""
    flat = values.flatten(2) if values.ndim > 2 else values[..., None]
    return flat if len(chosen) == flat.shape[-1] else flat[..., chosen.to(values.device)]
