"""Live inference with early exit: every sample runs until the agent is confident.

No time step is computed for samples that have exited. While there are further samples, they take over the rows of those that
have exited; afterwards the batch is compacted to the rows still running. Predictions, exit steps and counts equal those of
exiting on collected traces, for any batch size; with fixed-point weights the logits do too, bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.arguments import memory_limit, tensor
from dynconf_core.data.frames import LENGTHS, FrameSplit, checked_lengths
from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.readout import check_long_enough, check_readable, ends_early
from dynconf_core.exit.rule import Rule
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.footprint import batch_size
from dynconf_core.simulation.given import at_a_time, check_network, first_of, split_or_tensor
from dynconf_core.simulation.input_checks import check_time_steps
from dynconf_core.simulation.network import InputCurrent, SpikingNetwork, State
from dynconf_core.wording import told

LOT = 16
"""The batch is refilled once one row in LOT is free: each refill costs a call per state tensor."""
AHEAD = 64
"""Number of images whose input current is computed together: for a few it costs nearly as much."""
MOST = {"cpu": 128}
"""Largest batch: with more samples the values of a time step outgrow a CPU's cache, and the last samples take longer."""
GRAIN = 8
"""A compacted batch keeps a multiple of GRAIN rows: oneDNN builds new kernels for every batch size."""


@dataclass(frozen=True)
class Exits:
    """Results of N samples, in the order in which the samples were given.

    Attributes:
        predictions: predicted class, ``(N,)``.
        steps: exit step, ``(N,)``, from 1.
        scores: the agent's confidence at the exit, ``(N,)``, in units of its rule's score.
        spikes: spikes emitted up to the exit, ``(N,)``; a negative spike counts as one.
        synaptic_operations: synaptic operations up to the exit, ``(N,)``.
        logits: logits summed over the time steps up to the exit, ``(N, C)`` float64, without the rule's readout.
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
    images: Images | FrameSplit | Tensor | NDArray[Any],
    time_steps: int,
    *,
    batch: int | None = None,
    memory: int | None = None,
    lengths: Tensor | NDArray[Any] | Sequence[int] | None = None,
) -> Exits:
    """Classify ``images``, each as soon as the agent is confident, at the latest after ``time_steps`` steps or at its end.

    Args:
        snn: the converted network, on the device it is to run on.
        agent: the exit rule at run time.
        images: a split, or normalised images ``(N, ...)`` or frames ``(N, T, ...)``, one for each time step, as a tensor or an
            array.
        time_steps: T.
        batch: the largest number of samples at a time (at most 128 on a CPU); None chooses a size that suits the device and
            ``memory``.
        memory: bytes the process may use on a CPU; None sets no limit.
        lengths: for a tensor, the time steps after which each sample ends, ``(N,)`` from 1 to T; None: all end at T. A split
            has its own.

    Raises:
        InputError: if network, images, rule and options do not fit together.
    """
    batch, memory = at_a_time(batch), memory_limit(memory)
    check_network(snn)
    _check_agent(agent)
    given: Images | FrameSplit | Tensor = split_or_tensor(images)
    check_time_steps(time_steps, snn.time_steps_limit)
    count = len(given)
    if lengths is not None:
        lengths = _lengths(given, lengths, time_steps)
    stream = _Stream(snn, given, time_steps)
    size = max(1, min(count, batch or batch_size(snn, memory, stream.frames), MOST.get(snn.device.type, count)))
    stream.ahead = min(size, AHEAD)
    ends = checked_lengths(getattr(given, "lengths", lengths), count, time_steps)
    if agent.rule.readout is not None:
        check_readable(agent.rule.readout, snn.graph.output.channels, ends_early(ends, time_steps))
        check_long_enough(agent.rule.readout, time_steps)
    with plain_arithmetic():
        check_exactness(snn, size)
        snn.accelerate(size)
        run = _Run(snn, agent, np.full(count, time_steps) if ends is None else ends)
        run.refill(stream, size)
        while run.busy:
            run.step()
            if stream.left:
                if run.free >= max(1, min(size // LOT, stream.left)):
                    run.refill(stream, size)
            elif run.free:
                run.compact()
    return run.exits()


def _lengths(images: Images | FrameSplit | Tensor, given: Any, time_steps: int) -> Tensor:
    """The argument ``lengths``."""
    if not isinstance(images, Tensor):
        raise InputError(
            "lengths=... is for images that are a tensor: a split such as Frames(frames, labels, lengths) has its own."
        )
    lengths = tensor("lengths", given, LENGTHS)
    if lengths.is_floating_point() or lengths.is_complex():
        raise InputError(f"lengths are {lengths.dtype}: {LENGTHS}.")
    if lengths.numel() and int(lengths.max()) > time_steps:
        raise InputError(f"lengths are up to {int(lengths.max())}, with time_steps={time_steps}: a sample ends at T or before.")
    return lengths


class _Stream:
    """The input current of the images, in order, computed for at least ``ahead`` of them at a time."""

    def __init__(self, snn: SpikingNetwork, images: Images | FrameSplit | Tensor, time_steps: int, ahead: int = 1) -> None:
        self.snn, self.images, self.time_steps, self.ahead = snn, images, time_steps, ahead
        self.computed = self.taken = 0
        self.stock: Mapping[str, Tensor] = {}

    @property
    def left(self) -> int:
        return len(self.images) - self.taken

    @property
    def frames(self) -> int:
        """The number of frames of a sample; 0 for images."""
        if not len(self.images):
            return 0
        first = self.images[:1] if isinstance(self.images, Tensor) else first_of(self.images)
        return first.shape[1] if self.snn.by_time_step(first) else 0

    def take(self, most: int) -> InputCurrent:
        """The input current of the next images: at least one, at most ``most``."""
        if self.taken == self.computed:
            self._compute(max(most, self.ahead))
        last = min(self.taken + most, self.computed)
        rows = slice(self.taken - self.computed or None, last - self.computed or None)  # counted from the end of the stock
        values = {name: value[rows] for name, value in self.stock.items()}
        found = InputCurrent(values, last - self.taken)
        self.taken = last
        return found

    def _compute(self, most: int) -> None:
        """Compute the input current of the next images."""
        rows = slice(self.computed, min(self.computed + most, len(self.images)))
        if isinstance(self.images, Tensor):
            pixels = self.images[rows].to(self.snn.device)
        else:
            raw = self.images.batch(torch.arange(rows.start, rows.stop)).cpu()
            pixels = self.images.normalisation(raw).to(self.snn.device)  # as ``collect`` does
        self.snn.check(pixels, self.time_steps)
        self.stock = self.snn.input_current(pixels).values
        self.computed = rows.stop


def _check_agent(agent: object) -> None:
    """Raise ``InputError`` unless ``agent`` is one: an ``ExitAgent``, or callable with a ``rule`` and ``initial``."""
    if isinstance(agent, Rule):
        raise InputError("agent is a Rule: give an agent that follows it, ExitAgent(rule).")
    if not (callable(agent) and hasattr(agent, "initial") and isinstance(getattr(agent, "rule", None), Rule)):
        raise InputError(f"{told('agent', agent)}: give ExitAgent(rule), or ExitAgent.from_json('rule.json').")


class _Run:
    """The running batch: one row per sample, the same in every tensor."""

    def __init__(self, snn: SpikingNetwork, agent: ExitAgent, ends: NDArray[np.int64]) -> None:
        self.snn, self.agent, self.ends = snn, agent, ends
        self.counter = Counter(snn)
        self.classes = snn.graph.output.channels
        self.gone: list[tuple[NDArray[Any], ...]] = []
        self.begun = 0
        self.fresh: dict[str, tuple[float | Tensor, ...]] | None = None
        self._anew({}, 0)

    def _anew(self, values: Mapping[str, Tensor], rows: int) -> None:
        """Start a batch of ``rows`` samples."""
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
        """Run one time step; samples that are confident or have reached their end exit."""
        self.clock += 1
        step = self.snn.step(self.input_current, self.state, self._time_step(), self.counter)
        self.state = step.state
        self.counts += self.counter.in_all()
        prediction, score, exits, self.agent_state = self.agent(step.logits, self.agent_state)
        exiting = np.flatnonzero(self.active & (exits.cpu().numpy() | (self.clock >= self.ends[self.sample])))
        if not len(exiting):
            return
        values = (prediction, score, self.counts, self.agent_state.accumulated)
        self.gone.append((self.sample[exiting], self.clock[exiting], *_rows(values, exiting)))
        self.active[exiting] = False

    def _time_step(self) -> int | Tensor:
        """One number if the step does not matter: image and biases act on all rows or on none, or all are at the same step;
        otherwise ``(N,)``."""
        until = self.snn.active_steps
        first = int(self.clock[0])
        if self.snn.changes(self.input_current):
            alike = bool((self.clock == first).all())
        else:
            alike = until is None or bool(((self.clock <= until) == (first <= until)).all())
        if alike:
            return first
        return torch.from_numpy(self.clock).to(self.snn.device)

    def refill(self, stream: _Stream, size: int) -> None:
        """Put new samples into the free rows of a batch of ``size``; rows that remain free keep running unobserved."""
        if not self.busy:
            self._begin(stream, size)
        while stream.left and self.free:
            input_current = stream.take(self.free)
            self._into(np.flatnonzero(~self.active)[: input_current.samples], input_current)

    def _begin(self, stream: _Stream, size: int) -> None:
        """Start a new batch of up to ``size`` samples."""
        parts: list[InputCurrent] = []
        rows = 0
        while stream.left and rows < size:
            parts.append(stream.take(size - rows))
            rows += parts[-1].samples
        names = parts[0].values if parts else {}
        self._anew({name: torch.cat([part.values[name] for part in parts]) for name in names}, rows)

    def _into(self, rows: NDArray[np.int64], input_current: InputCurrent) -> None:
        """Put new samples into ``rows``."""
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
        """The initial value of a row of every state tensor; determined once."""
        if self.fresh is None:
            initial = self.snn.initial_state(state)
            self.fresh = {name: tuple(_one_number(value) for value in values) for name, values in initial.items()}
        return self.fresh

    def compact(self) -> None:
        """Keep the active rows, and as many others as the new batch size needs."""
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
        """The results of all samples."""
        if not self.gone:
            whole, real = np.zeros(0, np.int64), np.zeros(0)
            return Exits(whole, whole, real, whole, whole, np.zeros((0, self.classes)))
        sample, steps, predictions, scores, counts, logits = map(np.concatenate, zip(*self.gone, strict=True))
        order = np.argsort(sample)
        spikes, operations = counts[order].astype(np.int64).T
        return Exits(predictions[order], steps[order], scores[order], spikes, operations, logits[order])


def _rows_kept(busy: int) -> int:
    """The size of a compacted batch with ``busy`` active rows: a multiple of GRAIN, or a small power of two."""
    return -(-busy // GRAIN) * GRAIN if 2 * busy > GRAIN else 1 << (busy - 1).bit_length()


def _rows(values: Sequence[Tensor], rows: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The given rows of each tensor, as arrays."""
    if values[0].device.type == "cpu":
        return [value.numpy()[rows] for value in values]
    on_device = torch.from_numpy(rows).to(values[0].device)
    return [value[on_device].cpu().numpy() for value in values]


def _one_number(values: Tensor) -> float | Tensor:
    """A single number if all values are equal; otherwise the tensor."""
    first = values.flatten()[0]
    return float(first) if bool((values == first).all()) else values


def _selected(layer: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor[rows] for tensor in layer)
