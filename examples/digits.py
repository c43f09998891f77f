"""The data set of the other examples: 1797 handwritten digits of 8 x 8 pixels, included in scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits

SPLITS = {"train": 700, "calibration": 600, "test": 497}


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 64)``, float32 in [0, 1], and labels ``(N,)`` of a split.

    Networks are trained on "train"; exit rules are chosen on "calibration", which training does not use, and judged on "test".
    """
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    begin = sum(SPLITS[earlier] for earlier in list(SPLITS)[: list(SPLITS).index(split)])
    chosen = order[begin : begin + SPLITS[split]]
    return (data.data[chosen] / 16).astype(np.float32), data.target[chosen]
