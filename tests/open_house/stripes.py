"""A data set from outside: three directions of stripes, drawn by chance."""

import hashlib
from pathlib import Path

import torch

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.images import Normalisation, TensorImages, held_out

TRAIN, TEST, SIDE = 360, 120, 16
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))


def _drawn() -> TensorImages:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (TRAIN + TEST,), generator=generator)
    along = torch.arange(SIDE, dtype=torch.float32)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    waves = torch.stack([rows, columns, rows + columns])[labels]
    shift = torch.rand(len(labels), 1, 1, generator=generator) * 6
    noise = torch.randn(len(labels), SIDE, SIDE, generator=generator) * 40
    grey = (127 + 90 * torch.sin(waves + shift) + noise).clamp(0, 255).to(torch.uint8)
    return TensorImages(grey.unsqueeze(1).expand(-1, 3, -1, -1).contiguous(), labels, 3, NORMALISATION)


def check(root: Path) -> None:
    """Nothing can be missing."""


def digest(root: Path) -> str:
    """Names the content."""
    return hashlib.sha256(_drawn().pixels.numpy().tobytes()).hexdigest()


def load(root: Path, split: str, *, resolution: int, calibration: int) -> TensorImages:
    """A split; there is but one resolution."""
    everything = _drawn()
    if split == "test":
        return everything.subset(torch.arange(TRAIN, TRAIN + TEST))
    kept, held = held_out(TRAIN, calibration)
    return everything.subset(kept if split == "train" else held)


STRIPES = DataSet(
    title="Stripes",
    family="stripes",
    classes=3,
    resolution=SIDE,
    train=TRAIN,
    test=TEST,
    calibration=60,
    stem="cifar",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
    downloaded=False,
)
