"""Results made up for the tests of files, tables and tracking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dynconf_core.choosing.cross_fitting import HowChosen, UnseenLoss
from dynconf_core.choosing.entries import ComparisonRow, RuleEntry
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.energy import FullAndExit
from dynconf_core.evaluation.metrics import Baseline, RuleExit
from dynconf_core.exit.judgement import Judgement, Loss, OperatingPoint
from dynconf_core.exit.oracles import AveragedEarliest, OracleGap, Oracles
from dynconf_core.exit.robustness import AlphaRange, Region, Robustness, ThresholdRange
from dynconf_core.experiment.plan import Published
from dynconf_core.experiment.stages import STAGES
from dynconf_core.results.environment import Environment
from dynconf_core.results.types import (
    ConversionFacts,
    DataFacts,
    FailedSetting,
    NetworkFacts,
    PaperFootnote,
    PaperRows,
    RunResult,
    SettingResult,
)

PUBLISHED = Published("the authors' released log", "S", 0.9379, 0.9427, 27, 0.9427, 11.51)
ENVIRONMENT = Environment("3.11.7", "Linux", "A CPU", 2, None, "abc", {"torch": "2.13.0"})

NAMES = [stage.name for stage in STAGES]


def judgement(accuracy: float = 0.9537, mean_steps: float = 10.25, loss: float = 0.002) -> Judgement:
    """A judgement with intervals of some width."""
    return Judgement(
        accuracy,
        mean_steps,
        loss,
        (accuracy - 0.01, accuracy + 0.01),
        (mean_steps - 0.5, mean_steps + 0.5),
        (1 - (mean_steps + 0.5) / 32, 1 - (mean_steps - 0.5) / 32),
        (loss - 0.001, loss + 0.001),
    )


def rule_entry(threshold: float = float("inf")) -> RuleEntry:
    return RuleEntry(
        measure="max_softmax",
        readout=None,
        smoothing=Smoothing("sum", 3.0),
        threshold=threshold,
        threshold_shown=1.0,
        calibration=Loss(0.96, 10.0, 0.0),
        cross_fitted=UnseenLoss(0.001, (0.0, 0.002), 10.1),
        calibrated=HowChosen("cross-fitted", 300, 24, 5, 0, 0.96, 0.0, 0.003),
        test=judgement(),
    )


def exiting(accuracy: float = 0.9537, mean_steps: float = 10.25, **changes: Any) -> RuleExit:
    found = RuleExit(
        **vars(judgement(accuracy, mean_steps)),
        median_steps=9.0,
        p90_steps=20.0,
        latency_saving=1 - mean_steps / 32,
        speedup=32 / mean_steps,
        histogram=(0, 400, 97),
        rule=rule_entry(),
    )
    return replace(found, **changes)


def compared(measure: str, drop: float, mean_steps: float, loss: float) -> ComparisonRow:
    return ComparisonRow(
        measure=measure,
        readout=None,
        smoothing=Smoothing("sum", 1.0),
        threshold=2.0,
        threshold_shown=2.0,
        name=f"{measure}_drop_{100 * drop:g}",
        max_drop=drop,
        calibration=Loss(0.95, mean_steps, loss),
        cross_fitted=UnseenLoss(loss, (loss - 0.01, loss + 0.01), mean_steps),
        test=judgement(0.9, mean_steps, loss),
    )


def setting_result(name: str = "cifar10-vgg16-qcfs", paper: Published | None = None, **changes: Any) -> SettingResult:
    """A finished setting."""
    point = OperatingPoint(0.9876, 3.33)
    region = Region(ThresholdRange(0.5, 0.4, 0.9, 30.0), AlphaRange(1.0, 3.0, 30.0, 0.7), AlphaRange(2.0, 3.0, 300.0), 0.3)
    found = SettingResult(
        name=name,
        error=None,
        data=DataFacts("digits", "CIFAR-10", 1000, 300, 497),
        network=NetworkFacts("vgg16", 0.125, 532177),
        method="qcfs",
        levels=4,
        time_steps=32,
        fixed_point=True,
        conversion=ConversionFacts(0.98, None),
        ann_accuracy=0.96,
        reference_accuracy=0.96,
        snn_accuracy=0.9557,
        accuracy_at_t=(0.1, 0.5, 0.9557),
        exit=exiting(),
        baselines=(Baseline("full", 32, 0.9557, 0.6796875), Baseline("iso_accuracy", 20, 0.95, 0.4875)),
        oracles=Oracles(point, point, AveragedEarliest(0.9876, 3.33, 3.5)),
        oracle_gap=OracleGap(0.03, 7.0, 0.8, 0.02, 6.0),
        spikes_per_neuron=FullAndExit(3.0, 1.3),
        spikes_per_inference=FullAndExit(30000.0, 13000.0),
        synaptic_operations_per_inference=None,
        multiply_accumulates=None,
        energy=None,
        ece=FullAndExit(0.05, 0.06),
        nll=FullAndExit(0.2, 0.3),
        comparison=(),
        at_paper_time_steps=None,
        robustness=Robustness(region, region, 0.001),
        paper=None if paper is None else PaperRows((paper,)),
        stages=dict.fromkeys(NAMES, "ran"),
        artefacts=dict.fromkeys(NAMES, "0" * 64),
    )
    return replace(found, **changes)


def failed_setting(name: str, error: str) -> FailedSetting:
    return FailedSetting(name=name, error=error, stages=dict.fromkeys(NAMES, "not_run"), artefacts={})


def run_result(*rows: SettingResult | FailedSetting, **changes: Any) -> RunResult:
    """A run of these settings."""
    footnote = PaperFootnote(source="Li", label="2", mean_steps=49.5, net_named=False, family="ImageNet, QCFS")
    found = RunResult(
        run="20260101-000000-smoke-seed0",
        profile="smoke",
        seed=0,
        overrides={},
        command="dynconf reproduce",
        environment=ENVIRONMENT,
        tracking_error=None,
        mean_latency_saving=0.6797,
        paper_footnotes=(footnote,),
        settings=rows,
    )
    return replace(found, **changes)
