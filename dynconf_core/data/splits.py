"""The one split of the training images into those that train and those that calibrate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SPLIT_SEED = 20231002
"""Of its own, so that another training seed never moves an image between the two parts."""


def held_out(images: int, calibration: int, seed: int = SPLIT_SEED) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the calibration images, int64, each in ascending order.

    Args:
        images: how many training images the data set has.
        calibration: how many of them are held out.
        seed: of the split.
    """
    import torch

    order = np.random.Generator(np.random.PCG64(seed)).permutation(images)
    kept, held = np.sort(order[calibration:]), np.sort(order[:calibration])
    return torch.from_numpy(kept), torch.from_numpy(held)
