"""The batches of an epoch: their order, decoding in advance, and blocks."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_folders import image_folder
from torch import Tensor
from training_cases import CPU, pictures

from dynconf_core.data import imagenet
from dynconf_core.data.augment import augmented
from dynconf_core.data.batches import AHEAD, ahead, batches
from dynconf_core.data.folder import FolderImages
from dynconf_core.errors import InputError

NAMES = ("crop", "flip", "autoaugment", "cutout")


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epoch(images: object, order: Tensor, size: int, names: tuple[str, ...] = NAMES, block: int | None = None) -> list[Tensor]:
    return [part for pair in batches(images, order, size, names, generator(), CPU, block) for part in pair]  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [None, 1, 2, 3, 7])
def test_batches_in_memory(block: int | None) -> None:
    """Each equals the result of augmenting it alone, for any block size; the last, incomplete one is left out."""
    images = pictures(50)
    order = torch.randperm(50, generator=generator(1))
    found = epoch(images, order, 8, block=block)
    assert len(found) == 2 * 6
    source = generator()
    for number in range(6):
        chosen = order[number * 8 : number * 8 + 8]
        assert torch.equal(found[2 * number], augmented(images.batch(chosen), NAMES, images.normalisation, source))
        assert torch.equal(found[2 * number + 1], images.labels[chosen])


def test_batches_of_a_folder(tmp_path: Path) -> None:
    """Decoded in advance, drawn in order: crops and augmentation of a batch, then those of the next."""
    image_folder(tmp_path / "imagenet", (60, 50))
    images = imagenet.load(tmp_path, "train", resolution=24, calibration=1)
    order = torch.randperm(14, generator=generator(1))
    found = epoch(images, order, 2, ("flip", "jitter"))
    assert len(found) == 2 * 7
    source = generator()
    for number in range(7):
        chosen = order[number * 2 : number * 2 + 2]
        pixels = images.batch(chosen, source)
        assert torch.equal(found[2 * number], augmented(pixels, ("flip", "jitter"), images.normalisation, source))
        assert torch.equal(found[2 * number + 1], images.labels[chosen])


def test_a_damaged_image_is_named_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "imagenet", (60, 50))
    images = imagenet.load(tmp_path, "train", resolution=24, calibration=1)
    damaged = images.listing.files[9]
    assert damaged.is_relative_to(folder)
    damaged.write_bytes(damaged.read_bytes()[:300])
    seen = 0
    with pytest.raises(InputError, match=rf"{damaged.name} cannot be decoded .*: restore the file"):
        for _ in batches(images, torch.arange(14), 2, (), generator(), CPU):
            seen += 1
    assert seen == 4, "the batches before it are trained on"


def test_a_folder_for_a_gpu_is_pinned(tmp_path: Path) -> None:
    image_folder(tmp_path / "imagenet")
    images = imagenet.load(tmp_path, "train", resolution=24, calibration=1)
    there = images.to(torch.device("cuda"))
    assert isinstance(there, FolderImages) and there == replace(images, pinned=True)
    assert images.to(CPU) is images


# Working ahead


def test_ahead_is_bounded_and_in_order() -> None:
    """While the second of ten is in use, the third to fifth are made, and no more."""
    made: list[int] = []
    quiet = threading.Event()

    def make(item: int) -> int:
        made.append(item)
        if len(made) == 2 + AHEAD:
            quiet.set()
        return item * item

    with closing(ahead(make, range(10), AHEAD)) as coming:
        assert next(coming) == 0 and next(coming) == 1
        assert quiet.wait(10)
        time.sleep(0.05)
        assert made == list(range(2 + AHEAD))
        assert list(coming) == [item * item for item in range(2, 10)]


def test_ahead_raises_in_its_place() -> None:
    def make(item: int) -> float:
        return 1 / (item - 3)

    coming = ahead(make, range(6), 2)
    assert [next(coming) for _ in range(3)] == [-1 / 3, -1 / 2, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(coming)
    assert list(coming) == []


def test_closing_ends_the_thread() -> None:
    """A training run that stops in the middle of an epoch leaves no thread behind and does not decode the rest."""
    before, made = set(threading.enumerate()), []
    coming = ahead(lambda item: made.append(item) or item, range(1000), 3)
    next(coming)
    assert set(threading.enumerate()) - before
    coming.close()
    assert not set(threading.enumerate()) - before and len(made) <= 4
