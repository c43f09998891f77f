"""Samples that end before T: every figure as loops over the samples compute it, each sample cut where it ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynconf_core.choosing.guarantee import candidate_thresholds, certify
from dynconf_core.confidence.calibration_error import expected_calibration_error
from dynconf_core.confidence.learned import fit_learned
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.confidence.temperature import fit_power, fitting_alphas
from dynconf_core.evaluation.analysis import Analysis, analyse
from dynconf_core.evaluation.curves import curves_of
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.front import exact_front, paired_front
from dynconf_core.exit.intervals import ratio_interval
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import robustness_map
from dynconf_core.exit.rule import Rule
from dynconf_core.results.records import to_json
from dynconf_core.traces.compact import compact
from dynconf_core.traces.duplicates import duplicates
from dynconf_core.traces.parts import split_in_two, taken
from dynconf_core.traces.schema import Traces, TracesError

SAMPLES, TIME_STEPS, CLASSES = 90, 8, 4
META = {"neurons": 20, "multiply_accumulates": {"once": 0, "every_step": 7, "ann": 11}}


def ragged(seed: int, samples: int = SAMPLES, garbage: bool = True) -> Traces:
    """Noisy traces; what stands after a sample's end is garbage, or zeros."""
    random = np.random.default_rng(seed)
    labels, lengths = random.integers(0, CLASSES, samples), random.integers(1, TIME_STEPS + 1, samples)
    logits = random.normal(0.7 * np.eye(CLASSES)[labels][:, None], 1.0, (samples, TIME_STEPS, CLASSES))
    spikes, operations = (random.integers(0, 9, (samples, TIME_STEPS)) for _ in range(2))
    ended = np.arange(TIME_STEPS) >= lengths[:, None]
    for array in (logits, spikes, operations):
        array[ended] = 50 * array[ended] if garbage else 0
    return Traces(logits, labels, None, spikes, operations, META, lengths=lengths)


@dataclasses.dataclass
class Sample:
    """One sample, up to its end."""

    z: np.ndarray
    label: int
    scores: list[float]
    spikes: np.ndarray
    exit: int

    @property
    def length(self) -> int:
        return len(self.z)

    def right(self, step: int) -> bool:
        """At a step, or at its end if that is earlier."""
        return int(self.z[min(step, self.length) - 1].argmax()) == self.label


def cut_up(traces: Traces, rule: Rule) -> list[Sample]:
    """Each sample alone, its exit as an agent finds it that is given no step after the sample's end."""
    agent, found = ExitAgent(rule), []
    assert traces.spikes is not None
    for logits, label, spikes, end in zip(traces.logits, traces.labels, traces.spikes, traces.ends.tolist(), strict=True):
        state, scores, exit_step = agent.initial(1, traces.classes), [], 0
        for step in range(end):
            _, score, exits, state = agent(torch.from_numpy(logits[step])[None], state)
            scores.append(float(score))
            exit_step = exit_step or (step + 1 if bool(exits) or step + 1 == end else 0)
        found.append(Sample(np.cumsum(logits[:end], axis=0), int(label), scores, spikes[:end], exit_step))
    return found


@pytest.fixture(scope="module")
def pair() -> tuple[Traces, Traces]:
    return ragged(0), ragged(1, 70)


@pytest.fixture(scope="module")
def found(pair: tuple[Traces, Traces]) -> Analysis:
    return analyse(*pair, max_drop=0.03, drops=(0.0,))


def test_figures_of_an_exit(pair: tuple[Traces, Traces], found: Analysis) -> None:
    samples = cut_up(pair[1], found.rule)
    record, figures = found.record, found.record.exit
    exits, lengths = [one.exit for one in samples], [one.length for one in samples]
    assert found.exit_steps.tolist() == exits and len({*exits}) > 3 and exits != lengths
    assert any(one.exit < one.length for one in samples) and any(one.exit == one.length < TIME_STEPS for one in samples)
    mean, full = sum(exits) / len(exits), sum(lengths) / len(lengths)
    assert figures.mean_steps == pytest.approx(mean) and record.full_steps == pytest.approx(full)
    assert figures.latency_saving == pytest.approx(1 - mean / full) and figures.speedup == pytest.approx(full / mean)
    assert figures.accuracy == pytest.approx(np.mean([one.right(one.exit) for one in samples]))
    assert figures.loss == pytest.approx(np.mean([one.right(TIME_STEPS) - one.right(one.exit) for one in samples]))
    assert figures.histogram == tuple(exits.count(step) for step in range(1, TIME_STEPS + 1))
    assert record.accuracy_at_t.test == pytest.approx(
        [np.mean([one.right(step) for one in samples]) for step in range(1, TIME_STEPS + 1)]
    )
    assert record.steps_at_t == pytest.approx([np.mean(np.minimum(lengths, step)) for step in range(1, TIME_STEPS + 1)])
    for one in record.baselines:
        assert one.latency_saving == pytest.approx(1 - mean / np.mean(np.minimum(lengths, one.time_steps)))
    assert record.spikes_per_inference is not None and record.energy is not None
    assert record.spikes_per_inference.full == pytest.approx(np.mean([one.spikes.sum() for one in samples]))
    assert record.spikes_per_inference.exit == pytest.approx(np.mean([one.spikes[: one.exit].sum() for one in samples]))
    operations = record.synaptic_operations_per_inference
    assert operations is not None
    assert record.energy.full == pytest.approx(4.6 * 7 * full + 0.9 * operations.full)
    assert f"of {full:.2f} (mean length) time steps" in str(found)


def test_the_interval_of_the_saving_draws_exits_with_their_lengths(pair: tuple[Traces, Traces], found: Analysis) -> None:
    low, high = found.record.exit.latency_saving_interval
    random, drawn = np.random.default_rng(5), []
    exits, lengths = found.exit_steps, pair[1].ends
    for _ in range(3000):
        rows = random.integers(0, len(exits), len(exits))
        drawn.append(1 - exits[rows].sum() / lengths[rows].sum())
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    assert found.record.rule.test.latency_saving_interval == (low, high), "the same rule, as an entry of all"
    assert ratio_interval(lengths, lengths) == (1.0, 1.0)


def test_oracles(pair: tuple[Traces, Traces], found: Analysis) -> None:
    samples = cut_up(pair[1], found.rule)
    steps = {"first": [], "stays": [], "nested": []}
    for one in samples:
        right = [one.right(step + 1) for step in range(one.length)]
        steps["first"].append(right.index(True) + 1 if any(right) else one.length)
        run = next((place for place, well in enumerate(reversed(right)) if not well), one.length)
        steps["stays"].append(min(one.length - run + 1, one.length))
        # 1 a_1 + 2 (a_2 - a_1) + ... + L (a_L - a_{L-1}) + L (1 - a_L)
        steps["nested"].append(
            sum((t + 1) * (right[t] - (right[t - 1] if t else 0)) for t in range(one.length)) + one.length * (1 - right[-1])
        )
    ends = [next((t + 1 for t in range(one.length) if one.right(t + 1)), one.length) for one in cut_up(pair[0], found.rule)]
    assert found.record.oracles.calibration.first_correct.mean_steps == pytest.approx(np.mean(ends))
    oracles = found.record.oracles.test
    assert oracles.first_correct.mean_steps == oracles.aet.mean_steps == pytest.approx(np.mean(steps["first"]))
    assert oracles.stays_correct.mean_steps == pytest.approx(np.mean(steps["stays"]))
    assert oracles.stays_correct.accuracy == pytest.approx(found.record.accuracy_at_t.test[-1])
    assert oracles.aet.mean_steps_if_nested == pytest.approx(np.mean(steps["nested"]))
    gap, full = found.record.oracle_gap, found.record.full_steps
    assert gap.share_of_saving == pytest.approx((full - found.record.exit.mean_steps) / (full - np.mean(steps["first"])))
    costs, accuracy = oracle_curve(pair[1].correct())
    assert costs[-1] <= np.mean(steps["first"]) and accuracy[-1] == pytest.approx(oracles.first_correct.accuracy)


def test_the_front_is_that_of_all_thresholds(pair: tuple[Traces, Traces], found: Analysis) -> None:
    calibration, rule = pair[0], Rule("gap", Smoothing("sum", 1.0), 0.0)
    samples, points = cut_up(calibration, rule), {}
    for threshold in (-np.inf, *sorted({score for one in samples for score in one.scores}), np.inf):
        exits = [
            next((step + 1 for step, score in enumerate(one.scores[:-1]) if score > threshold), one.length) for one in samples
        ]
        accuracy = np.mean([one.right(step) for one, step in zip(samples, exits, strict=True)])
        points.setdefault(round(float(np.mean(exits)), 9), round(float(accuracy), 9))
    scores, right = rule.scores(calibration), calibration.correct()
    front, paired = (make(scores, right, calibration.lengths) for make in (exact_front, paired_front))
    assert dict(zip(front.mean_steps.round(9), front.accuracy.round(9), strict=True)) == points
    assert (np.diff(front.mean_steps) > 0).all()
    np.testing.assert_allclose(right[:, -1].mean() - paired.loss, front.accuracy)
    for whole in (found.front, front, *found.test_fronts.values()):
        assert whole.mean_steps[-1] == (pair[1] if whole in found.test_fronts.values() else calibration).ends.mean()


def test_the_map_of_robustness_counts_the_same_steps(pair: tuple[Traces, Traces]) -> None:
    found = robustness_map(pair[1], [0.5, 2.0], [0.6, 0.9])
    for row, alpha in enumerate((0.5, 2.0)):
        for column, threshold in enumerate((0.6, 0.9)):
            rule = Rule("max_softmax", Smoothing("sum", alpha), float(np.log(threshold) - np.log1p(-threshold)))
            samples = cut_up(pair[1], rule)
            assert found.mean_steps[row, column] == pytest.approx(np.mean([one.exit for one in samples]))
            assert found.accuracy[row, column] == pytest.approx(np.mean([one.right(one.exit) for one in samples]))
    assert found.time_steps == pytest.approx(pair[1].ends.mean())


def test_a_choice_and_a_guarantee_count_the_same_steps() -> None:
    chosen, test = ragged(3, 600), ragged(4, 100)
    certified = analyse(chosen, test, epsilon=0.15, delta=0.2, measures=["gap"], drops=())
    assert certified.guarantee is not None and certified.record.guarantee is not None and certified.guarantee.certified
    halves = certified.record.guarantee.halves
    assert halves is not None
    before, after = (cut_up(chosen, rule) for rule in (certified.uncertified, certified.rule))
    choosing, samples = [before[place] for place in halves.choosing], [after[place] for place in halves.certifying]
    assert certified.choice.calibration.mean_steps == pytest.approx(np.mean([one.exit for one in choosing]))
    assert certified.guarantee.mean_steps == pytest.approx(np.mean([one.exit for one in samples]))
    net = sum(one.right(TIME_STEPS) - one.right(one.exit) for one in samples)
    assert certified.guarantee.lost - certified.guarantee.gained == net
    half = taken(chosen, np.array(halves.choosing))
    front = paired_front(certified.rule.scores(half), half.correct(), half.lengths)
    assert certified.guarantee.tests.thresholds.tolist() == [t for t in candidate_thresholds(front, 0.15) if t < np.inf]
    never = certify(certified.rule.scores(test), test.correct(), [], 0.1, 0.1, lengths=test.lengths)
    assert never.mean_steps == never.full_steps == pytest.approx(test.ends.mean())


def test_calibration_error_at_each_step_and_at_the_exit(pair: tuple[Traces, Traces]) -> None:
    """After a sample's end its temperature stays, too."""
    rule = Rule("max_softmax", Smoothing("mean", 0.4), 2.0)
    samples = cut_up(pair[1], rule)
    curves = curves_of(pair[1], rule)
    reliability = curves.reliability
    assert reliability is not None and curves.mean_length == pytest.approx(curves.front.mean_steps[-1], abs=1e-6)
    for shown in (*curves.easiest, *curves.hardest):
        own = samples[shown.index]
        assert (shown.exit_step, len(shown.predictions)) == (own.exit, own.length)
        assert shown.scores == pytest.approx(own.scores, rel=1e-5)

    def error(steps: list[int]) -> float:
        confidence, right = [], []
        for one, step in zip(samples, steps, strict=True):
            smoothed = one.z[step - 1] / (0.4 * step)
            confidence.append(float(1 / np.exp(smoothed - smoothed.max()).sum()))
            right.append(one.right(step))
        return expected_calibration_error(np.array(confidence), np.array(right))

    ends = [[min(step, one.length) for one in samples] for step in range(1, TIME_STEPS + 1)]
    assert reliability.ece_at_t == pytest.approx([error(steps) for steps in ends])
    assert reliability.ece_at_exit == pytest.approx(error([one.exit for one in samples]))


def test_fits_see_no_step_after_the_end(pair: tuple[Traces, Traces]) -> None:
    traces = pair[0]
    gaps = [np.diff(np.sort(one.z[-1]))[-1] / one.length for one in cut_up(traces, Rule("gap", Smoothing("sum", 1.0), 0.0))]
    assert fitting_alphas(traces, "mean")[0] == pytest.approx(0.03 * np.median(gaps))

    def cost(smoothing: Smoothing) -> float:
        total, count = 0.0, 0
        for logits, label, end in zip(traces.logits, traces.labels, traces.ends, strict=True):
            z = np.cumsum(logits[:end], axis=0) / (
                smoothing.alpha * np.arange(1, end + 1)[:, None] ** (smoothing.exponent or 0)
            )
            total -= float((z[:, label] - np.log(np.exp(z).sum(axis=1))).sum())
            count += int(end)
        return total / count

    best = fit_power(traces)
    assert best.exponent is not None
    for factor, more in ((1.004, 0.0), (0.996, 0.0), (1.0, 0.004), (1.0, -0.004)):
        assert cost(best) < cost(Smoothing("power", best.alpha * factor, best.exponent + more))
    clean = ragged(0, garbage=False)
    assert fit_learned(traces) == fit_learned(clean)
    longer = dataclasses.replace(
        clean,
        logits=np.pad(clean.logits, ((0, 0), (0, 7), (0, 0))),
        spikes=None,
        synaptic_operations=None,
    )
    assert fit_learned(longer) == fit_learned(clean), "padding taught it something"


def test_what_stands_after_the_end_changes_nothing(pair: tuple[Traces, Traces], found: Analysis) -> None:
    clean = analyse(ragged(0, garbage=False), ragged(1, 70, garbage=False), max_drop=0.03, drops=(0.0,))
    assert to_json(clean.record) == to_json(found.record) and clean.rule == found.rule
    assert to_json(curves_of(pair[1], found.rule)) == to_json(curves_of(ragged(1, 70, garbage=False), found.rule))
    assert duplicates(pair[0], ragged(0, garbage=False)).shared == SAMPLES
    cut = dataclasses.replace(pair[0], lengths=np.maximum(pair[0].ends - 1, 1))
    assert duplicates(pair[0], cut).shared == int((pair[0].ends == 1).sum())
    silent = [Traces(np.zeros((2, 4, 3)), np.zeros(2, np.int64), lengths=np.array(ends)) for ends in ((2, 3), (4, 3), (4, 4))]
    shared = [duplicates(silent[0], other).shared for other in silent]
    assert shared == [2, 1, 0], "a sample that ends elsewhere is another one, alike as they are"


def test_lengths_of_t_are_no_lengths(pair: tuple[Traces, Traces]) -> None:
    whole = [dataclasses.replace(traces, lengths=None) for traces in pair]
    given = [dataclasses.replace(traces, lengths=np.full(traces.samples, TIME_STEPS)) for traces in pair]
    plain, same = (
        to_json(analyse(*traces, max_drop=0.03, drops=(0.0,), measures=["gap", "max_softmax"]).record)
        for traces in (whole, given)
    )
    assert "steps_at_t" not in plain and same.pop("steps_at_t") == list(range(1, TIME_STEPS + 1))
    assert flattened(same) == pytest.approx(flattened(plain))


def flattened(content: Any, path: str = "") -> dict[str, Any]:
    """Numbers by place."""
    if isinstance(content, dict):
        return {key: value for name, part in content.items() for key, value in flattened(part, f"{path}/{name}").items()}
    if isinstance(content, list):
        return {key: value for place, part in enumerate(content) for key, value in flattened(part, f"{path}/{place}").items()}
    return {path: content} if isinstance(content, int | float) else {}


@pytest.mark.parametrize("name", ["lengths.npz", "lengths"])
def test_files_keep_them(name: str, tmp_path: Path, pair: tuple[Traces, Traces]) -> None:
    back = Traces.load(pair[0].save(tmp_path / name))
    assert back.ends.tolist() == pair[0].ends.tolist() and back.lengths is not None and back.lengths.dtype == np.int64
    np.testing.assert_array_equal(back.predictions(), pair[0].predictions())
    np.testing.assert_array_equal(
        back.predictions(), np.take_along_axis(back.predictions(), np.minimum(np.arange(8), back.ends[:, None] - 1), axis=1)
    )


def test_parts_and_cuts_keep_them(pair: tuple[Traces, Traces], found: Analysis) -> None:
    one, other, split = split_in_two(pair[0], 0)
    assert one.ends.tolist() == pair[0].ends[list(split.calibration)].tolist()
    assert other.ends.tolist() == pair[0].ends[list(split.test)].tolist()
    assert pair[0].cut(3).ends.tolist() == np.minimum(pair[0].ends, 3).tolist()
    small = compact(pair[0], found.rule.exit_steps)
    assert small.ends.tolist() == pair[0].ends.tolist() and not small.logits[np.arange(8) >= small.ends[:, None]].any()
    np.testing.assert_array_equal(small.predictions(), pair[0].predictions())
    np.testing.assert_array_equal(found.rule.exit_steps(small), found.rule.exit_steps(pair[0]))


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (np.zeros(SAMPLES, np.int64), "lengths of sample 0 .* is 0; .* from 1 to 8"),
        (np.full(SAMPLES, 9), "is 9; .* from 1 to 8"),
        (np.full(SAMPLES, 2.0), "lengths has the type float64"),
        (np.full(SAMPLES - 1, 2), "lengths has the shape"),
        ([2] * SAMPLES, "lengths is a list"),
    ],
)
def test_refuses(lengths: Any, words: str) -> None:
    with pytest.raises(TracesError, match=words):
        dataclasses.replace(ragged(0), lengths=lengths)
