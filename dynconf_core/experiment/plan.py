"""The plan of a setting: all values its stages need, after profile and overrides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dynconf_core.experiment.fine_tuning import NONE, FineTuning
from dynconf_core.experiment.recipe import Recipe

if TYPE_CHECKING:
    from dynconf_core.data.images import Normalisation
    from dynconf_core.schemes.field import Value
    from dynconf_core.schemes.scheme import ConversionScheme


@dataclass(frozen=True)
class Data:
    """The images of a plan.

    Attributes:
        name: the data set, a name in ``DATASETS``.
        stands_in_for: the paper's data set that it replaces, or None.
        resolution: side length in pixels.
        train: the official number of training images, without those held out.
        calibration: the number of training images held out to choose rules and thresholds.
        classes: the number of classes C.
        stem: the stem of the networks, "cifar" or "imagenet".
        normalisation: the data set whose normalisation the network expects, if not this one.
        path: where the user's own data are, which are not found by their name; else None.
        sample: the shape of a sample; None for colour images, ``(3, resolution, resolution)``.
        expects: the normalisation of the user's own data; None for that of the data set.
    """

    name: str
    stands_in_for: str | None
    resolution: int
    train: int
    calibration: int
    classes: int
    stem: str
    normalisation: str | None = None
    path: str | None = None
    sample: tuple[int, ...] | None = None
    expects: Normalisation | None = None

    @property
    def source(self) -> str:
        """What the data set is found by in ``DATASETS``."""
        return self.path or self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.sample or (3, self.resolution, self.resolution)


MAX_DROP = 0.001
"""The accuracy that a rule may lose in expectation unless another is asked for: 0.1 points. With none, the mean steps hang on
the few images that exits lose at all; and 1000 calibration images can promise no less."""


@dataclass(frozen=True)
class Search:
    """How the exit rule is chosen on the calibration split.

    Attributes:
        rule: the confidence measure, or "best" to choose it on the calibration split as well.
        smoothing: "sum" or "mean" of the logits over time; None leaves the choice to the search.
        alpha: the smoothing constant; None leaves the choice to the search.
        max_drop: the accuracy that may be lost in expectation, a fraction.
        readout: "plain" if the rule reads the sum of the logits, "decoded" if it reads it behind a readout fitted for each
            step, "choose" to choose this on the calibration split as well.
        trials: the number of trials of the Optuna study.
    """

    rule: str = "max_softmax"
    smoothing: str | None = None
    alpha: float | None = None
    max_drop: float = MAX_DROP
    readout: str = "choose"
    trials: int = 24


@dataclass(frozen=True)
class Published:
    """Published figures for a setting.

    Attributes:
        source: where the figures are published.
        label: "S" if the source states the figures itself, "2" if they are second-hand.
        ann_accuracy, snn_accuracy: accuracies of the ANN and of the SNN after all time steps, fractions.
        time_steps: T.
        exit_accuracy, mean_steps: accuracy and mean time steps with early exit.
        net_named: whether the source names the network; if not, tables show the figures in a footnote.

    Figures that no source gives are None.
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
    """A setting after profile and overrides: all values its stages need.

    Attributes:
        setting, profile: the names of the setting and the profile.
        data: the images.
        architecture: a name in ``ARCHITECTURES``.
        width: factor on the number of channels of every layer.
        method: the conversion method, a name in ``SCHEMES``.
        scheme: the conversion scheme with its parameters.
        time_steps: T.
        recipe: how the network is trained.
        search: how the exit rule is chosen.
        seed: seed of weights, shuffling, augmentation and search.
        fixed_point: whether the SNN's weights are rounded so that float32 computes it exactly.
        published: the paper's figures for the setting.
        paper_time_steps: T in the paper, for this setting or a network of its family; None if unknown.
        fine_tuning: how the trained network is fine-tuned as an SNN before it is converted; by default it is not.
        given_tuned: how the checkpoint that takes the place of the training had been fine-tuned.
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
    fine_tuning: FineTuning = NONE
    given_tuned: FineTuning = NONE

    @property
    def tuned(self) -> FineTuning:
        """How the network that is converted was fine-tuned, here or before."""
        return self.fine_tuning or self.given_tuned

    def network(self) -> dict[str, Any]:
        """The network's description for ``dynconf_core.schemes.network.described``."""
        return {
            "architecture": self.architecture,
            "stem": self.data.stem,
            "classes": self.data.classes,
            "resolution": self.data.resolution,
            "width": self.width,
            "method": self.method,
            **({} if self.data.shape[0] == 3 else {"channels": self.data.shape[0]}),
            **self.scheme.network(),
        }

    def scheme_fields(self) -> dict[str, Value]:
        """The scheme's parameters that may be overridden."""
        return {name: getattr(self.scheme, name) for name in self.scheme.fields}

    def origin(self) -> dict[str, str | None]:
        """What traces say of their origin, apart from data and network."""
        source = f"dynconf, {self.setting}, profile {self.profile}, seed {self.seed}"
        source += f", {self.tuned}" if self.tuned else ""
        return {"source": source, "stands_in_for": self.data.stands_in_for}

    def as_dict(self) -> dict[str, Any]:
        """The plan as nested plain values, without the paper's figures."""
        return {
            "setting": self.setting,
            "profile": self.profile,
            "data": asdict(self.data),
            "architecture": self.architecture,
            "width": self.width,
            "method": self.method,
            **self.scheme_fields(),
            "time_steps": self.time_steps,
            "recipe": self.recipe.as_dict(),
            **({"fine_tuning": self.fine_tuning.as_dict(self.recipe)} if self.fine_tuning else {}),
            **({"given_tuned": asdict(self.given_tuned)} if self.given_tuned else {}),
            "search": asdict(self.search),
            "seed": self.seed,
            "fixed_point": self.fixed_point,
        }
