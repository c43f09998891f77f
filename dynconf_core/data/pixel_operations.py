"""Operations on a batch of pixels, each image with its own strength, all on the device that holds them.

All take and return uint8 ``(k, 3, H, W)``. They compute what Pillow's ``ImageOps`` and ``ImageEnhance`` compute, by which
AutoAugment's operations are defined (Cubuk et al., CVPR 2019, arXiv 1805.09501, table 6), up to rounding in the last bit.
"""

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def sources(inverse: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of a sheared, shifted or rotated image comes from: the nearest pixel to ``A (x, y, 1)``.

    Args:
        inverse: A, ``(k, 6)`` float32, row by row; it maps positions in the result to positions in the image. Positions are in
            pixels, measured from the centre of the image.
        height, width: of the image, H and W.

    Returns:
        the source pixel's index, row by row, int64 ``(k, H * W)``, and whether it lies inside the image, uint8 ``(k, H * W)``;
        the index is 0 if it does not.
    """
    row, column = (torch.arange(side, device=inverse.device) - (side - 1) / 2 for side in (height, width))
    a = inverse.view(-1, 2, 3, 1, 1)
    place = a[:, :, 0] * column + a[:, :, 1] * row.unsqueeze(1) + a[:, :, 2]
    x, y = (place[:, 0] + (width - 1) / 2).round_(), (place[:, 1] + (height - 1) / 2).round_()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return y.mul_(width).add_(x).mul_(inside).long().flatten(1), inside.to(torch.uint8).flatten(1)


def moved(pixels: Tensor, source: Tensor, inside: Tensor) -> Tensor:
    """Each pixel replaced by its ``source``, black if that lies outside the image; see ``sources``."""
    found = pixels.flatten(2).gather(2, source.unsqueeze(1).expand(-1, 3, -1))
    return found.mul_(inside.unsqueeze(1)).view_as(pixels)


def looked_up(pixels: Tensor, table: Tensor) -> Tensor:
    """Each value v of channel c replaced by ``table[:, c, v]``, uint8 ``(k, 3 or 1, 256)``."""
    return table.expand(-1, 3, -1).gather(2, pixels.flatten(2).long()).view_as(pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Each channel stretched over the whole range; a channel with a single value is not changed."""
    flat = pixels.flatten(2)
    low, high = flat.amin(2, keepdim=True).float(), flat.amax(2, keepdim=True).float()
    single = low == high
    span = (high - low).masked_fill_(single, 255)
    stretched = (flat.float() - low.masked_fill_(single, 0)).mul_(255).div_(span)
    return stretched.to(torch.uint8).view_as(pixels)


def equalised(pixels: Tensor) -> Tensor:
    """Each channel's histogram, flattened as far as a lookup table can; a channel of almost one value is not changed."""
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
    """Moved away from the image's grey version by ``factor (k,)``: 0 gives grey, 1 changes nothing."""
    return _blended(pixels.float(), _grey(pixels), factor)


def contrasted(pixels: Tensor, factor: Tensor) -> Tensor:
    """Moved away from the mean grey by ``factor (k,)``: 0 gives that grey everywhere, 1 changes nothing."""
    return _blended(pixels.float(), _grey(pixels).mean((1, 2, 3), keepdim=True), factor)


def sharpened(pixels: Tensor, factor: Tensor) -> Tensor:
    """Moved away from the smoothed image by ``factor (k,)``: 0 gives the smoothed image, 1 changes nothing; the border is kept.

    The smoothed image is the mean over 3 x 3 pixels in which the middle one counts five times.
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
    # In this order two equal values blend to themselves; a weighted sum may round just below and lose a whole level.
    away = (image - other).mul_(factor.view(-1, 1, 1, 1))
    return away.add_(other).clamp_(0, 255).to(torch.uint8)
