"""Loading the images of a plan, and whether a network was trained on those that it holds out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import SPLIT_SEED, Images, Split
from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Data, Plan


def images_of(data: Data, split: Split, root: Path) -> Images:
    """Load a split of a plan's data set from the folder ``root``, normalised as its network expects.

    Raises:
        InputError: if the data set is missing or damaged, or is not what its entry says.
    """
    try:
        images = DATASETS.get(data.source).load(root, split, resolution=data.resolution, calibration=data.calibration)
    except OSError as error:
        raise InputError(f"data set {data.name!r} cannot be read: {error}. (The data folder is {root}.)") from error
    _check(images, data, split)
    if data.normalisation is None:
        return images
    return replace(images, normalisation=DATASETS.get(data.normalisation).normalisation)  # type: ignore[type-var]


def trained_on_calibration(provenance: Mapping[str, Any], data: Data) -> bool | None:
    """Whether a checkpoint was trained on images that ``data`` holds out; None if its provenance does not say."""
    images = provenance.get("data")
    if not isinstance(images, dict):
        return None
    split = images.get("split")
    if not isinstance(split, dict) or (images.get("name"), split.get("seed")) != (data.name, SPLIT_SEED):
        return None
    trained, held = images.get("train"), split.get("calibration")
    if not isinstance(trained, int) or not isinstance(held, int) or trained + held != data.train + data.calibration:
        return None
    return held < data.calibration  # the smaller of two held-out parts is contained in the larger


def facts_of_traces(plan: Plan, split: Split, provenance: Mapping[str, Any]) -> Mapping[str, object]:
    """What the traces of a split say of their SNN, given the provenance of the trained network's checkpoint."""
    facts = {**plan.origin(), "data": plan.data.name, "split": split, "network": plan.network()}
    seen = trained_on_calibration(provenance, plan.data)
    return facts if seen is None else {**facts, "trained_on_calibration": seen}


def _check(images: Images, data: Data, split: Split) -> None:
    """Raise ``InputError`` unless the split is as many images as were asked for, of the form that networks take."""
    import torch

    def unless(true: bool, what: str) -> None:
        if not true:
            raise InputError(f"data set {data.name!r}, {split} split: {what}.")

    count, labels = len(images), images.labels
    unless(count > 0, "it holds no image")
    if split == "calibration":
        unless(count == data.calibration, f"{count} images, though calibration={data.calibration} are to be held out")
    unless(images.classes == data.classes, f"{images.classes} classes, though the data set's entry says {data.classes}")
    unless(labels.shape == (count,) and labels.dtype == torch.int64, f"labels must be int64 of the shape ({count},)")
    low, high = int(labels.min()), int(labels.max())
    unless(low >= 0 and high < data.classes, f"labels from {low} to {high}; {data.classes} classes are 0 to {data.classes - 1}")
    pixels = images.batch(torch.arange(1))
    shape = tuple(pixels.shape[1:])
    kind = pixels.dtype
    unless(kind == torch.uint8 or kind.is_floating_point, f"pixels are {kind}; they must be uint8, 0 to 255, or decimals")
    unless(
        shape == data.shape,
        f"an image of the shape {shape}; give {data.shape}, as the data set's entry says (resolution, sample)",
    )
