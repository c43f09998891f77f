"""The handwritten digits of scikit-learn: 1797 images of 8 x 8 pixels, upscaled. No download is needed.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.data.dataset import DataSet
from dynconf_core.data.images import SPLIT_SEED, Normalisation, Split, TensorImages, held_out
from dynconf_core.libraries import scikit_learn_data

IMAGES = 1797
TEST = 497
NORMALISATION = Normalisation((0.305, 0.305, 0.305), (0.34, 0.34, 0.34))


def check(root: Path) -> None:
    """Nothing can be missing: the images come with scikit-learn."""


def raw() -> tuple[NDArray[Any], NDArray[Any]]:
    """The grey values from 0 to 16, float64 ``(1797, 8, 8)``, and the labels, as scikit-learn's ``load_digits`` gives them.

    Its file is read where it lies, since ``sklearn.datasets`` imports SciPy and pandas, which takes more than a second.

    Raises:
        InputError: if scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
    found = scikit_learn_data().load_digits()
    return found.images, found.target


def digest(root: Path) -> str:
    """Identifies the content: the sha256 of the raw pixels and labels."""
    images, labels = raw()
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def load(root: Path, split: Split, *, resolution: int, calibration: int) -> TensorImages:
    """A split, bilinearly upscaled to ``resolution`` pixels, with the same grey value in all three channels.

    The 497 test images are drawn first, with the fixed seed of the split; ``calibration`` of the other 1300 are held out.
    """
    import torch
    from torch.nn.functional import interpolate

    images, labels = raw()
    grey = torch.from_numpy(images).float().unsqueeze(1) * (255 / 16)
    large = interpolate(grey, size=(resolution, resolution), mode="bilinear", align_corners=False)
    pixels = large.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    everything = TensorImages(pixels, torch.from_numpy(labels).long(), 10, NORMALISATION)
    training, test = held_out(IMAGES, TEST, SPLIT_SEED)
    if split == "test":
        return everything.subset(test)
    kept, held = held_out(len(training), calibration)
    return everything.subset(training[kept if split == "train" else held])


DIGITS = DataSet(
    title="handwritten digits",
    family="digits",
    classes=10,
    resolution=32,
    train=IMAGES - TEST,
    test=TEST,
    calibration=300,
    stem="cifar",
    normalisation=NORMALISATION,
    check=check,
    digest=digest,
    load=load,
    downloaded=False,
)
