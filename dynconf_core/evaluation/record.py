"""The record of an analysis: the content of ``analysis.json``."""

from __future__ import annotations

from dataclasses import dataclass

from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.choosing.guarantee import GuaranteeRecord
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.energy import Energy, FullAndExit, MultiplyAccumulates
from dynconf_core.evaluation.metrics import Baseline, baseline_called
from dynconf_core.exit.by_class import ClassFigures, GroupFigures
from dynconf_core.exit.judgement import ExitFigures, Judgement
from dynconf_core.exit.oracles import OracleGap, Oracles
from dynconf_core.exit.robustness import Robustness
from dynconf_core.traces.parts import Split


@dataclass(frozen=True)
class AccuracyAtT:
    """Accuracies ``(T,)`` without early exit, on both splits."""

    calibration: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True)
class OraclesOfSplits:
    """The oracles on both splits."""

    calibration: Oracles
    test: Oracles


@dataclass(frozen=True)
class Halves:
    """Indices into the calibration traces: the samples that chose the rule, and those that certified its threshold."""

    choosing: tuple[int, ...]
    certifying: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OwnThreshold:
    """A threshold for one group alone, certified with all others at once.

    Attributes:
        threshold, certified, mean_steps, lost, gained: as in a guarantee, on the guarantee samples of the group.
        threshold_shown: the threshold as shown to people.
        delta: the level of this group's test, the guarantee's delta over the number of groups.
        test: the rule with this threshold on the test samples of the group; None: there are none.
    """

    threshold: float
    threshold_shown: float
    certified: bool
    delta: float
    mean_steps: float
    lost: int
    gained: int
    test: GroupFigures | None


@dataclass(frozen=True, kw_only=True)
class GroupEntry:
    """A guarantee for one group of samples.

    Attributes:
        group: its name.
        samples, lost, gained, mean_steps: of its guarantee samples, at the threshold for all groups.
        test: the rule with this threshold on the test samples of the group; None: there are none.
        own: a threshold for this group alone; None: the group of a sample is not known when it exits.
    """

    group: str
    samples: int
    lost: int
    gained: int
    mean_steps: float
    test: GroupFigures | None
    own: OwnThreshold | None


@dataclass(frozen=True, kw_only=True)
class GuaranteeEntry(GuaranteeRecord):
    """A guarantee as stored with an analysis.

    Attributes:
        threshold_shown: the threshold as shown to people, such as a softmax probability.
        test: the certified rule on the test traces.
        halves: None if there were too few samples for two halves.
        groups: what is certified about each group; None: the guarantee is for all samples together.
    """

    threshold_shown: float
    test: Judgement
    halves: Halves | None = None
    groups: tuple[GroupEntry, ...] | None = None


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: number of samples, mean confidence and accuracy of each bin (None if empty)."""

    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Reliability:
    """Calibration error of the softmax under ``smoothing`` on the test traces.

    Attributes:
        smoothing: the chosen rule's if its score is a softmax; otherwise one fitted on the calibration traces.
        ece_at_t, nll_at_t: expected calibration error, and negative log likelihood in nats, at each time step: ``(T,)``.
        ece_at_exit, nll_at_exit: the same at each sample's exit.
        diagrams: reliability diagrams by time step (as text), and at the "exit".
    """

    smoothing: Smoothing
    ece_at_t: tuple[float, ...]
    nll_at_t: tuple[float, ...]
    ece_at_exit: float
    nll_at_exit: float
    diagrams: dict[str, Bins]


@dataclass(frozen=True)
class LeastLatency:
    """The earliest step at which a test sample exits, and the share of samples that do."""

    at_step: int
    share_of_samples: float


@dataclass(frozen=True, kw_only=True)
class AnalysisRecord:
    """The content of ``analysis.json``; unless stated otherwise, figures on the test traces of the rule that one
    gets: the chosen one or, if a guarantee was asked for, the certified one.

    Attributes:
        time_steps, classes: T and C.
        calibration, test: numbers of samples.
        seed, max_drop: as given.
        split: how one set of traces was split; None if there were two.
        rules: the best rule of each measure; of the chosen measure, the chosen rule.
        chosen: index in ``rules`` of the rule that was chosen from all measures together; a guarantee raises its threshold.
        robustness: robustness of max softmax on the test traces.
        comparison: every measure at every allowed drop.
        warnings: warnings for readers, one sentence each.
        by_class: the figures of each class.
        steps_at_t: the mean number of steps ``(T,)`` that the test samples have had by step t, if some end before T: what a
            fixed step costs. None: t.
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
    by_class: tuple[ClassFigures, ...] = ()
    steps_at_t: tuple[float, ...] | None = None

    @property
    def mean_length(self) -> float | None:
        """The mean number of steps of the test samples, if some end before T."""
        return None if self.steps_at_t is None else self.steps_at_t[-1]

    @property
    def full_steps(self) -> float:
        """The steps without exit: T, or the mean length of the test samples."""
        return self.time_steps if self.mean_length is None else self.mean_length

    @property
    def full_steps_text(self) -> str:
        """The same for people, such as "16", or "12.25 (mean length)"."""
        return str(self.time_steps) if self.mean_length is None else f"{self.mean_length:.2f} (mean length)"

    @property
    def rule(self) -> RuleEntry:
        """The chosen rule."""
        return self.rules[self.chosen]

    def baseline(self, name: str) -> Baseline:
        """The baseline called ``name``: "full", "iso_accuracy", "peak" or "within_0.1_points"."""
        return baseline_called(name, self.baselines)
