"""A readout that depends on the time step: its accuracy at a fixed T and with early exit.

    python benchmarks/readout.py NAME-calibration.npz NAME-test.npz [--time-steps T] [--drops 0,0.001,0.005,0.01]

An SNN's prediction is read from the sum z_t of its outputs. The first outputs of a converted network have a systematic error,
as deep layers have not been charged yet. Here z_t is replaced by

    z'_t = a_t z_t + b_t r_t + c_t        (t < T; at T it remains z_T, so that samples that never exit keep their prediction)

where r_t is an average of the outputs whose weights halve with every step. Two numbers and one bias per class are fitted for
each step by maximum likelihood on the calibration labels (out of fold, since thresholds are chosen on the same images). The
output shows, for both readouts, the accuracy at fixed t and all exit rules.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import measuring
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from dynconf_core.choosing.comparison import DROPS, compare, comparison_lines
from dynconf_core.confidence.features import recent_average
from dynconf_core.traces.schema import Traces

FOLDS = 5
PULL = 1e-4
"""Regularisation of the biases towards 0."""
Readout = list[tuple[float, float, Tensor]]
"""a_t, b_t, c_t (C,) of every step."""


def decoded(calibration: Traces, test: Traces, seed: int = 0) -> tuple[Traces, Traces]:
    """Both traces with running sums z'_t; the calibration traces are computed out of fold."""
    z, r, labels = *_sums(calibration), torch.from_numpy(calibration.labels)
    fold = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)) % FOLDS)
    ours = torch.empty_like(z)
    for number in range(FOLDS):
        kept, held = fold != number, fold == number
        ours[held] = _applied(_fitted(z[kept], r[kept], labels[kept]), z[held], r[held])
    theirs = _applied(_fitted(z, r, labels), *_sums(test))
    return _as_traces(calibration, ours), _as_traces(test, theirs)


def _sums(traces: Traces) -> tuple[Tensor, Tensor]:
    logits = torch.from_numpy(traces.logits.astype(np.float64))
    return logits.cumsum(1), recent_average(logits)


def _fitted(z: Tensor, r: Tensor, labels: Tensor) -> Readout:
    found: Readout = []
    last = z.shape[1] - 1
    for step in range(last + 1):
        size, recent = z[:, step].std(), r[:, step].std()
        a, b = torch.ones((), dtype=z.dtype, requires_grad=True), torch.zeros((), dtype=z.dtype, requires_grad=True)
        c = torch.zeros(z.shape[2], dtype=z.dtype, requires_grad=True)
        free = [a] if step == last else [a, b, c]
        optimiser = torch.optim.LBFGS(free, max_iter=40, line_search_fn="strong_wolfe")
        inputs = z[:, step] / size, r[:, step] / recent

        def loss(inputs=inputs, a=a, b=b, c=c, optimiser=optimiser) -> Tensor:  # type: ignore[no-untyped-def]
            optimiser.zero_grad()
            value = cross_entropy(inputs[0] * a + inputs[1] * b + c, labels) + PULL * c.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        found.append((float(a.detach() / size), float(b.detach() / recent), c.detach()))
    return found


def _applied(readout: Readout, z: Tensor, r: Tensor) -> Tensor:
    return torch.stack([a * z[:, step] + b * r[:, step] + c for step, (a, b, c) in enumerate(readout)], dim=1)


def _as_traces(traces: Traces, sums: Tensor) -> Traces:
    logits: NDArray[np.float64] = torch.diff(sums, dim=1, prepend=torch.zeros_like(sums[:, :1])).numpy()
    return replace(traces, logits=logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--time-steps", type=int)
    parser.add_argument("--drops", type=lambda text: [float(part) for part in text.split(",")], default=DROPS)
    given = parser.parse_args()
    pair = Traces.load(given.calibration), Traces.load(given.test)
    if given.time_steps:
        pair = pair[0].cut(given.time_steps), pair[1].cut(given.time_steps)
    better = decoded(*pair)
    print(f"{measuring.environment_line(torch.get_num_threads())}, numpy {np.__version__}")
    print(f"{given.test.name}: {pair[0].samples} calibration and {pair[1].samples} test samples, T = {pair[0].time_steps}")
    print("step      " + "".join(f"{step:>7}" for step in range(1, pair[0].time_steps + 1)))
    for name, (_, test) in (("sum", pair), ("readout", better)):
        print(f"{name:<10}" + "".join(f"{100 * accuracy:>7.2f}" for accuracy in test.correct().mean(axis=0)))
    for name, (calibration, test) in (("sum", pair), ("readout", better)):
        print(f"\n{name}")
        found = compare(calibration, test, drops=given.drops)
        print("\n".join(comparison_lines(found)))


if __name__ == "__main__":
    main()
