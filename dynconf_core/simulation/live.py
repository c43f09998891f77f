"""Inference that stops: every sample runs until the agent is confident, and its place goes to the next one.

Finished samples leave the batch, so that nobody computes for them. While the stream lasts, their places are refilled in lots
(the rows of a few new samples are written over those that have left); after it, the batch is compacted: the rows that stay are
taken from every state tensor. Predictions, exit steps and counts are those of exiting on collected traces, for any batch size;
with grid weights the logits are too, bit for bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import AgentState, ExitAgent
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.footprint import batch_size
from dynconf_core.simulation.network import Drive, SpikingNetwork, State

LOT = 16
"""A refill waits until one place in so many is free: each costs some calls for every state tensor."""


@dataclass(frozen=True)
class Exits:
    """What became of N samples, in the order in which they were given.

    Attributes:
        predictions: the class ``(N,)``.
        steps: time steps taken ``(N,)``, from 1.
        scores: the agent's confidence at the exit ``(N,)``, in units of its rule's score.
        spikes: emitted until the exit ``(N,)``, a negative one counting 1.
        synaptic_operations: until the exit ``(N,)``.
        logits: their sum over the steps until the exit ``(N, C)`` float64.
    """

    predictions: NDArray[np.int64]
    steps: NDArray[np.int64]
    scores: NDArray[np.float64]
    spikes: NDArray[np.int64]
    synaptic_operations: NDArray[np.int64]
    logits: NDArray[np.float64]


@torch.inference_mode()
def run_until_confident(
    snn: SpikingNetwork,
    agent: ExitAgent,
    images: Images | Tensor,
    time_steps: int,
    *,
    batch: int | None = None,
    memory: int | None = None,
) -> Exits:
    """Classify ``images``, each as soon as the agent is confident, at the latest after ``time_steps`` steps.

    Args:
        snn: the converted network, on the device that is to run it.
        agent: the exit rule.
        images: a split, or normalised images ``(N, ...)``.
        time_steps: T.
        batch: samples at a time; None: what suits device and ``memory`` (bytes).

    Raises:
        InputError: where network, images and wishes do not fit together.
    """
    count = len(images)
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}: give at least 1.")
    size = max(1, min(count, batch or batch_size(snn, memory)))
    with plain_arithmetic():
        check_exactness(snn, size)
        snn.accelerate(size)
        run = _Run(snn, agent, time_steps, count)
        stream = _Stream(snn, images, time_steps)
        if count:
            run.begin(stream.take(size))
        while run.busy:
            run.step()
            free = run.free
            if stream.left and free >= max(1, min(size // LOT, stream.left)):
                run.refill(stream.take(free))
            if not stream.left and run.free:
                run.compact()
    return run.exits()


class _Stream:
    """Normalised images, taken in order."""

    def __init__(self, snn: SpikingNetwork, images: Images | Tensor, time_steps: int) -> None:
        self.snn, self.images, self.time_steps, self.taken = snn, images, time_steps, 0

    @property
    def left(self) -> int:
        return len(self.images) - self.taken

    def take(self, most: int) -> Tensor:
        """The next ones."""
        indices = torch.arange(self.taken, self.taken + min(most, self.left))
        self.taken += len(indices)
        if isinstance(self.images, Tensor):
            pixels = self.images[indices].to(self.snn.device)
        else:
            pixels = self.images.normalisation(self.images.batch(indices).cpu()).to(self.snn.device)  # as ``collect`` does
        self.snn.check(pixels, self.time_steps)
        return pixels


class _Run:
    """The batch: one row a sample, the same row in every tensor."""

    def __init__(self, snn: SpikingNetwork, agent: ExitAgent, time_steps: int, count: int) -> None:
        self.snn, self.agent, self.time_steps = snn, agent, time_steps
        self.counter = Counter(snn)
        self.next = 0
        classes = snn.graph.output.channels
        whole, real = np.int64, np.float64
        self.found = Exits(
            predictions=np.zeros(count, whole),
            steps=np.zeros(count, whole),
            scores=np.zeros(count, real),
            spikes=np.zeros(count, whole),
            synaptic_operations=np.zeros(count, whole),
            logits=np.zeros((count, classes), real),
        )
        self.active: NDArray[np.bool_] = np.zeros(0, bool)

    @property
    def busy(self) -> bool:
        return bool(self.active.any())

    @property
    def free(self) -> int:
        return int((~self.active).sum())

    def begin(self, pixels: Tensor) -> None:
        """The first batch."""
        size = len(pixels)
        self.drive = self.snn.drive(pixels)
        self.state: State | None = None
        self.agent_state = self.agent.initial(size, self.snn.graph.output.channels, self.snn.device)
        self.clock = torch.zeros(size, dtype=torch.int64)
        self.counts = torch.zeros(size, 2, dtype=torch.int64, device=self.snn.device)
        self.sample = np.arange(size)
        self.active = np.ones(size, bool)
        self.next = size

    def step(self) -> None:
        """One time step of every row; who is confident, or at T, leaves."""
        self.clock += 1
        first = int(self.clock[0])
        together = bool((self.clock == first).all())
        clock: int | Tensor = first if together else self.clock.to(self.snn.device)
        step = self.snn.step(self.drive, self.state, clock, self.counter)
        self.state = step.state
        self.counts += torch.stack(self.counter.totals(self.counter.taken()), dim=1)
        prediction, score, exits, self.agent_state = self.agent(step.logits, self.agent_state)
        leaving = self.active & (exits.cpu().numpy() | (self.clock.numpy() >= self.time_steps))
        if not leaving.any():
            return
        rows = torch.from_numpy(np.flatnonzero(leaving))
        there, on_device = self.sample[leaving], rows.to(self.snn.device)
        self.found.predictions[there] = prediction[on_device].cpu().numpy()
        self.found.scores[there] = score[on_device].cpu().numpy()
        self.found.steps[there] = self.clock[rows].numpy()
        counts = self.counts[on_device].cpu().numpy()
        self.found.spikes[there], self.found.synaptic_operations[there] = counts[:, 0], counts[:, 1]
        self.found.logits[there] = self.agent_state.accumulated[on_device].cpu().numpy()
        self.active[leaving] = False

    def refill(self, pixels: Tensor) -> None:
        """New samples into free rows; rows that stay free go on unwatched."""
        rows = torch.from_numpy(np.flatnonzero(~self.active)[: len(pixels)])
        on_device = rows.to(self.snn.device)
        for name, value in self.snn.drive(pixels).values.items():
            self.drive.values[name][on_device] = value
        assert self.state is not None
        for name, tensors in self.snn.initial_state(self.state).items():
            for kept, fresh in zip(self.state[name], tensors, strict=True):
                kept[on_device] = fresh
        fresh_agent = self.agent.initial(len(pixels), self.snn.graph.output.channels, self.snn.device)
        for kept, fresh in zip(self.agent_state, fresh_agent, strict=True):
            kept[on_device] = fresh
        self.clock[rows] = 0
        self.counts[on_device] = 0
        self.sample[rows.numpy()] = np.arange(self.next, self.next + len(pixels))
        self.active[rows.numpy()] = True
        self.next += len(pixels)

    def compact(self) -> None:
        """Keep the active rows alone."""
        rows = torch.from_numpy(np.flatnonzero(self.active))
        on_device = rows.to(self.snn.device)
        values = {name: value[on_device] for name, value in self.drive.values.items()}
        self.drive = Drive(values, len(rows))
        assert self.state is not None
        self.state = {name: _selected(layer, on_device) for name, layer in self.state.items()}
        self.agent_state = AgentState(*(tensor[on_device] for tensor in self.agent_state))
        self.clock, self.counts = self.clock[rows], self.counts[on_device]
        self.sample = self.sample[self.active]
        self.active = np.ones(len(rows), bool)

    def exits(self) -> Exits:
        """What became of everybody."""
        return self.found


def _selected(layer: Any, rows: Tensor) -> Any:
    return type(layer)(*(tensor[rows] for tensor in layer))
