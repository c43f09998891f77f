"""Small folders of images in ImageNet's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03")
PER_CLASS = {"train": 5, "val": 2}
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int], seed: int) -> None:
    """A noisy image of one colour."""
    noise = np.random.default_rng(seed).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path, quality=95)


def image_folder(root: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """``{train,val}/<class>/<image>``, the class told by the colour."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(folder / f"{number}.JPEG", COLOURS[label], size, seed=number)
    return root
