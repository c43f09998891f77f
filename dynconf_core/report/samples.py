"""The easiest and hardest test images as small PNGs, where their data set is at hand."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from pathlib import Path

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.libraries import pillow

_log = logging.getLogger(__name__)
LARGEST = 96
"""Side in pixels of an image in a report."""


def pictures(data: str, calibration: int, wanted: Mapping[int, int], root: Path | None) -> dict[int, str]:
    """Test images as ``data:`` addresses, by index; empty if they cannot be read, or are not those that the traces are of.

    Only the data sets that are installed here are read: a results file that somebody else wrote names no code to be run.

    Args:
        data: the name of the data set.
        calibration: how many training images it holds out.
        wanted: places in the test split, and the classes there according to the traces.
        root: the folder of the data sets; None if there is none.
    """
    indices = list(wanted)
    if data not in DATASETS.names() or not indices:
        return {}
    try:
        dataset = DATASETS.get(data)
        if dataset.downloaded:
            if root is None:
                return {}
            dataset.check(root)
        images = dataset.load(root or Path(), "test", resolution=dataset.resolution, calibration=calibration)
        if [int(images.labels[index]) for index in indices] != list(wanted.values()):
            return {}
        import torch

        pixels = images.batch(torch.tensor(list(indices)))
    except (InputError, OSError, IndexError) as error:
        _log.info("The images of %s are left out of the report: %s", data, error)
        return {}
    return {index: _address(one.permute(1, 2, 0).numpy()) for index, one in zip(indices, pixels, strict=True)}


def _address(pixels: object) -> str:
    image = pillow().fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
