"""AutoAugment's policy for CIFAR-10 as batched tensor operations, compared with torchvision's, which process one image at a
time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dynconf_core.data import autoaugment, pixel_operations
from dynconf_core.data.augment import augmented
from dynconf_core.data.autoaugment import POLICY, arranged, autoaugmented, draw
from dynconf_core.data.images import Normalisation
from dynconf_core.libraries import transforms

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
EXACT = ("ShearY", "TranslateX", "TranslateY", "Rotate", "Posterize", "Solarize", "Invert", "Equalize")
ROUNDED = ("AutoContrast", "Brightness", "Color", "Contrast", "Sharpness")
"""torchvision computes these as float32 sums that can fall below a whole number, and cuts what is behind the point."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(height: int = 32, width: int = 32) -> Tensor:
    """Noise, smooth images with a narrow and with the full range, images with one channel or all of a single value."""
    noise = torch.randint(0, 256, (4, 3, height, width), generator=generator(), dtype=torch.uint8)
    coarse = torch.rand(6, 3, 4, 4, generator=generator(1))
    smooth = interpolate(coarse, size=(height, width), mode="bicubic").mul(255).clamp(0, 255).to(torch.uint8)
    flat = torch.cat([smooth[:2], torch.full((1, 3, height, width), 77, dtype=torch.uint8)])
    flat[0, 1] = 3
    return torch.cat([noise, smooth, smooth[:2] // 4 + 90, flat])


def operation(entry: int) -> tuple[str, int | None, int]:
    """Name, magnitude and sign of entry (policy * 2 + turn) * 2 + negative."""
    name, _, magnitude = POLICY[entry // 4][entry // 2 % 2]
    return name, magnitude, -1 if entry % 2 else 1


def entries(names: tuple[str, ...]) -> list[int]:
    """One entry of the policy for every different (operation, magnitude, sign)."""
    found = {operation(entry): entry for entry in range(4 * len(POLICY)) if operation(entry)[0] in names}
    return sorted(found.values())


def alone(pixels: Tensor, entry: int) -> Tensor:
    """One entry applied to all images, the other entry of its sub-policy to none."""
    drawn = torch.ones(5, len(pixels))
    drawn[0] = entry // 4
    drawn[1 + entry // 2 % 2] = 0.0  # below every probability but 0, as 1 is below none
    drawn[3:] = entry % 2
    return autoaugmented(pixels, arranged(drawn))


def torchvisions(pixels: Tensor, entry: int) -> Tensor:
    name, magnitude, sign = operation(entry)
    policy: Any = transforms().AutoAugment(transforms().AutoAugmentPolicy.CIFAR10)
    table, signed = policy._AUGMENTATION_SPACE[name]
    values = table(10, *pixels.shape[-2:])
    value = 0.0 if values is None else float(values[magnitude or 0]) * (sign if signed else 1)
    settings = {"interpolation": policy.interpolation, "fill": policy._fill}
    return torch.stack([policy._apply_image_or_video_transform(image, name, value, **settings) for image in pixels])


def test_the_policy_is_torchvisions() -> None:
    policy: Any = transforms().AutoAugment
    kind = transforms().AutoAugmentPolicy.CIFAR10
    assert tuple(policy(kind)._get_policies(kind)) == POLICY


def test_every_operation_is_compared() -> None:
    assert {name for pair in POLICY for name, _, _ in pair} == {*EXACT, *ROUNDED}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_exact_operations(name: str, size: tuple[int, int]) -> None:
    for entry in entries((name,)):
        found = alone(pictures(*size), entry)
        assert torch.equal(found, torchvisions(pictures(*size), entry))
        assert name == "Equalize" or not torch.equal(found, pictures(*size))


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_operations(name: str) -> None:
    for entry in entries((name,)):
        found, expected = alone(pictures(), entry).int(), torchvisions(pictures(), entry).int()
        assert int((found - expected).abs().max()) <= 1
        assert torch.all(found >= expected), "never a whole level below the true value"
        assert float((found != expected).float().mean()) < (0.3 if name == "Brightness" else 0.05)


def test_shear_x_is_shear_y_turned() -> None:
    """The policy has no ShearX: it is tested through its matrix alone."""
    pixels = pictures(24, 24)
    along, down = (1, 0.2, 0.2 * 12, 0, 1, 0), (1, 0, 0, 0.2, 1, 0.2 * 12)

    def moved(images: Tensor, inverse: tuple[float, ...]) -> Tensor:
        found = pixel_operations.sources(torch.tensor([inverse]), 24, 24)
        return pixel_operations.moved(images, *(part.expand(len(images), -1) for part in found))

    turned = moved(pixels.transpose(2, 3).contiguous(), along).transpose(2, 3)
    assert torch.equal(moved(pixels, down), turned)


def test_autocontrast_in_whole_numbers() -> None:
    found = pixel_operations.autocontrast(pictures()).long()
    pixels = pictures().long()
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    stretched = (pixels - low) * 255 // (high - low).clamp(min=1)
    assert torch.equal(found, torch.where(low == high, pixels, stretched))
    assert (found.amax((2, 3)) == 255).sum() > 30


@pytest.mark.parametrize("operation", autoaugment.BLENDS.values())
def test_a_factor_of_one_changes_nothing(operation: Any) -> None:
    """Each image has its own factor."""
    pixels = pictures()
    factors = torch.linspace(0.1, 1.9, len(pixels))
    factors[::2] = 1.0
    found = operation(pixels, factors)
    assert torch.equal(found[::2], pixels[::2])
    singles = [operation(one, factor) for one, factor in zip(pixels.split(1), factors.split(1), strict=True)]
    assert torch.equal(found, torch.cat(singles))


def test_every_image_gets_its_own_sub_policy() -> None:
    """A batch of equal images gives almost as many different ones; each equals the result of its own draw alone."""
    same = pictures()[5:6].expand(64, -1, -1, -1).contiguous()
    drawn = draw(64, generator(2))
    found = autoaugmented(same, arranged(drawn))
    assert len({image.numpy().tobytes() for image in found}) > 20
    for image in range(64):
        assert torch.equal(autoaugmented(same[:1], arranged(drawn[:, image : image + 1]))[0], found[image])


def test_the_second_operation_follows_the_first() -> None:
    """Sub-policy 9: contrast, then sharpness; the opposite order gives another result."""
    pixels = pictures()[4:5]
    drawn = torch.tensor([[9.0], [0.0], [0.0], [0.0], [0.0]])
    first, second = (9 * 2 + 0) * 2, (9 * 2 + 1) * 2
    found = autoaugmented(pixels, arranged(drawn))
    assert torch.equal(found, alone(alone(pixels, first), second))
    assert not torch.equal(found, alone(alone(pixels, second), first))


def test_how_often_operations_are_applied() -> None:
    """Each sub-policy for 1/25 of the images, each operation with its probability, half of the magnitudes negative."""
    count = 50_000
    drawn = draw(count, generator())
    applied: Counter[tuple[int, int, int]] = Counter()
    arrangement = arranged(drawn)
    for turn, sizes in enumerate(arrangement.sizes):
        for entry in arrangement.numbers[f"entry{turn}"][0, sizes[0] :].long().tolist():
            assert entry // 2 % 2 == turn
            applied[entry // 4, turn, entry % 2] += 1
    assert drawn[0].long().bincount(minlength=25).sub(count / 25).abs().max() < 5 * (count / 25) ** 0.5
    for policy, pair in enumerate(POLICY):
        for turn, (_, probability, _) in enumerate(pair):
            met = [applied[policy, turn, sign] for sign in (0, 1)]
            expected = probability * count / 25
            assert abs(sum(met) - expected) <= 5 * expected**0.5
            assert abs(met[0] - met[1]) <= 5 * max(expected, 1) ** 0.5
    assert sum(applied[14, 1, sign] for sign in (0, 1)) == 0, "a probability of 0 is never"


def test_the_given_pixels_are_not_changed() -> None:
    pixels = pictures()
    found = augmented(pixels, ("autoaugment",), PLAIN, generator(3))
    assert torch.equal(pixels, pictures()) and not torch.equal(found, PLAIN(pixels))
