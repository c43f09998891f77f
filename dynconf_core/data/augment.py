"""Augmentation of a batch of pixels, each image for itself, drawn from one generator on the CPU (the same everywhere).

``crop`` pads by an eighth of the side with black and cuts the original size out at a random place; ``flip`` mirrors half
of the images; ``autoaugment`` is CIFAR-10's policy (Cubuk et al., CVPR 2019, arXiv 1805.09501), one of its sub-policies
drawn for every eight images together; ``jitter`` changes brightness, contrast and saturation by up to 20 %; ``cutout``
blanks a square of half the side (DeVries and Taylor, arXiv 1708.04552).
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError

AUGMENTATIONS = ("crop", "flip", "autoaugment", "jitter", "cutout")
POLICY_GROUP = 8
JITTER = 0.2

_torch_random = threading.Lock()


def augmented(pixels: Tensor, names: Sequence[str], normalisation: Normalisation, generator: torch.Generator) -> Tensor:
    """Augment and normalise uint8 ``pixels (N, 3, H, W)`` with the augmentations called ``names``, in a fixed order.

    Returns:
        float32 ``(N, 3, H, W)`` on the device of ``pixels``.

    Raises:
        InputError: for an unknown name.
    """
    unknown = sorted(set(names) - set(AUGMENTATIONS))
    if unknown:
        raise InputError(f"augmentation {unknown[0]!r} is unknown: choose from {', '.join(AUGMENTATIONS)}.")
    if "crop" in names:
        pixels = _crop(pixels, generator)
    if "flip" in names:
        flipped = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(flipped.to(pixels.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    if "autoaugment" in names:
        pixels = _autoaugment(pixels, generator)
    if "jitter" in names:
        pixels = _jitter(pixels, generator)
    images = normalisation(pixels)
    return _cutout(images, generator) if "cutout" in names else images


def _crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = pixels.shape
    margin = height // 8
    padded = pad(pixels, (margin, margin, margin, margin))
    offsets = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height)).to(pixels.device)
    columns = (offsets[1] + torch.arange(width)).to(pixels.device)
    image = torch.arange(count, device=pixels.device).view(-1, 1, 1)
    cut = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)


def _autoaugment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    from dynconf_core.torchvision_import import transforms

    policy = transforms().AutoAugment(transforms().AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    # torchvision draws from torch's global generator, which all threads share: seeded and restored under a lock.
    with _torch_random, torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return torch.cat([policy(group) for group in pixels.split(POLICY_GROUP)])


def _jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    factors = 1 + JITTER * (2 * torch.rand(3, len(pixels), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(pixels.device)
    images = pixels.float() * brightness
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey.mean(dim=(2, 3), keepdim=True).expand_as(images), images, contrast)
    images = torch.lerp(images.mean(dim=1, keepdim=True).expand_as(images), images, saturation)
    return images.round().clamp(0, 255).to(torch.uint8)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    half = height // 4
    centre = torch.rand(2, count, 1, generator=generator).to(images.device)
    row, column = (
        torch.arange(side, device=images.device) - (middle * side).floor()
        for side, middle in zip((height, width), centre, strict=True)
    )
    blank = ((row >= -half) & (row < half))[:, :, None] & ((column >= -half) & (column < half))[:, None, :]
    return images.masked_fill(blank[:, None], 0.0)
