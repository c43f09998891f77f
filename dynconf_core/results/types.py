"""What settings, runs, sweeps and seeds found, as files hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from dynconf_core.evaluation.setting import SettingFigures
from dynconf_core.experiment.plan import Published
from dynconf_core.results.environment import Environment

Value = str | int | float | bool | None
"""Of a field that can be overridden."""


@dataclass(frozen=True)
class DataFacts:
    """The images: the data set, what it stands in for, and how many of them train, calibrate and test."""

    name: str
    stands_in_for: str | None
    train: int
    calibration: int
    test: int


@dataclass(frozen=True)
class NetworkFacts:
    """The network: architecture, width as a factor, number of parameters."""

    architecture: str
    width: float
    parameters: int | None


@dataclass(frozen=True)
class ConversionFacts:
    """Of some calibration images: agreement of the SNN at T with the ANN, and the layer where it falls most, if any."""

    agreement: float | None
    worst_layer: str | None


@dataclass(frozen=True)
class PaperRows:
    """The paper's figures as printed, each with its label and source."""

    rows: tuple[Published, ...]


@dataclass(frozen=True)
class PaperFootnote(Published):
    """A row of the paper whose network is not named; `family` is the data set and the method."""

    family: str = ""


@dataclass(frozen=True, kw_only=True)
class SettingFacts:
    """What was run.

    Attributes:
        name: of the setting.
        status, error: "ok" and None.
        data, network, conversion: see their types.
        method: of the conversion: qcfs, qffs.
        levels, bits: L of QCFS, the bits of QFFS.
        scheme: further fields of the conversion scheme, such as the initial membrane potential.
        time_steps: T.
        fixed_point: whether the weights are rounded so that float32 is exact.
    """

    name: str
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


@dataclass(frozen=True, kw_only=True)
class SettingResult(SettingFigures, SettingFacts):
    """A finished setting: what was run (which stands first in files), its figures, and how it came about.

    Attributes:
        paper: None where no row is known.
        stages: "ran", "cached" or "given" by stage.
        artefacts: the store's key by stage.
    """

    paper: PaperRows | None
    stages: dict[str, str]
    artefacts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class FailedSetting:
    """A setting of which a stage raised; ``stages`` has "failed" and "not_run" too."""

    name: str
    status: Literal["failed"] = "failed"
    error: str
    stages: dict[str, str]


AnySetting = Annotated[SettingResult | FailedSetting, Discriminator("status")]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """``results.json`` of a reproduction.

    Attributes:
        run: its name.
        overrides: fields whose value differs from the profile's.
        command: what was typed.
        tracking_error: why it is not in MLflow, if it is not.
        mean_latency_saving: over the finished settings; None where there is none.
        paper_footnotes: rows of the paper whose network is not named.
    """

    run: str
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
        """The settings that are done."""
        return [row for row in self.settings if isinstance(row, SettingResult)]

    @property
    def failed(self) -> list[FailedSetting]:
        """The others."""
        return [row for row in self.settings if isinstance(row, FailedSetting)]


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A finished point of a sweep.

    Attributes:
        values: of the fields that are swept.
        accuracy, mean_steps: of the exit on the test split; shown, never a study's aim.
        calibration_accuracy, calibration_mean_steps: on the calibration split, which leads a study.
        on_front: whether no other point of the same setting has both a higher accuracy and fewer steps.
    """

    setting: str
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
    on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedPoint:
    """A point of which a stage raised."""

    setting: str
    values: dict[str, Value]
    status: Literal["failed"] = "failed"
    error: str


AnyPoint = Annotated[SweepPoint | FailedPoint, Discriminator("status")]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """``results.json`` of a sweep; ``failed`` is the number of points that failed."""

    run: str
    profile: str
    seed: int
    environment: Environment
    failed: int
    points: tuple[AnyPoint, ...]


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
    """A setting over seeds; ``figures`` is None where it failed in one of them."""

    name: str
    figures: FiguresOverSeeds | None


@dataclass(frozen=True)
class OverSeeds:
    """``over_seeds.json``: the runs and their settings' figures over them."""

    runs: tuple[str, ...]
    settings: tuple[SettingOverSeeds, ...]
