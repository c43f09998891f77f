"""Checks of the images, frames and time steps that a network is asked to simulate."""

import torch
from torch import Tensor

from dynconf_core.arguments import tensor, whole
from dynconf_core.errors import InputError
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.wording import counted, told


def check_time_steps(time_steps: int, limit: int | None) -> None:
    """Raise ``InputError`` if T is no whole number, below 1, or above ``limit``, up to which exactness is proven (None: without
    fixed-point weights)."""
    time_steps = whole("time_steps", time_steps, "give the number of time steps, such as 16")
    if time_steps < 1:
        raise InputError(f"time_steps={time_steps}: an SNN needs at least one.")
    if limit is not None and time_steps > limit:
        raise InputError(
            f"time_steps={time_steps}: the fixed-point weights are proven exact for up to {limit}; convert with "
            f"time_steps={time_steps}, or with fixed_point=False (--no-fixed-point)."
        )


def check_images(images: Tensor, shape: tuple[int, ...], limit: float | None) -> None:
    """Raise ``InputError`` unless images ``(N, *shape)`` or frames ``(N, T, *shape)`` are finite and at most ``limit``, up to
    which exactness is proven (None: without fixed-point weights)."""
    if not isinstance(images, Tensor):
        raise InputError(f"{told('images', images)}: give a tensor, as torch.from_numpy makes of an array, normalised.")
    tensor("images", images, "give dense numbers")
    if images.is_complex() or images.dtype == torch.bool:
        raise InputError(f"the images are {images.dtype}: give floating-point numbers, as by images.float().")
    if tuple(images.shape[1:]) != shape and tuple(images.shape[2:]) != shape:
        raise InputError(
            f"the images have the shape {tuple(images.shape[1:])}, but the network was converted for {shape}: convert it with "
            f"an image of this shape, or give frames (N, T, {', '.join(map(str, shape))}), one for each time step."
        )
    largest = float(images.abs().max()) if images.numel() else 0.0
    if not largest < float("inf"):
        raise InputError("the images hold NaN or infinite values: normalise them as in training.")
    if limit is not None and largest > limit:
        raise InputError(
            f"the images reach {largest:.4g}, but the fixed-point weights are proven exact up to {limit:.4g}: normalise them "
            "as in training, or convert with image_limit=... or fixed_point=False (--no-fixed-point)."
        )


def check_frames(frames: Tensor, time_steps: int, acting: int, neurons: NeuronModel) -> None:
    """Raise ``InputError`` if there are fewer ``frames (N, T', ...)`` than first steps in which the input acts (``acting``), or
    if later ones within ``time_steps`` are not 0."""
    given = frames.shape[1]
    if given < acting:
        raise InputError(
            f"there are frames for {counted(given, 'time step')}, but the input acts in {acting}: give one for each, of zeros "
            "where nothing arrives."
        )
    if bool(frames[:, acting:time_steps].any()):
        raise InputError(
            f"frames beyond step {acting} are not 0: with {neurons} neurons the input acts in the first {acting} time steps "
            f"only. Divide each recording into {acting} frames, or convert with neurons='integrate-and-fire'."
        )
