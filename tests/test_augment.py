"""Augmentation: image by image, from one generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from dynconf_core.data.augment import applied, augmented, drawn, together
from dynconf_core.data.images import AUGMENTATIONS, Normalisation
from dynconf_core.errors import InputError

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 16, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, (count, 3, side, side), generator=generator(seed), dtype=torch.uint8)


def bytes_of(images: Tensor) -> Tensor:
    """Undo the plain normalisation."""
    return (images * 255).round().to(torch.uint8)


def test_no_augmentation_is_normalisation_alone() -> None:
    assert torch.equal(bytes_of(augmented(noise(), (), PLAIN, generator())), noise())


def test_crop_by_hand() -> None:
    """Every image is padded by two black pixels and cut at one of 25 positions of its own; all positions occur."""
    pixels = noise(400)
    found = bytes_of(augmented(pixels, ("crop",), PLAIN, generator()))
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    places = set()
    for image in range(400):
        matches = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(found[image], padded[image, :, row : row + 16, column : column + 16])
        ]
        assert len(matches) == 1
        places.add(matches[0])
    assert len(places) == 25


def test_flip_by_hand() -> None:
    pixels = noise(400)
    found = bytes_of(augmented(pixels, ("flip",), PLAIN, generator()))
    flipped = [torch.equal(found[i], pixels[i].flip(2)) for i in range(400)]
    assert all(flipped[i] or torch.equal(found[i], pixels[i]) for i in range(400))
    assert 160 < sum(flipped) < 240


def test_cutout_by_hand() -> None:
    """One rectangle of the mean colour with half the side, clipped at the border."""
    pixels = noise(300, side=32)
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    found = augmented(pixels, ("cutout",), normalisation, generator())
    plain = normalisation(pixels)
    heights = []
    for image in range(300):
        changed = (found[image] != plain[image]).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        assert torch.all(found[image, :, top:bottom, left:right] == 0)
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert torch.equal(found[image][:, outside], plain[image][:, outside])
        if top > 0 and bottom < 32:
            heights.append(bottom - top)
        assert bottom - top <= 16 and right - left <= 16
    assert len(set(heights)) == 1 and heights[0] == 16


def test_jitter_by_hand() -> None:
    """Up to 20 %: a grey image stays grey up to a factor, and no pixel leaves the range."""
    grey = torch.full((300, 3, 8, 8), 100, dtype=torch.uint8)
    found = bytes_of(augmented(grey, ("jitter",), PLAIN, generator()))
    assert int(found.min()) in range(80, 85) and int(found.max()) in range(116, 121)
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))
    assert bytes_of(augmented(noise(), ("jitter",), PLAIN, generator())).shape == (16, 3, 16, 16)


COMBINATIONS = [*((name,) for name in AUGMENTATIONS), ("crop", "flip", "autoaugment", "cutout"), AUGMENTATIONS]


@pytest.mark.parametrize("names", COMBINATIONS)
def test_augmentation_depends_on_its_generator_alone(names: tuple[str, ...]) -> None:
    """Torch's global generator is neither read nor advanced, and the pixels are not changed."""
    pixels = noise(20)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augmented(pixels, names, PLAIN, generator(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2), random.seed(9), np.random.seed(9)
    assert torch.equal(augmented(pixels, names, PLAIN, generator(3)), first)
    assert not torch.equal(augmented(pixels, names, PLAIN, generator(4)), first)
    assert torch.equal(pixels, noise(20))
    assert first.dtype == torch.float32 and first.shape == pixels.shape
    assert not torch.equal(first, PLAIN(pixels))


def test_the_order_of_the_names_does_not_matter() -> None:
    first = augmented(noise(), ("crop", "flip", "cutout"), PLAIN, generator(3))
    assert torch.equal(augmented(noise(), ("cutout", "flip", "crop"), PLAIN, generator(3)), first)


def test_unknown_augmentation() -> None:
    with pytest.raises(InputError, match="augmentation 'mixup' is unknown: choose from crop, flip"):
        augmented(noise(), ("crop", "mixup"), PLAIN, generator())


@pytest.mark.parametrize("names", COMBINATIONS)
def test_batches_augmented_together_are_the_same(names: tuple[str, ...]) -> None:
    """The draws of a batch do not depend on the batches that it is augmented with."""
    one, other = noise(20, seed=1), noise(20, seed=2)
    source = generator(3)
    apart = [augmented(pixels, names, PLAIN, source) for pixels in (one, other)]
    source = generator(3)
    draws = together([drawn(names, 20, 16, source) for _ in range(2)])
    assert torch.equal(applied(torch.cat([one, other]), draws, PLAIN), torch.cat(apart))


def test_draws_are_sent_as_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """All draws reach another device in one transfer; "meta" stands in for a GPU, where nothing can be computed."""
    sent: list[Tensor] = []
    move = Tensor.to

    def to(self: Tensor, *given: object, **more: object) -> Tensor:
        if given and given[0] == torch.device("meta"):
            sent.append(self)
            assert more == {"non_blocking": True}
        return move(self, *given, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "to", to)
    names = ("crop", "flip", "jitter", "cutout")
    found = applied(noise().to("meta"), drawn(names, 16, 16, generator()), PLAIN)
    assert found.device.type == "meta" and found.shape == (16, 3, 16, 16)
    assert [len(part) for part in sent] == [16 * (2 + 1 + 3 + 2)]
