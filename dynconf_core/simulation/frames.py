"""Frames: an input for each time step, in the place of an image that is the same in all.

Everything before the first neurons is linear, up to rounding to the grid. What arrives over time is therefore what the mean
frame would bring as a constant image, and a network on frames approximates (or settles at) what the ANN computes for the mean
frame. The bounds of exactness are those of images: no frame exceeds the limit on an image, and none acts where an image would
not.
"""

import torch
from torch import Tensor

from dynconf_core.simulation.step_values import gated


def at_steps(frames: Tensor, time_steps: range | Tensor) -> Tensor:
    """The frames ``(k * N, ...)`` of k time steps, one after the other, or of each sample's own step ``(N,)``; 0 after the last
    of ``frames (N, T, ...)``."""
    last = frames.shape[1]
    if isinstance(time_steps, Tensor):
        rows = torch.arange(len(frames), device=frames.device)
        return gated(frames[rows, (time_steps - 1).clamp_max(last - 1)], time_steps <= last)
    found = frames[:, time_steps.start - 1 : time_steps.stop - 1].transpose(0, 1)
    if len(found) < len(time_steps):
        found = torch.cat([found, found.new_zeros(len(time_steps) - len(found), *found.shape[1:])])
    return found.flatten(0, 1)


def mean_frame(frames: Tensor, acting: int, lengths: Tensor | None, settles: bool) -> Tensor:
    """The image ``(N, ...)`` that ``frames (N, T, ...)`` amount to: their mean over the ``acting`` first steps.

    Args:
        frames: floating point.
        acting: the number of first steps in which the input acts.
        lengths: the steps ``(N,)`` after which samples end, from 1; None: all end at T.
        settles: whether the network settles at the sum over ``acting`` steps, so that what a sample lacks counts as 0; else the
            mean of a sample that ends earlier is that of its own frames.
    """
    total = torch.zeros_like(frames[:, 0])
    for step in range(acting):
        total += gated(frames[:, step], present(step + 1, lengths))
    return total / column(divisor(acting, lengths, settles), total)


def present(step: int, lengths: Tensor | None) -> bool | Tensor:
    """Whether samples have not ended before a step, counted from 1: ``(N,)``, or True."""
    return True if lengths is None else lengths >= step


def divisor(acting: int, lengths: Tensor | None, settles: bool) -> int | Tensor:
    """The number of frames whose mean counts, see ``mean_frame``: one number, or ``(N,)``."""
    return acting if lengths is None or settles else lengths.clamp_max(acting)


def column(number: int | Tensor, like: Tensor) -> int | Tensor:
    """A number for each sample, shaped to broadcast with ``like (N, ...)``."""
    return number if isinstance(number, int) else number.view(-1, *([1] * (like.ndim - 1)))
