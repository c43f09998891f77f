"""What a layer of neurons sends in response to its input current: over T time steps, or at once where the count settles.

A train has one value for each of ``steps`` time steps. Neurons whose net spike count settles at a quantised activation are
looked at after they have settled: the whole count in a single step. It is the same number after T time steps, as long as T
leaves time to settle, and takes a T-th of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core.neurons.model import NeuronModel, State

EARLIEST = 3
"""The first time step at which mean outputs are compared: after one or two steps they are 0, 1/2 or 1 threshold, and fitting
those costs more at T than it gains."""


@dataclass(frozen=True)
class Emission:
    """The response of every layer.

    Attributes:
        neurons: the neuron model.
        time_steps: T.
    """

    neurons: NeuronModel
    time_steps: int

    @property
    def settled(self) -> bool:
        """Whether the count is taken after it has settled."""
        return self.neurons.levels is not None

    @property
    def steps(self) -> int:
        """The length of a train."""
        return 1 if self.settled else self.time_steps

    @property
    def acting(self) -> int:
        """The number of steps of a train in which the image and the biases act."""
        return 1 if self.settled else self.neurons.active_steps or self.time_steps

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which mean outputs are compared with the ANN's activations: T, and T / 4 and T / 2 if a mean output
        means anything before the end."""
        early = () if self.settled or self.neurons.active_steps else (self.time_steps // 4, self.time_steps // 2)
        return (*(mark for mark in early if mark >= EARLIEST), self.steps)

    @property
    def sends(self) -> tuple[int, int]:
        """Bounds of a train's values."""
        return (0, self.neurons.levels or 0) if self.settled else self.neurons.sends

    def height(self, theta: Tensor) -> Tensor:
        """What the next layer receives for each spike of a train."""
        return theta / (self.neurons.levels or 1) if self.settled else theta

    def mean(self, total: Tensor, step: int) -> Tensor:
        """The mean output, from the sum of a train up to ``step``."""
        return total if self.settled else total / (self.neurons.active_steps or step)

    def spikes(self, currents: Tensor, theta: Tensor, initial: Tensor, shift: Tensor) -> Iterator[Tensor]:
        """A train, step by step.

        Args:
            currents: input currents ``(steps, N, ...)``.
            theta, initial, shift: threshold, V(0) in thresholds, and a current added to the bias; they broadcast with one
                step of ``currents``.
        """
        if self.settled:
            levels = int(self.neurons.levels or 0)
            yield ((currents[0] + shift) / theta).mul_(levels).add_(initial).floor_().clamp_(0, levels)
            return
        state: State | None = None
        for step, raw in enumerate(currents):
            current = (raw + shift if step < self.acting else raw) / theta
            before = self.neurons.initial(current, initial) if state is None else state
            spikes, state = self.neurons.step(current, before, reuse=True)
            yield spikes

    def train(self, currents: Tensor, theta: Tensor, initial: Tensor, shift: Tensor) -> Tensor:
        """A whole train ``(steps, N, ...)``."""
        sent = torch.empty_like(currents)
        for out, spikes in zip(sent, self.spikes(currents, theta, initial, shift), strict=True):
            out.copy_(spikes)
        return sent
