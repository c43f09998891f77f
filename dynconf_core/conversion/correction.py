"""Post-conversion correction of thresholds, initial membrane potentials and biases.

For networks that were not trained for conversion. In forward order, every layer of neurons receives the spike trains that the
corrected layers before it emit, and is fitted so that its output matches the ANN's activation (see ``fit``). All images are
used: their spike trains are computed batch by batch and kept, packed, until the last layer that reads them has been fitted. The
fit itself looks at up to ``VALUES`` values of each channel, from positions spread over every image.

The correction of biases and initial membrane potentials follows Li et al., "A Free Lunch From ANN", ICML 2021, arXiv 2106.06984
(section 4); the thresholds are refitted here on the actual spike trains, not on activations alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from dynconf_core.conversion.emission import Emission
from dynconf_core.conversion.fit import Sample, fitted
from dynconf_core.conversion.kept import Kept, Packing
from dynconf_core.conversion.positions import at, spread
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel, prepared, run
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.footprint import BYTES, COPIES, FIXED, LIVE

KEPT = 1 << 30
"""Bytes of spike trains kept in memory if no limit is given."""
ELEMENTS = 2**24
"""The most values of one layer that are computed at a time, unless a single image has more."""
VALUES = 2**16
"""The most values of each channel that its layer is fitted on; at least one of each image."""
SAMPLED = 2**26
"""The most values in the fit of a layer, all time steps and channels together, unless one position of each image has more."""


@dataclass(frozen=True)
class Corrected:
    """The result of the correction.

    Attributes:
        graph: the ANN's graph with corrected biases.
        thresholds: theta by node name, ``()`` or ``(C,)``.
        initial: V(0) of each channel, in units of its threshold, by node name.
        images: the number of images, all of which were used.
        positions: by layer, how many positions of each image it was fitted on, of how many.
    """

    graph: Graph
    thresholds: dict[str, Tensor]
    initial: dict[str, Tensor]
    images: int = 0
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)


@torch.no_grad()
def corrected(
    graph: Graph,
    thresholds: Mapping[str, Tensor],
    neurons: NeuronModel,
    images: Tensor,
    time_steps: int,
    *,
    memory: int | None = None,
    progress: Progress = silent,
) -> Corrected:
    """Correct a conversion on normalised training images.

    Args:
        graph: the ANN's graph, with batch normalisation folded.
        thresholds: theta of every activation.
        neurons: the SNN's neuron model.
        images: normalised images ``(N, ...)``, all of which are used.
        time_steps: T.
        memory: bytes the process may use on a CPU; what does not fit lies in temporary files. None allows 1 GiB of spike
            trains. The result does not depend on it.
        progress: called after every layer.

    Raises:
        InputError: if memory, or the folder for temporary files, is too small.
    """
    graph = _with_places_for_biases(graph)
    emission = Emission(neurons, time_steps)
    trains = Trains(graph, emission, images, Kept(_room(graph, emission, images, memory)))
    layers = graph.of_kind("activation")
    try:
        targets = Targets.of(trains)
        found = Corrected(graph, dict(thresholds), {}, len(images), {node.name: targets.counts[node.name] for node in layers})
        biases: dict[str, Tensor] = {}
        for number, node in enumerate(layers, start=1):
            sample = Sample(trains.sampled(node, targets.positions[node.name]), targets.take(node))
            limits = node.settings["function"] == "clip"
            highest = node.tensors["threshold"].to(images.device, torch.float32) if limits else None
            theta = thresholds[node.name].to(images.device, torch.float32)
            refit = node.settings["function"] != "quantised" and not node.settings.get("tied")
            fit = fitted(emission, sample, theta, refit, highest)
            del sample
            found.thresholds[node.name], found.initial[node.name] = fit.theta.double().cpu(), fit.initial.double().cpu()
            _add(biases, _bias_of(graph, node), fit.shift)
            trains.fire(node, fit.theta, fit.initial, fit.shift)
            progress(number, len(layers), f"corrected {node.name}")
        if graph.output.kind in ("convolution", "linear", "scale"):
            _add(biases, graph.output.name, targets.logits - trains.mean_output())
    finally:
        trains.kept.close()
    moved = {name: _moved(graph.by_name[name], shift) for name, shift in biases.items()}
    return replace(found, graph=graph.map(moved))


class Trains:
    """The trains of the layers fitted so far, and the currents that they cause.

    Attributes:
        kept: trains of spikes, packed, and the values that several later layers read.
        batches: the images in batches, whose size depends on the network and T alone.
    """

    def __init__(self, graph: Graph, emission: Emission, images: Tensor, kept: Kept) -> None:
        self.emission, self.kept = emission, kept
        self.graph = prepared(graph, torch.float32, images.device)
        self.batches = images.split(_at_a_time(graph, emission.steps))
        self.images = images
        self.heights: dict[str, Tensor] = {}
        self.packing = Packing(*emission.sends)
        currents = graph.after(("activation",)) - graph.spikes()
        self.shared = {name for name in currents if len(graph.readers[name]) > 1}
        self.last = self._last()
        self.latest: tuple[str, int, Tensor] | None = None

    def fire(self, node: Node, theta: Tensor, initial: Tensor, shift: Tensor) -> None:
        """Keep the trains of a layer, and drop what no later layer needs."""
        self.heights[node.name] = self.emission.height(theta)
        for batch in range(len(self.batches)):
            currents = self.value(node.inputs[0], batch)
            like = currents[0]
            each = [per_channel(one, like) for one in (theta, initial, shift)]
            self.kept.put(node.name, batch, self.packing.packed(self.emission.train(currents, *each)))
        for name in [name for name, reader in self.last.items() if reader == node.name]:
            self.kept.drop(name)

    def sampled(self, node: Node, positions: Tensor) -> Tensor:
        """A layer's input currents ``(steps, S, C)`` at the same positions of every image."""
        shape = self.emission.steps, len(self.images) * len(positions), node.channels
        found, start = torch.empty(shape, device=self.images.device), 0
        for batch in range(len(self.batches)):
            value = self.value(node.inputs[0], batch)
            part = at(value.flatten(0, 1), positions).unflatten(0, value.shape[:2]).transpose(2, 3).flatten(1, 2)
            found[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return found

    def mean_output(self) -> Tensor:
        """The mean logits ``(C,)``, float64."""
        total = sum(self.value(self.graph.output.name, batch).double().sum((0, 1)) for batch in range(len(self.batches)))
        return torch.as_tensor(total) / self.emission.acting / len(self.images)

    def value(self, name: str, batch: int) -> Tensor:
        """A node's values ``(steps, n, ...)`` for a batch, from the trains that are kept; not to be changed."""
        if self.latest is not None and self.latest[:2] == (name, batch):
            return self.latest[2]
        self.latest = None
        values: dict[str, Tensor] = {}
        wanted = self._cone(name, batch)
        last = {given: node.name for node in wanted for given in node.inputs}
        for node in wanted:
            if node.kind == "input" or self.kept.has(node.name, batch):
                values[node.name] = self._given(node, batch)
                continue
            values[node.name] = self._computed(node, [values[given] for given in node.inputs])
            if node.name in self.shared:
                self.kept.put(node.name, batch, values[node.name])
            for given in node.inputs:
                if last[given] == node.name:
                    values.pop(given, None)
        self.latest = name, batch, values[name]
        return values[name]

    def _cone(self, name: str, batch: int) -> list[Node]:
        """The nodes that have to be computed, or fetched, for a value, in order."""
        wanted, found = {name}, list[Node]()
        for node in reversed(self.graph.nodes):
            if node.name in wanted:
                found.append(node)
                if not self.kept.has(node.name, batch):
                    wanted.update(node.inputs)
        return found[::-1]

    def _given(self, node: Node, batch: int) -> Tensor:
        images: Tensor = self.batches[batch]
        steps = self.emission.steps
        if node.kind == "input":
            given = images.new_zeros((steps, *images.shape), dtype=torch.float32)
            given[: self.emission.acting] = images
            return given
        kept = self.kept.get(node.name, batch)
        if node.name in self.shared:
            return kept.to(images.device)
        spikes = self.packing.unpacked(kept, (steps, len(images), *node.shape)).to(images.device)
        sent: Tensor = spikes.mul_(per_channel(self.heights[node.name], spikes[0]))
        return sent

    def _computed(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """An operation's values ``(steps, n, ...)``; biases act in the first steps only."""
        tensors, steps = node.tensors, self.emission.steps
        if node.kind == "max_pool":
            inputs = [inputs[0].cumsum(0)]
        value = evaluate(node, [one.flatten(0, 1) for one in inputs], tensors, biased=False)
        value = value.view(steps, -1, *value.shape[1:])
        if node.kind == "max_pool":
            return torch.diff(value, dim=0, prepend=torch.zeros_like(value[:1]))
        if "bias" in tensors:
            value[: self.emission.acting] += per_channel(tensors["bias"], value[0])
        return value

    def _last(self) -> dict[str, str]:
        """By kept name, the last layer, or the output, whose value needs it."""
        found: dict[str, str] = {}
        computed = set[str]()
        for reader in (*self.graph.of_kind("activation"), self.graph.output):
            waiting, seen = list(reader.inputs), set[str]()
            while waiting:
                name = waiting.pop()
                if name in seen:
                    continue
                seen.add(name)
                node = self.graph.by_name[name]
                if node.kind == "activation" or name in self.shared:
                    found[name] = reader.name
                if node.kind == "activation" or name in computed:
                    continue
                computed |= {name} & self.shared
                waiting += node.inputs
        return found


@dataclass(frozen=True)
class Targets:
    """The ANN's activations at the positions on which layers are fitted, kept until then, and its mean logits.

    Attributes:
        positions: by layer, positions in one sample's channel.
        counts: by layer, how many these are, and how many there are.
        logits: mean logits ``(C,)``, float64.
    """

    trains: Trains
    positions: dict[str, Tensor]
    counts: dict[str, tuple[int, int]]
    logits: Tensor

    @classmethod
    def of(cls, trains: Trains) -> "Targets":
        """Run the ANN on all images."""
        graph, images = trains.graph, trains.images
        positions = {}
        for node in graph.of_kind("activation"):  # the fit of a single step takes some four copies
            most = min(VALUES, SAMPLED // ((trains.emission.steps + 4) * node.channels))
            positions[node.name] = spread(prod(node.shape[1:]), most // len(images))
        total = torch.zeros(graph.output.channels, dtype=torch.float64, device=images.device)
        for number, batch in enumerate(trains.batches):

            def look(node: Node, value: Tensor, number: int = number) -> None:
                if node.kind == "activation":
                    trains.kept.put(f"{node.name} (ANN)", number, at(value, positions[node.name]).transpose(1, 2).flatten(0, 1))

            total += run(graph, batch.float(), look).double().sum(0)
        counted = {name: (len(where), prod(graph.by_name[name].shape[1:])) for name, where in positions.items()}
        return cls(trains, positions, counted, total / len(images))

    def take(self, node: Node) -> Tensor:
        """A layer's targets ``(S, C)``, which are then forgotten."""
        name, kept = f"{node.name} (ANN)", self.trains.kept
        found = torch.cat([kept.get(name, batch) for batch in range(len(self.trains.batches))])
        kept.drop(name)
        return found.to(self.trains.images.device)


def _at_a_time(graph: Graph, steps: int) -> int:
    largest = max(prod(node.shape) for node in graph.nodes)
    return max(1, ELEMENTS // (steps * largest))


def _room(graph: Graph, emission: Emission, images: Tensor, memory: int | None) -> int:
    """Bytes of values that may be kept in memory.

    Raises:
        InputError: if ``memory`` is too little for everything else.
    """
    if memory is None:
        return KEPT
    largest = emission.steps * max(prod(node.shape) for node in graph.nodes)
    weights = sum(value.numel() for node in graph.nodes for value in node.tensors.values())
    values = max(LIVE * max(ELEMENTS, largest), 2 * SAMPLED)
    needed = FIXED + images.nbytes + BYTES * (COPIES * weights + values)
    if needed > memory:
        raise InputError(
            f"memory={memory >> 20} MiB is too little: the correction of this network needs {(needed >> 20) + 1} MiB; give "
            "more, or convert with correct=False (--no-correct)."
        )
    return memory - needed


def _add(biases: dict[str, Tensor], name: str, shift: Tensor) -> None:
    biases[name] = biases.get(name, torch.zeros((), dtype=torch.float64)) + shift.double().cpu()


def _bias_of(graph: Graph, node: Node) -> str:
    """The nearest weighted node, possibly behind sums, whose bias is added to ``node``'s current."""
    waiting = [node.inputs[0]]
    while waiting:
        source = graph.by_name[waiting.pop(0)]
        if source.kind in ("convolution", "linear", "scale") and len(graph.readers[source.name]) == 1:
            return source.name
        if source.kind == "add" and len(graph.readers[source.name]) == 1:
            waiting += source.inputs
    raise AssertionError(f"{node.name} has no place for a bias")


def _with_places_for_biases(graph: Graph) -> Graph:
    """The graph with a ``scale`` node of 1 before every activation that has no weighted node of its own."""
    for node in graph.of_kind("activation"):
        try:
            _bias_of(graph, node)
        except AssertionError:
            source = graph.by_name[node.inputs[0]]
            one = torch.ones((), dtype=torch.float64)
            place = Node(f"{node.name}.bias", "scale", (source.name,), source.shape, {}, {"weight": one})
            nodes: list[Node] = []
            for other in graph.nodes:
                if other.name == node.name:
                    nodes += [place, replace(node, inputs=(place.name,))]
                else:
                    nodes.append(other)
            graph = Graph(tuple(nodes))
    return graph


def _moved(node: Node, shift: Tensor) -> Node:
    bias = node.tensors.get("bias")
    return node.with_tensors(bias=shift if bias is None else bias + shift)
