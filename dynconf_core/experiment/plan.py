"""A plan: every number that one setting's stages need, after profile and overrides."""

from dataclasses import asdict, dataclass
from typing import Any

from dynconf_core.experiment.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """The images a plan reads.

    Attributes:
        name: of the data set, in ``dynconf_core.data``.
        stands_in_for: the data set of the paper that it replaces, or None.
        resolution: side in pixels.
        train: how many images train, by the official count.
        calibration: how many training images are held out to choose rules and thresholds.
        classes: number of classes C.
        stem: of the networks, "cifar" or "imagenet".
    """

    name: str
    stands_in_for: str | None
    resolution: int
    train: int
    calibration: int
    classes: int
    stem: str


@dataclass(frozen=True)
class Search:
    """How the exit rule is chosen, on the calibration split.

    Attributes:
        rule: the measure of confidence, or "best" to let the calibration split choose it too.
        smoothing: "sum" or "mean" of the logits over time, or None to let the search choose.
        alpha: the smoothing constant, or None to let the search choose.
        max_drop: accuracy that may be lost in expectation, as a fraction.
        trials: of the Optuna study.
    """

    rule: str = "max_softmax"
    smoothing: str | None = None
    alpha: float | None = None
    max_drop: float = 0.0
    trials: int = 24


@dataclass(frozen=True)
class Plan:
    """A setting resolved by a profile and by overrides: every number that its stages need.

    ``fixed_point``: whether the SNN's weights are rounded so that float32 computes it exactly. ``initial_potential``: V(0) of
    integrate-and-fire neurons (QCFS), in thresholds.
    """

    setting: str
    profile: str
    data: Data
    architecture: str
    width: float
    method: str
    levels: int | None
    bits: int | None
    time_steps: int
    recipe: Recipe
    search: Search
    seed: int = 0
    fixed_point: bool = True
    initial_potential: float = 0.5

    def network(self) -> dict[str, Any]:
        """The network's description, as ``dynconf_core.networks.description.described`` takes it."""
        return {
            "architecture": self.architecture,
            "stem": self.data.stem,
            "classes": self.data.classes,
            "resolution": self.data.resolution,
            "width": self.width,
            "method": self.method,
            "levels": self.levels,
            "bits": self.bits,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, nested."""
        return asdict(self)
