"""What an analysis of traces found, as ``analysis.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass

from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.choosing.guarantee import GuaranteeRecord
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.energy import Energy, FullAndExit, MultiplyAccumulates
from dynconf_core.evaluation.metrics import Baseline
from dynconf_core.exit.judgement import ExitFigures, Judgement
from dynconf_core.exit.oracles import OracleGap, Oracles
from dynconf_core.exit.robustness import Robustness
from dynconf_core.traces.parts import Split


@dataclass(frozen=True)
class AccuracyAtT:
    """(T,) accuracies without exit."""

    calibration: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True)
class OraclesOfSplits:
    """The oracles of both splits."""

    calibration: Oracles
    test: Oracles


@dataclass(frozen=True)
class Halves:
    """Places in the calibration traces: of the samples that chose, and of those that certified."""

    choosing: tuple[int, ...]
    certifying: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GuaranteeEntry(GuaranteeRecord):
    """A guarantee with its figures on the test traces; ``halves`` is None where the samples were too few to be parted."""

    test: Judgement
    halves: Halves | None = None


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: of each bin the number of samples, their mean confidence and their accuracy (None: empty)."""

    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Reliability:
    """How well the softmax under ``smoothing`` is calibrated on the test traces.

    Attributes:
        smoothing: the chosen rule's where its score is a softmax, else one fitted on the calibration traces.
        ece_at_t, nll_at_t: (T,) expected calibration error, and negative log likelihood in nats.
        ece_at_exit, nll_at_exit: where the samples exit.
        diagrams: by the step as text, and "exit".
    """

    smoothing: Smoothing
    ece_at_t: tuple[float, ...]
    nll_at_t: tuple[float, ...]
    ece_at_exit: float
    nll_at_exit: float
    diagrams: dict[str, Bins]


@dataclass(frozen=True)
class LeastLatency:
    """The earliest step at which a test sample exits, and the share that does."""

    at_step: int
    share_of_samples: float


@dataclass(frozen=True, kw_only=True)
class AnalysisRecord:
    """``analysis.json``; the figures are those of the chosen rule on the test traces where nothing else is said.

    Attributes:
        time_steps, classes: T and C.
        calibration, test: numbers of samples.
        seed, max_drop: as given.
        split: where one set of traces was split.
        rules: of each measure the best smoothing, of the chosen one the chosen smoothing.
        chosen: the place in ``rules`` of the rule that was chosen from all measures together.
        robustness: of max softmax on the test traces.
        comparison: every measure at every allowed drop.
        warnings: sentences for people.
    """

    time_steps: int
    classes: int
    calibration: int
    test: int
    seed: int
    split: Split | None
    max_drop: float
    accuracy_at_t: AccuracyAtT
    oracles: OraclesOfSplits
    rules: tuple[RuleEntry, ...]
    chosen: int
    guarantee: GuaranteeEntry | None
    exit: ExitFigures
    baselines: tuple[Baseline, ...]
    ann_accuracy: float | None
    reference_accuracy: float | None
    spikes_per_inference: FullAndExit | None
    spikes_per_neuron: FullAndExit | None
    synaptic_operations_per_inference: FullAndExit | None
    multiply_accumulates: MultiplyAccumulates | None
    energy: Energy | None
    oracle_gap: OracleGap
    reliability: Reliability
    robustness: Robustness
    least_latency: LeastLatency
    comparison: tuple[ComparisonRow, ...]
    warnings: tuple[str, ...]

    @property
    def rule(self) -> RuleEntry:
        """The chosen one."""
        return self.rules[self.chosen]

    def baseline(self, name: str) -> Baseline:
        """The baseline of this name: `full`, `iso_accuracy`, `peak` or `within_0.1_points`."""
        return next(one for one in self.baselines if one.name == name)
