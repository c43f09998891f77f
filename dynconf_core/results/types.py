"""Types of the results of settings, runs, sweeps and seeds, as written to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Predicate
from pydantic import Discriminator

from dynconf_core.evaluation.setting import SettingFigures
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.plan import Published
from dynconf_core.names import is_plain
from dynconf_core.results.environment import Environment
from dynconf_core.schemes.field import Value
from dynconf_core.store.keys import is_key

Name = Annotated[str, Predicate(is_plain)]
"""A name that files and folders are called by, checked when it is read."""
Keys = dict[Name, Annotated[str, Predicate(is_key)]]
"""Keys in the store, by stage."""


@dataclass(frozen=True)
class DataFacts:
    """The data set, the one it stands in for, and the numbers of training, calibration and test images."""

    name: str
    stands_in_for: str | None
    train: int
    calibration: int
    test: int


@dataclass(frozen=True)
class NetworkFacts:
    """Architecture, width (a factor) and number of parameters of the network."""

    architecture: str
    width: float
    parameters: int | None


@dataclass(frozen=True)
class ConversionFacts:
    """Agreement of the SNN at T with the ANN on some calibration images, and the layer where it drops most, if any."""

    agreement: float | None
    worst_layer: str | None


@dataclass(frozen=True)
class PaperRows:
    """The paper's figures for a setting."""

    rows: tuple[Published, ...]


@dataclass(frozen=True)
class PaperFootnote(Published):
    """A row of the paper whose network is not named; ``family`` is the data set and the conversion method."""

    family: str = ""


@dataclass(frozen=True, kw_only=True)
class SettingFacts:
    """Description of a finished setting.

    Attributes:
        name: the setting's name.
        status, error: "ok" and None.
        data, network, conversion: see their types.
        method: the conversion method, such as "qcfs" or "qffs".
        levels, bits: L of QCFS; bits of QFFS.
        scheme: further parameters of the conversion scheme, such as the initial membrane potential.
        time_steps: T.
        fixed_point: whether the weights are rounded so that float32 is exact.
        fine_tuning: how the network was fine-tuned as an SNN after its training; None: it was not.
    """

    name: Name
    status: Literal["ok"] = "ok"
    error: None
    data: DataFacts
    network: NetworkFacts
    method: str
    levels: int | None = None
    bits: int | None = None
    scheme: dict[str, Value] | None = None
    time_steps: int
    fixed_point: bool
    conversion: ConversionFacts
    fine_tuning: FineTuning | None = None


@dataclass(frozen=True)
class Resources:
    """What a setting took in a process of its own.

    Attributes:
        seconds: from its start to its end, waiting for others included.
        peak_memory_bytes: the most memory (resident set) of the process meanwhile, libraries included, a GPU's not; None if
            unknown.
    """

    seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class SettingResult(SettingFigures, SettingFacts):
    """A finished setting: its description, its figures, and its stages.

    Attributes:
        paper: the paper's figures; None if none are known, or if the network was fine-tuned, which the paper's were not.
        stages: outcome by stage: "ran", "cached", "given" or "adopted".
        artefacts: key in the store by stage.
        resources: time and memory; None where everything came from the store.
    """

    paper: PaperRows | None
    stages: dict[str, str]
    artefacts: Keys
    resources: Resources | None = None

    @property
    def tuned_here(self) -> bool:
        """Whether a stage fine-tuned the network, so that the ANN is the one before; else its checkpoint was given so."""
        return "fine_tune" in self.stages


@dataclass(frozen=True, kw_only=True)
class FailedSetting:
    """A setting in which a stage failed; outcomes in ``stages`` may also be "failed" and "not_run".

    Attributes:
        artefacts: key in the store of each finished stage.
        resources: time and memory, if it was started in a process of its own.
    """

    name: Name
    status: Literal["failed"] = "failed"
    error: str
    stages: dict[str, str]
    artefacts: Keys
    resources: Resources | None = None


AnySetting = Annotated[SettingResult | FailedSetting, Discriminator("status")]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """``results.json`` of a reproduction.

    Attributes:
        run: the name of the run.
        overrides: fields whose values differ from the profile's.
        command: the command line.
        tracking_error: why the run was not logged to MLflow; None if it was.
        mean_latency_saving: mean over the finished settings; None if there are none.
        paper_footnotes: rows of the paper whose network is not named.
    """

    run: Name
    profile: str
    seed: int
    overrides: dict[str, Value]
    command: str
    environment: Environment
    tracking_error: str | None
    mean_latency_saving: float | None
    paper_footnotes: tuple[PaperFootnote, ...]
    settings: tuple[AnySetting, ...]

    @property
    def finished(self) -> list[SettingResult]:
        """The finished settings."""
        return [row for row in self.settings if isinstance(row, SettingResult)]

    @property
    def failed(self) -> list[FailedSetting]:
        """The failed settings."""
        return [row for row in self.settings if isinstance(row, FailedSetting)]


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A finished point of a sweep.

    Attributes:
        values: the values of the swept fields.
        accuracy, mean_steps: accuracy and mean steps with early exit on the test split; reported only.
        calibration_accuracy, calibration_mean_steps: the same on the calibration split; the objectives of a study.
        artefacts: key in the store by stage.
        resources: time and memory; None where everything came from the store.
        on_front: whether the point is on the Pareto front of its setting, which is chosen on the calibration split.
    """

    setting: Name
    values: dict[str, Value]
    status: Literal["ok"] = "ok"
    error: None
    ann_accuracy: float | None
    snn_accuracy: float
    accuracy: float
    mean_steps: float
    calibration_accuracy: float
    calibration_mean_steps: float
    stages: dict[str, str]
    artefacts: Keys
    resources: Resources | None = None
    on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedPoint:
    """A point in which a stage failed; ``artefacts`` holds the key in the store of each finished stage."""

    setting: Name
    values: dict[str, Value]
    status: Literal["failed"] = "failed"
    error: str
    artefacts: Keys
    resources: Resources | None = None


AnyPoint = Annotated[SweepPoint | FailedPoint, Discriminator("status")]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """``results.json`` of a sweep.

    Attributes:
        failed: the number of failed points.
        tracking_error: why the sweep was not logged to MLflow; None if it was.
        command: the command line.
        overrides: fields whose values differ from the profile's at every point.
    """

    run: Name
    profile: str
    seed: int
    environment: Environment
    failed: int
    tracking_error: str | None = None
    points: tuple[AnyPoint, ...]
    command: str = ""
    overrides: dict[str, Value] = field(default_factory=dict)

    @property
    def finished(self) -> list[SweepPoint]:
        """The finished points."""
        return [point for point in self.points if isinstance(point, SweepPoint)]

    @property
    def front(self) -> list[SweepPoint]:
        """The points on the Pareto fronts of their settings."""
        return [point for point in self.finished if point.on_front]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class FiguresOverSeeds:
    """The main figures of a setting over seeds."""

    ann_accuracy: Spread | None
    snn_accuracy: Spread
    exit_accuracy: Spread
    exit_mean_steps: Spread
    exit_latency_saving: Spread


@dataclass(frozen=True)
class SettingOverSeeds:
    """A setting over seeds; ``figures`` is None if it failed for one of them."""

    name: Name
    figures: FiguresOverSeeds | None


@dataclass(frozen=True)
class OverSeeds:
    """``over_seeds.json``: the runs, and the figures of their settings over all of them."""

    runs: tuple[Name, ...]
    settings: tuple[SettingOverSeeds, ...]
