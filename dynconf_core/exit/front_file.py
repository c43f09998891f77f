"""``front.csv``: a front's operating points as text."""

import csv
import math
from pathlib import Path

from dynconf_core.exit.front import Front


def write_front(front: Front, path: Path) -> None:
    """``threshold,accuracy,mean_steps``, every operating point once; ``inf`` for never and ``-inf`` for at once."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("threshold", "accuracy", "mean_steps"))
        for values in zip(front.thresholds, front.accuracy, front.mean_steps, strict=True):
            rows.writerow([_text(float(value)) for value in values])


def _text(value: float) -> str:
    return repr(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
