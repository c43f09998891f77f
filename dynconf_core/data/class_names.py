"""What the classes of the project's data sets are called.

Separate from ``DATASETS``: a name does not change a result, so no stage's code reaches it.
"""

from pathlib import Path

IMAGENET = "imagenet/train"
"""The folder of ImageNet's training images in the data folder; its classes are called by their folders."""
KNOWN: dict[str, tuple[str, ...]] = {
    "digits": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "imagenette": (
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    ),
}


def class_names(data: str, root: Path, classes: int) -> tuple[str, ...] | None:
    """The names of the classes in the order of their numbers; None where they are not known.

    Args:
        data: the data set.
        root: the folder of the data sets; it need not exist.
        classes: number of classes C.
    """
    found = KNOWN.get(data)
    if found is None and data == "imagenet" and (root / IMAGENET).is_dir():
        found = tuple(sorted(entry.name for entry in (root / IMAGENET).iterdir() if entry.is_dir()))
    return found if found is not None and len(found) == classes else None
