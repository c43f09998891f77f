"""AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, arXiv 1805.09501, table 7).

For every image one of 25 sub-policies is drawn: two operations, one after the other, each with a probability and a magnitude
from 0 to 9. Which operation an image gets is decided on the CPU, where the random numbers are drawn, so that a GPU works on
parts of known size and the CPU never waits for it. The operations on the pixels are in ``pixel_operations.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from dynconf_core.data import pixel_operations

Step = tuple[str, float, int | None]
"""An operation, its probability, and its magnitude (None if it has none)."""

POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)
GEOMETRY = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
TABLE = ("Brightness", "Posterize", "Solarize", "Invert")
"""Operations that replace each pixel value by another, regardless of the rest of the image."""
BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Color": pixel_operations.coloured,
    "Contrast": pixel_operations.contrasted,
    "Sharpness": pixel_operations.sharpened,
}
STRETCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "AutoContrast": pixel_operations.autocontrast,
    "Equalize": pixel_operations.equalised,
}
KINDS = ("nothing", "geometry", "table", *BLENDS, *STRETCHES)


@dataclass(frozen=True)
class Arrangement:
    """The images sorted by the operation applied to them, for the first and for the second operation ("turn").

    Attributes:
        numbers: "order0", "entry0", "order1", "entry1" and "back", each float32 ``(1, N)`` holding whole numbers. Per turn: the
            permutation that sorts the images by kind of operation, starting from the previous order, and the policy's entry for
            each image in the new order. "back" restores the original order.
        sizes: per turn, the number of images for each of ``KINDS``.
    """

    numbers: dict[str, Tensor]
    sizes: tuple[list[int], list[int]]


def draw(count: int, generator: torch.Generator) -> Tensor:
    """The random numbers for ``count`` images, float32 ``(5, count)``: the sub-policy; for its first and second operation, a
    number in [0, 1) that decides whether the operation is applied; and for both, 1 if its magnitude is negative, else 0."""
    policy = torch.randint(len(POLICY), (1, count), generator=generator)
    applied = torch.rand(2, count, generator=generator)
    negative = torch.rand(2, count, generator=generator) < 0.5
    return torch.cat([policy.float(), applied, negative.float()])


def arranged(drawn: Tensor) -> Arrangement:
    """Sort what ``draw`` returned by operation; on the CPU, because the sizes must be known."""
    policy, negative = drawn[0].long(), drawn[3:].long()
    images = torch.arange(len(policy))
    numbers: dict[str, Tensor] = {}
    sizes: list[list[int]] = []
    for turn in (0, 1):
        applied = drawn[1 + turn] < _probabilities()[policy, turn]
        kind = _kinds()[policy, turn] * applied
        entry = (policy * 2 + turn) * 2 + negative[turn]
        order = kind[images].argsort(stable=True)
        images = images[order]
        numbers |= {f"order{turn}": order, f"entry{turn}": entry[images]}
        sizes.append(kind.bincount(minlength=len(KINDS)).tolist())
    numbers["back"] = images.argsort()
    return Arrangement({name: values.float().unsqueeze(0) for name, values in numbers.items()}, (sizes[0], sizes[1]))


def autoaugmented(pixels: Tensor, arrangement: Arrangement) -> Tensor:
    """Apply both operations to uint8 ``pixels (N, 3, H, W)``, on the device that holds them and the numbers of
    ``arrangement``."""
    numbers = {name: values[0].long() for name, values in arrangement.numbers.items()}
    for turn, sizes in enumerate(arrangement.sizes):
        parts = pixels.index_select(0, numbers[f"order{turn}"]).split(sizes)
        entries = numbers[f"entry{turn}"].split(sizes)
        done = zip(KINDS, parts, entries, strict=True)
        pixels = torch.cat([_done(kind, part, entry) for kind, part, entry in done if len(part)])
    return pixels.index_select(0, numbers["back"])


def _done(kind: str, pixels: Tensor, entry: Tensor) -> Tensor:
    """Apply one kind of operation to ``pixels (k, 3, H, W)``, each image with its ``entry (k,)`` of the policy."""
    if kind == "nothing":
        return pixels
    if kind == "geometry":
        source, inside = _sources(*pixels.shape[-2:], pixels.device)
        return pixel_operations.moved(pixels, source.index_select(0, entry), inside.index_select(0, entry))
    if kind == "table":
        return pixel_operations.looked_up(pixels, _tables(pixels.device).index_select(0, entry).unsqueeze(1))
    if kind in BLENDS:
        return BLENDS[kind](pixels, _factors(pixels.device)[entry])
    return STRETCHES[kind](pixels)


# The policy's entries as tensors, at the index (policy * 2 + turn) * 2 + sign. Computed once, outside inference mode, because
# inference tensors cannot be used in training.


def _entries() -> list[tuple[str, int, int]]:
    """Name, magnitude (0 where there is none) and sign of every entry."""
    return [(name, magnitude or 0, sign) for pair in POLICY for name, _, magnitude in pair for sign in (1, -1)]


@cache
def _probabilities() -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor([[probability for _, probability, _ in pair] for pair in POLICY])


@cache
def _kinds() -> Tensor:
    def kind(name: str) -> int:
        return KINDS.index("geometry" if name in GEOMETRY else "table" if name in TABLE else name)

    with torch.inference_mode(False):
        return torch.tensor([[kind(name) for name, _, _ in pair] for pair in POLICY])


@cache
def _sources(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``pixel_operations.sources`` for all k = 100 entries: shears (the upper left corner is fixed), shifts and rotations."""
    rows = []
    for name, magnitude, sign in _entries():
        shear, angle = sign * 0.3 * magnitude / 9, math.radians(sign * 30 * magnitude / 9)
        across, down = (sign * int(150 / 331 * side * magnitude / 9) for side in (width, height))
        rows.append(
            {
                "ShearX": (1, shear, shear * height / 2, 0, 1, 0),
                "ShearY": (1, 0, 0, shear, 1, shear * width / 2),
                "TranslateX": (1, 0, -across, 0, 1, 0),
                "TranslateY": (1, 0, 0, 0, 1, -down),
                "Rotate": (math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0),
            }.get(name, (1, 0, 0, 0, 1, 0))
        )
    with torch.inference_mode(False):
        found = pixel_operations.sources(torch.tensor(rows, dtype=torch.float32), height, width)
        return found[0].to(device), found[1].to(device)


@cache
def _factors(device: torch.device) -> Tensor:
    """``(100,)``: the factors of colour, contrast, sharpness and brightness."""
    with torch.inference_mode(False):
        return torch.tensor([1 + sign * 0.9 * magnitude / 9 for _, magnitude, sign in _entries()], device=device)


@cache
def _tables(device: torch.device) -> Tensor:
    """``(100, 256)`` uint8: what replaces each pixel value."""
    value = torch.arange(256)
    rows = []
    for (name, magnitude, _), factor in zip(_entries(), _factors(torch.device("cpu")), strict=True):
        posterised = value & -(2 ** (8 - round(8 - magnitude / 9 * 4)))
        rows.append(
            {
                "Brightness": (value * factor).clamp(0, 255),
                "Posterize": posterised,
                "Solarize": torch.where(value >= 255 * (1 - magnitude / 9), 255 - value, value),
                "Invert": 255 - value,
            }.get(name, value)
        )
    with torch.inference_mode(False):
        return torch.stack([row.to(torch.uint8) for row in rows]).to(device)
