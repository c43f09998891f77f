"""Traces made up for the tests of analyses, and a second, plain implementation of what an exit rule does to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.traces.schema import Traces


def made(samples: int, seed: int, time_steps: int = 8, classes: int = 4, pull: float = 0.5, **more: Any) -> Traces:
    """Samples whose logits lean towards the label in every step, some of them hardly."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    logits = draw.normal(size=(samples, time_steps, classes))
    logits[np.arange(samples), :, labels] += pull * draw.gamma(2.0, size=(samples, 1))
    return Traces(logits.astype(np.float32), labels, **more)


def with_labels(traces: Traces, labels: NDArray[Any]) -> Traces:
    return Traces(traces.logits, labels, meta=traces.meta)


def running(traces: Traces) -> list[list[list[float]]]:
    """z_t of every sample and step, summed one after the other."""
    found = []
    for sample in traces.logits.astype(np.float64).tolist():
        total = [0.0] * traces.classes
        rows = []
        for step in sample:
            total = [a + b for a, b in zip(total, step, strict=True)]
            rows.append(total)
        found.append(rows)
    return found


def divisor(smoothing: dict[str, Any], step: int) -> float:
    alpha = smoothing["alpha"]
    return float({"sum": alpha, "mean": alpha * step, "power": alpha * step ** smoothing.get("exponent", 0)}[smoothing["form"]])


def scores_of(entry: dict[str, Any], traces: Traces) -> list[list[float]]:
    """The scores of a rule, as `rules` in analysis.json holds it, by the definitions in the documentation of formats."""
    found = []
    for sample, rows in zip(traces.logits.astype(np.float64).tolist(), running(traces), strict=True):
        scores, held, last, recent = [], 0, -1, [0.0] * traces.classes
        for step, z in enumerate(rows, start=1):
            prediction = z.index(max(z))
            held = held + 1 if prediction == last else 1
            last = prediction
            recent = [(a + b) / 2 for a, b in zip(recent, sample[step - 1], strict=True)]
            smoothed = [value / divisor(entry["smoothing"], step) for value in z]
            first, second = sorted(smoothed)[-1], sorted(smoothed)[-2]
            behind = [value - first for place, value in enumerate(smoothed) if place != prediction]
            total = sum(math.exp(value - first) for value in smoothed)
            if entry["measure"] == "max_softmax":
                closest = max(behind)
                scores.append(-(closest + math.log(sum(math.exp(value - closest) for value in behind))))
            elif entry["measure"] == "entropy":
                # The surest class by log1p: near certainty its logarithm is all that is left of the entropy.
                logs = [value - math.log(total) for value in behind] + [-math.log1p(sum(map(math.exp, behind)))]
                scores.append(sum(math.exp(value) * value for value in logs) / math.log(traces.classes))
            elif entry["measure"] == "gap":
                scores.append(first - second)
            elif entry["measure"] == "patience":
                scores.append(float(held))
            else:
                scores.append(learned_score(entry["parameters"], step, z, recent, prediction))
        found.append(scores)
    return found


def learned_score(parameters: dict[str, Any], step: int, z: list[float], recent: list[float], prediction: int) -> float:
    """The log-odds that the prediction is the one at T: a regression on features, on three softmaxes, and on a forecast."""
    lead = sorted(z)[-1] - sorted(z)[-2]
    rival = max(value for place, value in enumerate(recent) if place != prediction)
    root, scale, forecast = math.sqrt(step), parameters["scale"], parameters["forecast"]

    def at_step(values: list[float]) -> float:
        return float(np.interp(math.log(step), np.log(forecast["steps"]), values))

    def odds(values: list[float]) -> float:
        others = [value for place, value in enumerate(values) if place != prediction]
        closest = max(others)
        return values[prediction] - closest - math.log(sum(math.exp(value - closest) for value in others))

    a, b = at_step(forecast["sum_weights"]), at_step(forecast["recent_weights"])
    biases = [at_step(list(of_class)) for of_class in zip(*forecast["biases"], strict=True)]
    ahead = odds([a * z[place] / step + b * recent[place] + bias for place, bias in enumerate(biases)])
    terms = {
        "gap": lead,
        "gap_per_root_step": lead / root,
        "gap_per_step": lead / step,
        "recent_margin_root_step": (recent[prediction] - rival) * root,
        "inverse_root_step": 1 / root,
        "log_step": math.log(step),
        "softmax_sum": odds([value / (1.2 * scale) for value in z]),
        "softmax_root_step": odds([value / (0.3 * scale * root) for value in z]),
        "softmax_mean": odds([value / (0.3 * scale * step) for value in z]),
        "forecast": ahead,
        "forecast_root_step": ahead * root,
    }
    regression = parameters["regression"]
    score = float(regression["intercept"])
    for name, value in terms.items():
        score += regression["weights"][name] * value
        for knot, bend in zip(regression["knots"][name], regression["bends"][name], strict=True):
            score += bend * max(knot - value, 0.0)
    return score


def exits(scores: list[list[float]], threshold: float) -> list[int]:
    """The exit step of each sample, from 1: the first whose score is greater, else the last."""
    return [next((t for t, score in enumerate(row, start=1) if score > threshold), len(row)) for row in scores]


def outcome(traces: Traces, steps: list[int]) -> dict[str, float]:
    """Accuracy and mean steps of samples that exit there."""
    right = [rows[step - 1].index(max(rows[step - 1])) for rows, step in zip(running(traces), steps, strict=True)]
    correct = sum(int(found == label) for found, label in zip(right, traces.labels.tolist(), strict=True))
    return {"accuracy": correct / traces.samples, "mean_steps": sum(steps) / traces.samples}


def operating_points(traces: Traces, scores: list[list[float]]) -> list[tuple[float, float, float]]:
    """(threshold, accuracy, mean steps) for every score as a threshold, and for both infinities; the first of equal exits."""
    found, seen = [], set()
    for threshold in (-math.inf, *sorted({score for row in scores for score in row}), math.inf):
        steps = exits(scores, threshold)
        if tuple(steps) not in seen:
            seen.add(tuple(steps))
            found.append((threshold, *outcome(traces, steps).values()))
    return found


def number(threshold: float | str) -> float:
    return float(threshold)
