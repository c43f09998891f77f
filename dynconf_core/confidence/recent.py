"""r_t, an average of the outputs that follows the last few steps: each step has half the weight of the next one."""

from __future__ import annotations

import torch
from torch import Tensor


def next_recent(recent: Tensor, logits: Tensor) -> Tensor:
    """r_t (..., C) from r_{t-1} and the logits of step t, all float64; r_0 is 0."""
    return (recent + logits) * 0.5


def recent_average(logits: Tensor) -> Tensor:
    """r (n, T, C) float64 from the logits (n, T, C) of each step."""
    averages = torch.empty_like(logits)
    recent = torch.zeros_like(logits[:, 0])
    for step in range(logits.shape[1]):
        recent = next_recent(recent, logits[:, step])
        averages[:, step] = recent
    return averages
