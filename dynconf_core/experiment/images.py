"""Loading the images of a plan."""

from dataclasses import replace
from pathlib import Path

from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import Images, Split
from dynconf_core.experiment.plan import Data


def images_of(data: Data, split: Split, root: Path) -> Images:
    """Load a split of a plan's data set from the folder ``root``, normalised as its network expects.

    Raises:
        InputError: if the data set is missing or damaged.
    """
    images = DATASETS.get(data.name).load(root, split, resolution=data.resolution, calibration=data.calibration)
    if data.normalisation is None:
        return images
    return replace(images, normalisation=DATASETS.get(data.normalisation).normalisation)  # type: ignore[type-var]
