"""Operations on a batch of pixels, each image with a strength of its own and none moved between devices.

All take and give uint8 ``(k, 3, H, W)``. They compute what Pillow's ``ImageOps`` and ``ImageEnhance`` compute, after which
AutoAugment's operations are defined (Cubuk et al., CVPR 2019, arXiv 1805.09501, table 6), up to a rounding in the last bit.
"""

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def sources(inverse: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of a sheared, shifted or turned image comes from: the nearest pixel at ``A (x, y, 1)``.

    Args:
        inverse: A, ``(k, 6)`` float32, row by row, from places in the result to places in the image; places are in pixels,
            counted from the middle of the image.
        height, width: of the image, H and W.

    Returns:
        its number, row by row, int64 ``(k, H * W)``, and whether it lies in the image at all, uint8 ``(k, H * W)``; the number
        is 0 where it does not.
    """
    row, column = (torch.arange(side, device=inverse.device) - (side - 1) / 2 for side in (height, width))
    a = inverse.view(-1, 2, 3, 1, 1)
    place = a[:, :, 0] * column + a[:, :, 1] * row.unsqueeze(1) + a[:, :, 2]
    x, y = (place[:, 0] + (width - 1) / 2).round_(), (place[:, 1] + (height - 1) / 2).round_()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return y.mul_(width).add_(x).mul_(inside).long().flatten(1), inside.to(torch.uint8).flatten(1)


def moved(pixels: Tensor, source: Tensor, inside: Tensor) -> Tensor:
    """Each pixel taken from its ``source``, black where there is none; see ``sources``."""
    found = pixels.flatten(2).gather(2, source.unsqueeze(1).expand(-1, 3, -1))
    return found.mul_(inside.unsqueeze(1)).view_as(pixels)


def looked_up(pixels: Tensor, table: Tensor) -> Tensor:
    """Each value v of channel c replaced by ``table[:, c, v]``, uint8 ``(k, 3 or 1, 256)``."""
    return table.expand(-1, 3, -1).gather(2, pixels.flatten(2).long()).view_as(pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Each channel stretched over the whole range; one of a single value stays."""
    flat = pixels.flatten(2)
    low, high = flat.amin(2, keepdim=True).float(), flat.amax(2, keepdim=True).float()
    single = low == high
    span = (high - low).masked_fill_(single, 255)
    stretched = (flat.float() - low.masked_fill_(single, 0)).mul_(255).div_(span)
    return stretched.to(torch.uint8).view_as(pixels)


def equalised(pixels: Tensor) -> Tensor:
    """Each channel's histogram made as flat as a table of values can; a channel of almost one value stays."""
    flat = pixels.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=pixels.device)
    counts.scatter_add_(2, flat, torch.ones((), dtype=torch.int32, device=pixels.device).expand_as(flat))
    brightest = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - brightest).div_(255, rounding_mode="floor")
    below = counts.cumsum(2, dtype=torch.int32).sub_(counts)
    table = (below + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, dtype=torch.int32, device=pixels.device))
    return table.to(torch.uint8).gather(2, flat).view_as(pixels)


def coloured(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's grey by ``factor (k,)``: 0 is grey, 1 changes nothing."""
    return _blended(pixels.float(), _grey(pixels), factor)


def contrasted(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey by ``factor (k,)``: 0 is that grey everywhere, 1 changes nothing."""
    return _blended(pixels.float(), _grey(pixels).mean((1, 2, 3), keepdim=True), factor)


def sharpened(pixels: Tensor, factor: Tensor) -> Tensor:
    """Away from the smoothed image by ``factor (k,)``: 0 is smooth, 1 changes nothing; the border stays.

    Smooth is the mean over 3 x 3 pixels, the middle one counted five times.
    """
    image = pixels.float()
    inner = image[..., 1:-1, 1:-1]
    rows = (image[..., :-2, :] + image[..., 1:-1, :]).add_(image[..., 2:, :])
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4).div_(13).round_()
    found = pixels.clone()
    found[..., 1:-1, 1:-1] = _blended(inner, smooth, factor)
    return found


def _grey(pixels: Tensor) -> Tensor:
    """``(k, 1, H, W)``, whole numbers."""
    red, green, blue = pixels.float().split(1, dim=1)
    grey: Tensor = red * GREY[0]
    return grey.add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).floor_()


def _blended(image: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    # In this order, equal values give that value: a weighted sum of them falls below it by a rounding, and loses a whole level.
    away = (image - other).mul_(factor.view(-1, 1, 1, 1))
    return away.add_(other).clamp_(0, 255).to(torch.uint8)
