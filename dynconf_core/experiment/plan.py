"""A plan: every number that one setting's stages need, after profile and overrides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dynconf_core.experiment.recipe import Recipe

if TYPE_CHECKING:
    from dynconf_core.schemes.scheme import ConversionScheme


@dataclass(frozen=True)
class Data:
    """The images a plan reads.

    Attributes:
        name: of the data set, as ``DATASETS.get`` takes it.
        stands_in_for: the data set of the paper that it replaces, or None.
        resolution: side in pixels.
        train: how many images train, by the official count.
        calibration: how many training images are held out to choose rules and thresholds.
        classes: number of classes C.
        stem: of the networks, "cifar" or "imagenet".
        normalisation: the data set whose normalisation the network expects, where it is not its own.
    """

    name: str
    stands_in_for: str | None
    resolution: int
    train: int
    calibration: int
    classes: int
    stem: str
    normalisation: str | None = None


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
class Published:
    """A row of the paper. Accuracies are fractions; None where no source gives the figure.

    ``label``: "S" a source states it, "2" second-hand. ``net_named`` is False where the source does not name the network,
    so that the row is a footnote of the table and not a row's neighbour.
    """

    source: str
    label: str
    ann_accuracy: float | None = None
    snn_accuracy: float | None = None
    time_steps: int | None = None
    exit_accuracy: float | None = None
    mean_steps: float | None = None
    net_named: bool = True


@dataclass(frozen=True)
class Plan:
    """A setting resolved by a profile and by overrides: every number that its stages need.

    Attributes:
        setting, profile: their names.
        data: the images.
        architecture: as ``ARCHITECTURES.get`` takes it.
        width: factor on every layer's channels.
        method: the conversion scheme, as ``SCHEMES.get`` takes it.
        scheme: the scheme with its numbers.
        time_steps: T.
        recipe, search: of the training, and of the exit rule.
        seed: of weights, shuffling, augmentation and search.
        fixed_point: whether the SNN's weights are rounded so that float32 computes it exactly.
        published: what the paper reports of the setting.
        paper_time_steps: the T at which the paper runs the setting, or a network of its family; None where it is not known.
    """

    setting: str
    profile: str
    data: Data
    architecture: str
    width: float
    method: str
    scheme: ConversionScheme
    time_steps: int
    recipe: Recipe
    search: Search
    seed: int = 0
    fixed_point: bool = True
    published: Published | None = None
    paper_time_steps: int | None = None

    def network(self) -> dict[str, Any]:
        """The network's description, as ``dynconf_core.schemes.network.described`` takes it."""
        return {
            "architecture": self.architecture,
            "stem": self.data.stem,
            "classes": self.data.classes,
            "resolution": self.data.resolution,
            "width": self.width,
            "method": self.method,
            **self.scheme.network(),
        }

    def scheme_fields(self) -> dict[str, Any]:
        """The scheme's numbers that may be overridden."""
        return {name: getattr(self.scheme, name) for name in self.scheme.fields}

    def as_dict(self) -> dict[str, Any]:
        """What is run, as plain values, nested; the paper's figures are left out."""
        return {
            "setting": self.setting,
            "profile": self.profile,
            "data": asdict(self.data),
            "architecture": self.architecture,
            "width": self.width,
            "method": self.method,
            **self.scheme_fields(),
            "time_steps": self.time_steps,
            "recipe": asdict(self.recipe),
            "search": asdict(self.search),
            "seed": self.seed,
            "fixed_point": self.fixed_point,
        }
