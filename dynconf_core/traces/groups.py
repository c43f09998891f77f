"""Groups of samples: which group each calibration and test sample belongs to, for figures and guarantees by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.errors import InputError
from dynconf_core.traces.parts import Split
from dynconf_core.traces.schema import Traces

CLASS = "class"
"""In place of a file: the true class of each sample."""
Labels = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of two sets of traces.

    Attributes:
        calibration, test: (N,) and (M,) the name of each sample's group; no test: not known.
        known_at_exit: whether the group of a new sample is known when it exits, unlike its true class.
    """

    calibration: Labels
    test: Labels | None
    known_at_exit: bool

    @classmethod
    def of_classes(cls, calibration: Traces, test: Traces) -> Groups:
        """The true classes as groups."""
        return cls(calibration.labels.astype(np.str_), test.labels.astype(np.str_), known_at_exit=False)

    @classmethod
    def read(cls, asked: Sequence[str], calibration: Traces, test: Traces, split: Split | None = None) -> Groups:
        """The groups that a command names: "class", or a file for the calibration traces and perhaps one for the test traces.

        Args:
            asked: one or two names; with a `split`, one file for the one set of traces that was split.
            calibration, test: the traces.
            split: which samples are where, if one set was split.

        Raises:
            InputError: for more names than there are sets of traces, a file that cannot be read, or another number of labels
                than samples.
        """
        if list(asked) == [CLASS]:
            return cls.of_classes(calibration, test)
        if split is not None:
            if len(asked) != 1:
                raise InputError(f"groups = {list(asked)}: one set of traces was split; give one file with its groups.")
            labels = read_labels(asked[0], calibration.samples + test.samples)
            return cls(labels[list(split.calibration)], labels[list(split.test)], known_at_exit=True)
        if len(asked) > 2:
            raise InputError(f"groups = {list(asked)}: give one file for the calibration and one for the test traces.")
        found = [read_labels(name, traces.samples) for name, traces in zip(asked, (calibration, test), strict=False)]
        return cls(found[0], found[1] if len(found) > 1 else None, known_at_exit=True)

    def checked(self, calibration: Traces, test: Traces) -> Groups:
        """The groups themselves.

        Raises:
            InputError: unless there is one group a sample, and every group of the test samples has calibration samples.
        """
        for name, labels, traces in (("calibration", self.calibration, calibration), ("test", self.test, test)):
            if labels is not None and labels.shape != (traces.samples,):
                raise InputError(f"{name} groups have the shape {labels.shape}; give one for each of {traces.samples} samples.")
        strange = [] if self.test is None else sorted(set(self.test.tolist()) - set(self.calibration.tolist()))
        if strange:
            raise InputError(
                f"groups {', '.join(strange[:5])} have test samples and no calibration samples: nothing is known of them."
            )
        return self


def read_labels(path: str, samples: int) -> Labels:
    """The group of each sample (N,), as text: from a .npy file of integers or text, or a text file with one group a line.

    Raises:
        InputError: for a file that is missing or of another form, or has another number of groups.
    """
    source = Path(path)
    try:
        if source.suffix == ".npy":
            found: NDArray[Any] = np.load(source, allow_pickle=False)
        else:
            found = np.array(source.read_text(encoding="utf-8").split("\n"))
            found = np.char.strip(found[: -1 if len(found) > 1 and not found[-1].strip() else None])
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"groups = {path!r} cannot be read ({error}): give {CLASS!r}, a .npy file or one group a line."
        ) from error
    if found.ndim != 1 or found.dtype.kind not in "iubUS":
        raise InputError(f"groups in {path} are {found.dtype} of the shape {found.shape}; give integers or text (N,).")
    if len(found) != samples:
        raise InputError(f"{path} holds {len(found)} groups for {samples} samples; give one a sample, in their order.")
    labels: Labels = found.astype(np.str_)
    return labels
