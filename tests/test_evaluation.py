"""The figures of a small trace, every one worked out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.evaluation.energy import FullAndExit, MultiplyAccumulates, energy_estimate
from dynconf_core.evaluation.metrics import baselines, evaluate
from dynconf_core.exit.rule import Rule
from dynconf_core.results.records import plain
from dynconf_core.traces.schema import Traces

RULE = Rule("max_softmax", Smoothing("sum", 1.0), 2.0)
MULTIPLIED = {"once": 100, "every_step": 7, "ann": 900}
SPIKES = np.array([[1, 2, 3, 4], [2, 2, 2, 2], [5, 0, 0, 1], [0, 1, 0, 1]])


def traces_of(gaps: list[list[float]], labels: list[int], **more: Any) -> Traces:
    """Accumulated logits (gap_t, 0) of two classes: the score is |gap|, the prediction its sign."""
    steps = np.diff(np.array(gaps), axis=1, prepend=0.0)
    return Traces(np.stack([steps, np.zeros_like(steps)], axis=2), np.array(labels), **more)


def test_traces(**more: Any) -> Traces:
    return traces_of(
        [
            [1, 3, 4, 5],  # label 0: right at all steps; exits at 2 (score 3 > 2), right
            [1, -1, -2.5, -3],  # label 1: wrong, right, right, right; exits at 3, right
            [-3, 1, 1, 2],  # label 0: wrong, right, right, right; exits at 1, wrong
            [-1, -1, 1, 1],  # label 1: right, right, wrong, wrong; exits at 4, wrong
        ],
        [0, 1, 0, 1],
        **more,
    )


test_traces.__test__ = False  # type: ignore[attr-defined]


def calibration_traces() -> Traces:
    """Accuracies 1/2, 1/2, 1, 1; both samples wait till T under RULE."""
    return traces_of([[-1, -1, 1, 1], [1, 1, 1, 3]], [0, 0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cost(gap: float) -> float:
    """-log of the softmax of a class that leads by `gap`."""
    return math.log(1 + math.exp(-gap))


def evaluated(*args: Any, **options: Any) -> dict[str, Any]:
    """The evaluation as files hold it."""
    return plain(evaluate(*args, **options))  # type: ignore[no-any-return]


@pytest.fixture
def figures() -> dict[str, Any]:
    test = test_traces(
        ann_logits=np.array([[1.0, 0.0]] * 4),
        reference_logits=np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]),
        spikes=SPIKES,
        synaptic_operations=10 * SPIKES,
        meta={"neurons": 2, "multiply_accumulates": MULTIPLIED},
    )
    return evaluated(test, calibration_traces(), RULE, paper_time_steps=3)


def test_accuracies(figures: dict[str, Any]) -> None:
    assert figures["accuracy_at_t"] == [0.5, 1.0, 0.75, 0.75]
    assert figures["snn_accuracy"] == 0.75
    assert figures["ann_accuracy"] == 0.5
    assert figures["reference_accuracy"] == 0.75


def test_exit(figures: dict[str, Any]) -> None:
    exit_figures = figures["exit"]
    rule = exit_figures.pop("rule")
    intervals = {name: exit_figures.pop(name) for name in list(exit_figures) if name.endswith("_interval")}
    assert rule == {
        "measure": "max_softmax",
        "readout": None,
        "smoothing": {"form": "sum", "alpha": 1.0},
        "threshold": 2.0,
        "threshold_shown": pytest.approx(sigmoid(2)),
        "calibration": {"accuracy": 1.0, "mean_steps": 4.0, "loss": 0.0},
        "test": {"accuracy": 0.5, "mean_steps": 2.5, "loss": 0.25, **intervals},
    }
    assert Rule.from_json(rule) == RULE
    # Two right of four: Clopper and Pearson's low end p has P(2 or more of 4) = 6 p^2 (1-p)^2 + 4 p^3 (1-p) + p^4 = 0.025.
    low, high = intervals.pop("accuracy_interval")
    assert 6 * low**2 * (1 - low) ** 2 + 4 * low**3 * (1 - low) + low**4 == pytest.approx(0.025) and high == pytest.approx(
        1 - low
    )
    for name, value in (("mean_steps", 2.5), ("latency_saving", 0.375), ("loss", 0.25)):
        low, high = intervals.pop(f"{name}_interval")
        assert low < value < high
    assert not intervals
    assert exit_figures == {
        "accuracy": 0.5,
        "mean_steps": 2.5,
        "loss": 0.25,
        "median_steps": 2.5,
        "p90_steps": pytest.approx(3.7),
        "latency_saving": 0.375,
        "speedup": 1.6,
        "histogram": [1, 1, 1, 1],
    }


def test_baselines(figures: dict[str, Any]) -> None:
    assert figures["baselines"] == [
        {"name": "full", "time_steps": 4, "accuracy": 0.75, "latency_saving": 0.375},
        {"name": "iso_accuracy", "time_steps": 3, "accuracy": 0.75, "latency_saving": 1 - 2.5 / 3},
        {"name": "peak", "time_steps": 2, "accuracy": 1.0, "latency_saving": -0.25},
        {"name": "within_0.1_points", "time_steps": 2, "accuracy": 1.0, "latency_saving": -0.25},
        {"name": "paper", "time_steps": 3, "accuracy": 0.75, "latency_saving": 1 - 2.5 / 3},
    ]


def test_within_a_tenth_of_a_point() -> None:
    accuracy = np.array([0.9, 0.9479, 0.948, 0.95, 0.949])
    found = {entry.name: entry.time_steps for entry in baselines(accuracy, accuracy, 2.0)}
    # 0.949 - 0.001 = 0.948 counts as within, whatever floats make of it; the peak lies at 4.
    assert found == {"full": 5, "iso_accuracy": 4, "peak": 4, "within_0.1_points": 3}


@pytest.mark.parametrize("paper", [None, 5, 0])
def test_the_paper_is_left_out_beyond_t(paper: int | None) -> None:
    accuracy = np.array([0.5, 0.6])
    assert "paper" not in {entry.name for entry in baselines(accuracy, accuracy, 2.0, paper)}


def test_bounds(figures: dict[str, Any]) -> None:
    assert figures["oracles"] == {
        "first_correct": {"accuracy": 1.0, "mean_steps": 1.5},
        "stays_correct": {"accuracy": 0.75, "mean_steps": 2.25},
        "aet": {"accuracy": 1.0, "mean_steps": 1.5, "mean_steps_if_nested": 1.75},
    }


def test_spikes_are_counted_up_to_the_exit(figures: dict[str, Any]) -> None:
    assert figures["spikes_per_inference"] == {"full": 26 / 4, "exit": (3 + 6 + 5 + 2) / 4}
    assert figures["spikes_per_neuron"] == {"full": 3.25, "exit": 2.0}
    assert figures["synaptic_operations_per_inference"] == {"full": 65.0, "exit": 40.0}


def test_the_energy_is_estimated_by_the_stated_formula(figures: dict[str, Any]) -> None:
    """4.6 pJ for each of the image's products once and of the analogue ones in every step, 0.9 pJ for each accumulation."""
    assert figures["multiply_accumulates"] == MULTIPLIED
    energy = figures["energy"]
    assert energy["kind"] == "estimate" and "Horowitz" in energy["source"]
    assert (energy["picojoules_per_mac"], energy["picojoules_per_ac"]) == (4.6, 0.9)
    assert energy["ann"] == pytest.approx(4.6 * 900)
    assert energy["full"] == pytest.approx(4.6 * (100 + 7 * 4) + 0.9 * 65)
    assert energy["exit"] == pytest.approx(4.6 * (100 + 7 * 2.5) + 0.9 * 40)
    names = {"picojoules_per_mac": 4.6, "picojoules_per_ac": 0.9, **MULTIPLIED, "steps": 4, "synaptic_operations": 65}
    assert eval(energy["formula"], {}, names) == pytest.approx(energy["full"]), "the formula says what was done"


def test_the_mean_energy_is_the_energy_of_the_means(figures: dict[str, Any]) -> None:
    """Sample by sample: exits at 2, 3, 1, 4 with 30, 60, 50, 20 operations up to then."""
    each = [4.6 * (100 + 7 * step) + 0.9 * operations for step, operations in ((2, 30), (3, 60), (1, 50), (4, 20))]
    assert figures["energy"]["exit"] == pytest.approx(sum(each) / 4)


def test_other_costs_need_a_source() -> None:
    counts, steps, operations = MultiplyAccumulates.of(MULTIPLIED), FullAndExit(4.0, 2.0), FullAndExit(10.0, 5.0)
    found = energy_estimate(counts, operations, steps, 3.2, 0.1, source="8-bit integers in 45 nm")
    assert found.full == pytest.approx(3.2 * 128 + 1) and found.source == "8-bit integers in 45 nm"
    with pytest.raises(InputError, match="source"):
        energy_estimate(counts, operations, steps, 3.2, 0.1)
    with pytest.raises(InputError, match="picojoules_per_mac=-1"):
        energy_estimate(counts, operations, steps, -1.0, source="x")
    with pytest.raises(InputError, match="picojoules_per_ac=nan"):
        energy_estimate(counts, operations, steps, 1.0, math.nan, source="x")
    with pytest.raises(InputError, match=r"needs once, every_step, ann \(it has once\)"):
        MultiplyAccumulates.of({"once": 1})
    for wrong in (-1, math.inf, math.nan, True, "7"):
        with pytest.raises(InputError, match="give counts"):
            MultiplyAccumulates.of({**MULTIPLIED, "ann": wrong})


def test_reliability(figures: dict[str, Any]) -> None:
    # At T: the gaps 5 and 3 share the last bin, both right; 2 (right) and 1 (wrong) are alone in theirs.
    full = ((2 - sigmoid(5) - sigmoid(3)) + (1 - sigmoid(2)) + sigmoid(1)) / 4
    # At the exit: gap 3 twice, one right and one wrong; 2.5 right and 1 wrong are alone.
    exiting = ((2 * sigmoid(3) - 1) + (1 - sigmoid(2.5)) + sigmoid(1)) / 4
    assert figures["ece"] == {"full": pytest.approx(full), "exit": pytest.approx(exiting)}
    assert figures["nll"] == {
        "full": pytest.approx((cost(5) + cost(3) + cost(2) + cost(-1)) / 4),
        "exit": pytest.approx((cost(3) + cost(2.5) + cost(-3) + cost(-1)) / 4),
    }


def test_the_figures_are_json_and_no_more_than_asked(figures: dict[str, Any]) -> None:
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    bare = evaluated(test_traces(), calibration_traces(), RULE)
    absent = {"ann_accuracy", "reference_accuracy", "synaptic_operations_per_inference", "multiply_accumulates", "energy"}
    assert {bare[name] for name in absent} == {None}
    counted = evaluated(test_traces(synaptic_operations=SPIKES), calibration_traces(), RULE)
    assert counted["synaptic_operations_per_inference"] is not None and counted["energy"] is None
    assert bare["spikes_per_inference"] is None and bare["spikes_per_neuron"] is None
    assert [entry["name"] for entry in bare["baselines"]] == [
        "full",
        "iso_accuracy",
        "peak",
        "within_0.1_points",
    ]
    uncounted = evaluated(test_traces(spikes=SPIKES), calibration_traces(), RULE)
    assert uncounted["spikes_per_inference"] is not None and uncounted["spikes_per_neuron"] is None


@pytest.mark.parametrize(("threshold", "mean_steps", "text"), [(math.inf, 4.0, "inf"), (-math.inf, 1.0, "-inf")])
def test_never_and_at_once(threshold: float, mean_steps: float, text: str) -> None:
    rule = Rule("max_softmax", Smoothing("mean", 3.0), threshold)
    found = evaluated(test_traces(), calibration_traces(), rule)
    assert found["exit"]["mean_steps"] == mean_steps
    assert found["exit"]["rule"]["threshold"] == text
    assert found["exit"]["accuracy"] == found["accuracy_at_t"][int(mean_steps) - 1]
    json.dumps(found, allow_nan=False)


def test_one_step_and_one_sample() -> None:
    found = evaluated(test_traces().cut(1), calibration_traces().cut(1), RULE)
    assert found["exit"]["histogram"] == [4] and found["exit"]["latency_saving"] == 0.0
    single = traces_of([[1, 2]], [0])
    assert evaluated(single, single, RULE)["exit"]["mean_steps"] == 2.0


def test_traces_of_two_snns_are_refused() -> None:
    with pytest.raises(InputError, match=r"4 time steps .* 3 and 2"):
        evaluated(test_traces(), calibration_traces().cut(3), RULE)
