"""Inference that stops: every sample runs until the agent is confident, and its place goes to the next one.

Finished samples leave the batch, so that nobody computes for them. While the stream lasts, new samples are written over the
rows of those that have left; after it, the batch is compacted: the rows that stay are taken from every state tensor.
Predictions, exit steps and counts are those of exiting on collected traces, for any batch size; with fixed-point weights the
logits are too, bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.footprint import batch_size
from dynconf_core.simulation.network import InputCurrent, SpikingNetwork, State

LOT = 16
"""A refill waits until one place in so many is free: each costs a call for every state tensor."""
AHEAD = 64
"""What images alone determine is computed for so many: for a few it costs nearly as much."""
MOST = {"cpu": 128}
"""Samples at a time: with more, the values of a step leave a CPU's cache, and the end of the stream takes longer."""
GRAIN = 8
"""A compacted batch keeps a multiple of so many rows: for each new size oneDNN makes its kernels anew."""


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
        batch: the most samples at a time (a CPU takes up to 128); None: what suits device and ``memory`` (bytes).

    Raises:
        InputError: where network, images and options do not fit together.
    """
    count = len(images)
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}: give at least 1.")
    size = max(1, min(count, batch or batch_size(snn, memory), MOST.get(snn.device.type, count)))
    with plain_arithmetic():
        check_exactness(snn, size)
        snn.accelerate(size)
        run, stream = _Run(snn, agent, time_steps), _Stream(snn, images, time_steps, min(size, AHEAD))
        run.refill(stream, size)
        while run.busy:
            run.step()
            if stream.left:
                if run.free >= max(1, min(size // LOT, stream.left)):
                    run.refill(stream, size)
            elif run.free:
                run.compact()
    return run.exits()


class _Stream:
    """What normalised images determine, taken in order."""

    def __init__(self, snn: SpikingNetwork, images: Images | Tensor, time_steps: int, ahead: int) -> None:
        self.snn, self.images, self.time_steps, self.ahead = snn, images, time_steps, ahead
        self.computed = self.taken = 0
        self.stock: Mapping[str, Tensor] = {}

    @property
    def left(self) -> int:
        return len(self.images) - self.taken

    def take(self, most: int) -> InputCurrent:
        """Of the next ones, at least one."""
        if self.taken == self.computed:
            self._compute(max(most, self.ahead))
        last = min(self.taken + most, self.computed)
        rows = slice(self.taken - self.computed or None, last - self.computed or None)  # from the stock's end
        values = {name: value[rows] for name, value in self.stock.items()}
        found = InputCurrent(values, last - self.taken)
        self.taken = last
        return found

    def _compute(self, most: int) -> None:
        """The next stock."""
        rows = slice(self.computed, min(self.computed + most, len(self.images)))
        if isinstance(self.images, Tensor):
            pixels = self.images[rows].to(self.snn.device)
        else:
            raw = self.images.batch(torch.arange(rows.start, rows.stop)).cpu()
            pixels = self.images.normalisation(raw).to(self.snn.device)  # as ``collect`` does
        self.snn.check(pixels, self.time_steps)
        self.stock = self.snn.input_current(pixels).values
        self.computed = rows.stop


class _Run:
    """The batch: one row a sample, the same row in every tensor."""

    def __init__(self, snn: SpikingNetwork, agent: ExitAgent, time_steps: int) -> None:
        self.snn, self.agent, self.time_steps = snn, agent, time_steps
        self.counter = Counter(snn)
        self.classes = snn.graph.output.channels
        self.gone: list[tuple[NDArray[Any], ...]] = []
        self.begun = 0
        self.fresh: dict[str, tuple[float | Tensor, ...]] | None = None
        self._anew({}, 0)

    def _anew(self, values: Mapping[str, Tensor], rows: int) -> None:
        """As many rows before their first step."""
        self.input_current = InputCurrent(values, rows)
        self.state: State | None = None
        self.agent_state = self.agent.initial(rows, self.classes, self.snn.device)
        self.clock: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.counts = torch.zeros(rows, 2, dtype=torch.float64, device=self.snn.device)
        self.sample = np.arange(self.begun, self.begun + rows)
        self.active: NDArray[np.bool_] = np.ones(rows, bool)
        self.begun += rows

    @property
    def busy(self) -> bool:
        return bool(self.active.any())

    @property
    def free(self) -> int:
        return len(self.active) - int(np.count_nonzero(self.active))

    def step(self) -> None:
        """One time step of every row; who is confident, or at T, leaves."""
        self.clock += 1
        step = self.snn.step(self.input_current, self.state, self._time_step(), self.counter)
        self.state = step.state
        self.counts += self.counter.in_all()
        prediction, score, exits, self.agent_state = self.agent(step.logits, self.agent_state)
        exiting = np.flatnonzero(self.active & (exits.cpu().numpy() | (self.clock >= self.time_steps)))
        if not len(exiting):
            return
        values = (prediction, score, self.counts, self.agent_state.accumulated)
        self.gone.append((self.sample[exiting], self.clock[exiting], *_rows(values, exiting)))
        self.active[exiting] = False

    def _time_step(self) -> int | Tensor:
        """One number where all rows are treated alike: always, or while the image acts on all of them or on none."""
        until = self.snn.active_steps
        first = int(self.clock[0])
        if until is None or bool(((self.clock <= until) == (first <= until)).all()):
            return first
        return torch.from_numpy(self.clock).to(self.snn.device)

    def refill(self, stream: _Stream, size: int) -> None:
        """New samples into free rows of ``size``; rows that stay free go on unwatched."""
        if not self.busy:
            self._begin(stream, size)
        while stream.left and self.free:
            input_current = stream.take(self.free)
            self._into(np.flatnonzero(~self.active)[: input_current.samples], input_current)

    def _begin(self, stream: _Stream, size: int) -> None:
        """All rows anew."""
        parts: list[InputCurrent] = []
        rows = 0
        while stream.left and rows < size:
            parts.append(stream.take(size - rows))
            rows += parts[-1].samples
        names = parts[0].values if parts else {}
        self._anew({name: torch.cat([part.values[name] for part in parts]) for name in names}, rows)

    def _into(self, rows: NDArray[np.int64], input_current: InputCurrent) -> None:
        """New samples into these rows."""
        on_device = torch.from_numpy(rows).to(self.snn.device)
        for name, value in input_current.values.items():
            self.input_current.values[name].index_copy_(0, on_device, value)
        assert self.state is not None
        for name, numbers in self._fresh(self.state).items():
            for kept, fresh in zip(self.state[name], numbers, strict=True):
                if isinstance(fresh, float):
                    kept.index_fill_(0, on_device, fresh)
                else:
                    kept[on_device] = fresh
        fresh_agent = self.agent.initial(len(rows), self.classes, self.snn.device)
        self.agent_state = self.agent_state.put(on_device, fresh_agent)
        self.counts.index_fill_(0, on_device, 0.0)
        self.clock[rows] = 0
        self.sample[rows] = np.arange(self.begun, self.begun + len(rows))
        self.active[rows] = True
        self.begun += len(rows)

    def _fresh(self, state: State) -> Mapping[str, tuple[float | Tensor, ...]]:
        """What a row of every state tensor begins with; found out once."""
        if self.fresh is None:
            initial = self.snn.initial_state(state)
            self.fresh = {name: tuple(_one_number(value) for value in values) for name, values in initial.items()}
        return self.fresh

    def compact(self) -> None:
        """Keep the active rows, and as many of the others as make a good number."""
        busy = len(self.active) - self.free
        keep = _rows_kept(busy)
        if not busy or keep >= len(self.active):
            return
        rows = np.sort(np.concatenate([np.flatnonzero(self.active), np.flatnonzero(~self.active)[: keep - busy]]))
        on_device = torch.from_numpy(rows).to(self.snn.device)
        self.input_current = InputCurrent({name: value[on_device] for name, value in self.input_current.values.items()}, keep)
        assert self.state is not None
        self.state = {name: _selected(layer, on_device) for name, layer in self.state.items()}
        self.agent_state = self.agent_state.take(on_device)
        self.counts = self.counts[on_device]
        self.clock, self.sample, self.active = self.clock[rows], self.sample[rows], self.active[rows]

    def exits(self) -> Exits:
        """What became of everybody."""
        if not self.gone:
            whole, real = np.zeros(0, np.int64), np.zeros(0)
            return Exits(whole, whole, real, whole, whole, np.zeros((0, self.classes)))
        sample, steps, predictions, scores, counts, logits = map(np.concatenate, zip(*self.gone, strict=True))
        order = np.argsort(sample)
        spikes, operations = counts[order].astype(np.int64).T
        return Exits(predictions[order], steps[order], scores[order], spikes, operations, logits[order])


def _rows_kept(busy: int) -> int:
    """Of a batch in which so many are busy: a multiple of GRAIN, or a small power of two."""
    return -(-busy // GRAIN) * GRAIN if 2 * busy > GRAIN else 1 << (busy - 1).bit_length()


def _rows(values: Sequence[Tensor], rows: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Some rows of each, on the CPU."""
    if values[0].device.type == "cpu":
        return [value.numpy()[rows] for value in values]
    on_device = torch.from_numpy(rows).to(values[0].device)
    return [value[on_device].cpu().numpy() for value in values]


def _one_number(values: Tensor) -> float | Tensor:
    """All values in one, where they are the same."""
    first = values.flatten()[0]
    return float(first) if bool((values == first).all()) else values


def _selected(layer: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor[rows] for tensor in layer)
