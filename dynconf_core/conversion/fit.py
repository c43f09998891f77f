"""The fit of one layer of neurons on its input currents: threshold, V(0) and shift of the bias of each channel.

1. the threshold is scaled, and V(0) chosen, to minimise the squared error between the mean output up to T / 4, T / 2 and T
   steps and the ANN's activation (of neurons whose count settles: of the settled output);
2. the bias is shifted by the mean error that remains at T.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core.conversion.emission import Emission

SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
INITIAL = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8)
"""Candidates for V(0), in units of the threshold; the first is the value without correction."""
ROUNDS = 3
"""Rounds of bias correction: shifting a bias changes which neurons are clipped at 0 and at the threshold."""


@dataclass(frozen=True)
class Sample:
    """What a layer is fitted on: some positions of all images.

    Attributes:
        currents: input currents ``(steps, S, C)``.
        targets: the ANN's activations ``(S, C)``.
    """

    currents: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Fitted:
    """One number a channel, ``(C,)``: the threshold (``()`` if it was given so and kept), V(0) in thresholds, and the shift of
    the bias."""

    theta: Tensor
    initial: Tensor
    shift: Tensor


def fitted(emission: Emission, sample: Sample, theta: Tensor, refit: bool, highest: Tensor | None = None) -> Fitted:
    """The fit.

    Args:
        emission: how the layer responds.
        sample: what it is fitted on.
        theta: the threshold to begin with, ``()`` or ``(C,)``.
        refit: whether the threshold may change; a learned one may not.
        highest: the upper limit of the activation, which no threshold exceeds; ``()`` or ``(C,)``.
    """
    channels = sample.targets.shape[1]
    initial = torch.full((channels,), 0.5, device=sample.targets.device)
    shift = torch.zeros(channels, device=sample.targets.device)
    if refit:
        theta = theta.expand(channels)
        scaled = [theta * scale for scale in SCALES]
        if highest is not None:
            scaled = [torch.minimum(one, highest) for one in scaled]
        theta = _best(emission, sample, [(one, initial) for one in scaled], shift)[0]
    if emission.neurons.free_potential:
        initial = _best(emission, sample, [(theta, torch.full_like(initial, start)) for start in INITIAL], shift)[1]
    for _ in range(ROUNDS):
        mean = _means(emission, sample, theta, initial, shift)[-1]
        shift = shift + (sample.targets - mean).mean(0, dtype=torch.float64).float()
    return Fitted(theta, initial, shift)


def _best(emission: Emission, sample: Sample, candidates: list[tuple[Tensor, Tensor]], shift: Tensor) -> tuple[Tensor, Tensor]:
    """For each channel, the candidate with the least squared error; the earlier one if equal."""
    best: Tensor | None = None
    chosen = candidates[0]
    for theta, initial in candidates:
        means = _means(emission, sample, theta, initial, shift)
        errors = [(mean - sample.targets).square_().mean(0, dtype=torch.float64) for mean in means]
        error = torch.stack(errors).mean(0)
        if best is None:
            best, chosen = error, (theta, initial)
            continue
        better = error < best * (1 - 1e-6)
        best = torch.where(better, error, best)
        chosen = (torch.where(better, theta, chosen[0]), torch.where(better, initial, chosen[1]))
    return chosen


def _means(emission: Emission, sample: Sample, theta: Tensor, initial: Tensor, shift: Tensor) -> list[Tensor]:
    """The mean outputs ``(S, C)`` up to each of the steps that are compared."""
    height = emission.height(theta)
    total, found = torch.zeros_like(sample.targets), []
    for step, spikes in enumerate(emission.spikes(sample.currents, theta, initial, shift), start=1):
        total += spikes
        if step in emission.marks:
            found.append(emission.mean(total * height, step))
    return found
