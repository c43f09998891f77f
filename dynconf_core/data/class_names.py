"""What the classes of data sets are called, for people who look at answers.

Separate from ``DATASETS``: a name does not change a result, so no stage's code reaches it.
"""

import sys
from pathlib import Path

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError

IMAGENET = "imagenet/train"
"""The folder of ImageNet's training images in the data folder; its classes are called by their folders."""
NAMES = "CLASS_NAMES"
"""In the module of a data set of a user's own, the names of its classes."""
KNOWN: dict[str, tuple[str, ...]] = {
    "digits": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": (
        *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy"),
        *("bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock"),
        *("cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest"),
        *("fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard"),
        *("lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid"),
        *("otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum"),
        *("rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper"),
        *("snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone"),
        *("television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf"),
        *("woman", "worm"),
    ),
    "imagenette": (
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    ),
}


def class_names(data: str, root: Path | None = None, classes: int | None = None) -> tuple[str, ...] | None:
    """The names of the classes in the order of their numbers; None where they are not known.

    Args:
        data: the data set. The module of one of a user's own is not imported for it.
        root: the folder of the data sets; it need not exist.
        classes: number of classes C, if it is known: other numbers of names are not these classes'.
    """
    found = KNOWN.get(data)
    if found is None and data == "imagenet" and root is not None and (root / IMAGENET).is_dir():
        found = tuple(sorted(entry.name for entry in (root / IMAGENET).iterdir() if entry.is_dir()))
    if found is None:
        found = _of_module(data)
    return found if found is not None and classes in (None, len(found)) else None


def _of_module(data: str) -> tuple[str, ...] | None:
    try:
        module = data if ":" in data else DATASETS.origin(data)
    except InputError:  # not installed here
        return None
    given = getattr(sys.modules.get(module.partition(":")[0]), NAMES, None)
    return None if given is None else tuple(map(str, given))
