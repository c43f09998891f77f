"""Augmentation of a batch of pixels, image by image, drawn from one generator on the CPU (the same for every device).

``crop`` pads with black by an eighth of the side and cuts out the original size at a random position; ``flip`` mirrors half of
the images; ``cutout`` blanks a square of half the side (DeVries and Taylor, arXiv 1708.04552). They suit any number of
channels. ``jitter`` changes brightness, contrast and saturation by up to 20 % (a grey image has no saturation);
``autoaugment`` is the policy for CIFAR-10 (``autoaugment.py``), for colour images alone.

The random numbers are drawn on the CPU (``drawn``), can be combined for several batches (``together``), and reach the pixels'
device in one asynchronous transfer (``applied``).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from dynconf_core.data import autoaugment
from dynconf_core.data.images import AUGMENTATIONS, Normalisation
from dynconf_core.errors import InputError

JITTER = 0.2
COLOURS = {"autoaugment": (3,), "jitter": (1, 3)}
"""Numbers of channels of the images that these are for."""

Draws = dict[str, Tensor]
"""The random numbers of each augmentation, by its name: float32 ``(numbers, N)`` on the CPU."""


def augmented(pixels: Tensor, names: Sequence[str], normalisation: Normalisation, generator: torch.Generator) -> Tensor:
    """Augment and normalise ``pixels (N, C, H, W)``, uint8 or decimals, with the augmentations called ``names``, in a fixed
    order.

    Returns:
        float32 ``(N, C, H, W)`` on the device of ``pixels``.

    Raises:
        InputError: for an unknown name, or an augmentation that is not for such images.
    """
    return applied(pixels, drawn(names, len(pixels), pixels.shape[-2], generator), normalisation)


def drawn(names: Sequence[str], count: int, height: int, generator: torch.Generator) -> Draws:
    """The random numbers for ``count`` images of ``height`` pixels.

    Raises:
        InputError: for an unknown name.
    """
    unknown = sorted(set(names) - set(AUGMENTATIONS))
    if unknown:
        raise InputError(f"augmentation {unknown[0]!r} is unknown: choose from {', '.join(AUGMENTATIONS)}.")
    draws: Draws = {}
    if "crop" in names:
        draws["crop"] = torch.randint(0, 2 * _margin(height) + 1, (2, count), generator=generator).float()
    if "flip" in names:
        draws["flip"] = (torch.rand(1, count, generator=generator) < 0.5).float()
    if "autoaugment" in names:
        draws["autoaugment"] = autoaugment.draw(count, generator)
    if "jitter" in names:
        draws["jitter"] = 1 + JITTER * (2 * torch.rand(3, count, generator=generator) - 1)
    if "cutout" in names:
        draws["cutout"] = torch.rand(2, count, generator=generator)
    return draws


def together(batches: Sequence[Draws]) -> Draws:
    """The draws of several batches with the same augmentations, as if for one batch of all their images."""
    return {name: torch.cat([draws[name] for draws in batches], dim=1) for name in batches[0]}


def applied(pixels: Tensor, draws: Draws, normalisation: Normalisation) -> Tensor:
    """Augment ``pixels (N, C, H, W)``, uint8 or decimals, with the random numbers ``draws``, and normalise them.

    Returns:
        float32 ``(N, C, H, W)`` on the device of ``pixels``, which are not changed.

    Raises:
        InputError: for an augmentation that is not for such images.
    """
    check(pixels, tuple(draws))
    decided = dict(draws)
    policy = decided.pop("autoaugment", None)
    arrangement = None if policy is None else autoaugment.arranged(policy)
    here = _sent({**decided, **({} if arrangement is None else arrangement.numbers)}, pixels.device)
    crop, flip, jitter, cutout = (here.get(name) for name in ("crop", "flip", "jitter", "cutout"))
    if crop is not None:
        pixels = _cropped(pixels, crop, flip)
    elif flip is not None:
        pixels = torch.where(flip.view(-1, 1, 1, 1) > 0, pixels.flip(-1), pixels)
    if arrangement is not None:
        numbers = {name: here[name] for name in arrangement.numbers}
        pixels = autoaugment.autoaugmented(pixels, replace(arrangement, numbers=numbers))
    if jitter is not None:
        pixels = _jittered(pixels, jitter)
    images = normalisation(pixels)
    return images if cutout is None else _cut_out(images, cutout)


def check(pixels: Tensor, names: Sequence[str]) -> None:
    """Raise ``InputError`` unless the augmentations called ``names`` can be done to such images."""
    for name in names:
        if pixels.ndim != 4:
            raise InputError(
                f"augmentation {name!r} is for images; the shape of these data is {tuple(pixels.shape)}: leave it out."
            )
        if name in COLOURS and (pixels.shape[1] not in COLOURS[name] or pixels.dtype != torch.uint8):
            channels = " or ".join(map(str, COLOURS[name]))
            raise InputError(
                f"augmentation {name!r} is for uint8 images of {channels} channels; these are "
                f"{pixels.dtype} and have {pixels.shape[1]}: leave it out."
            )


def _margin(height: int) -> int:
    return height // 8


def _sent(draws: Draws, device: torch.device) -> Draws:
    """``draws`` on ``device``, sent as one tensor from pinned memory, so that the CPU does not wait."""
    if device.type == "cpu" or not draws:
        return draws
    packed = torch.cat([part.flatten() for part in draws.values()])
    pinned = packed.pin_memory() if device.type == "cuda" else packed
    parts = pinned.to(device, non_blocking=True).split([part.numel() for part in draws.values()])
    return {name: part.view_as(draw) for (name, draw), part in zip(draws.items(), parts, strict=True)}


def _cropped(pixels: Tensor, offsets: Tensor, flip: Tensor | None) -> Tensor:
    """Cut out of the padded images at ``offsets (2, N)``, mirrored where ``flip (1, N)`` is 1."""
    height, width = pixels.shape[-2:]
    margin = _margin(height)
    padded = pad(pixels, (margin, margin, margin, margin))
    row, column = (torch.arange(side, dtype=torch.float32, device=pixels.device) for side in (height, width))
    across = column if flip is None else torch.where(flip.view(-1, 1) > 0, column.flip(0), column)
    rows, columns = offsets[0].unsqueeze(1) + row, offsets[1].unsqueeze(1) + across
    source = (rows.unsqueeze(2) * padded.shape[-1] + columns.unsqueeze(1)).long().flatten(1)
    return padded.flatten(2).gather(2, source.unsqueeze(1).expand(-1, pixels.shape[1], -1)).view(pixels.shape)


def _jittered(pixels: Tensor, factors: Tensor) -> Tensor:
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1)
    images = pixels.float() * brightness
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey.mean(dim=(2, 3), keepdim=True).expand_as(images), images, contrast)
    images = torch.lerp(images.mean(dim=1, keepdim=True).expand_as(images), images, saturation)
    return images.round().clamp(0, 255).to(torch.uint8)


def _cut_out(images: Tensor, centre: Tensor) -> Tensor:
    count, _, height, width = images.shape
    half = height // 4
    row, column = (
        torch.arange(side, device=images.device) - (middle.view(count, 1) * side).floor()
        for side, middle in zip((height, width), centre, strict=True)
    )
    blank = ((row >= -half) & (row < half))[:, :, None] & ((column >= -half) & (column < half))[:, None, :]
    return images.mul_(blank.logical_not_().unsqueeze(1).to(images.dtype))
