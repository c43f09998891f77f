"""Post-conversion correction of thresholds, initial membrane potentials and biases.

For networks that were not trained for conversion. In forward order, every layer of neurons receives the spike trains that the
corrected layers before it emit, and is fitted so that its output over T time steps matches the ANN's activation:

    1. each channel's threshold is scaled, and its V(0) chosen, to minimise the squared error between its mean output up to
       T / 4, T / 2 and T steps and the ANN's activation;
    2. each channel's bias is shifted by the mean error that remains at T.

The correction of biases and initial membrane potentials follows Li et al., "A Free Lunch From ANN", ICML 2021, arXiv 2106.06984
(section 4); the thresholds are refitted here on the actual spike trains, not on activations alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel, prepared, run
from dynconf_core.neurons.model import NeuronModel, State
from dynconf_core.progress import Progress, silent

SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
INITIAL = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8)
"""Candidates for V(0), in units of the threshold; the first is the value without correction."""
EARLIEST = 3
"""The first time step at which mean outputs are compared: after one or two steps they are 0, 1/2 or 1 threshold, and fitting
those costs more at T than it gains."""
ROUNDS = 3
"""Rounds of bias correction: shifting a bias changes which neurons are clipped at 0 and at the threshold."""
ELEMENTS = 2**26
"""The most values in one layer's spike trains, which limits the number of images used."""


@dataclass(frozen=True)
class Corrected:
    """The result of the correction.

    Attributes:
        graph: the ANN's graph with corrected biases.
        thresholds: theta by node name, ``()`` or ``(C,)``.
        initial: V(0) of each channel, in units of its threshold, by node name.
    """

    graph: Graph
    thresholds: dict[str, Tensor]
    initial: dict[str, Tensor]


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
        images: normalised images ``(N, ...)``; as many are used as memory allows, but at least 8 if available.
        time_steps: T.
        memory: bytes the process may use on a CPU; None sets no limit.
        progress: called after every layer.
    """
    graph = _with_places_for_biases(graph)
    largest = max(int(torch.tensor(node.shape).prod()) for node in graph.nodes)
    images = images[: max(8, ELEMENTS // (time_steps * largest))]
    targets = _activations(graph, images)
    plain = {node.name: node for node in prepared(graph, torch.float32, images.device).nodes}
    acting = neurons.active_steps or time_steps
    trains: dict[str, Tensor] = {}
    found = Corrected(graph, dict(thresholds), {})
    biases: dict[str, Tensor] = {}
    last = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        inputs = [trains[name] for name in node.inputs]
        if node.kind == "input":
            gate = (torch.arange(time_steps, device=images.device) < acting).float()
            trains[node.name] = gate.view(-1, 1, *[1] * (images.ndim - 1)) * images.float()
        elif node.kind == "activation":
            layer = Layer(node, neurons, inputs[0], targets[node.name], acting)
            theta = thresholds[node.name].to(images.device, torch.float32)
            theta, initial, shift = layer.fitted(theta)
            found.thresholds[node.name], found.initial[node.name] = theta.double().cpu(), initial.double().cpu()
            place = _bias_of(graph, node)
            biases[place] = biases.get(place, torch.zeros((), dtype=torch.float64)) + shift.double().cpu()
            trains[node.name] = layer.sent(theta, initial, shift)
        elif node.kind == "max_pool":
            counts = trains[node.inputs[0]].cumsum(0)
            pooled = _over_time(node, [counts], plain[node.name].tensors, acting)
            trains[node.name] = torch.diff(pooled, dim=0, prepend=torch.zeros_like(pooled[:1]))
        else:
            trains[node.name] = _over_time(node, inputs, plain[node.name].tensors, acting)
        for name in node.inputs:
            if last[name] == node.name:
                trains.pop(name, None)
    output = graph.output
    if output.kind in ("convolution", "linear", "scale"):
        wrong = targets[output.name] - trains[output.name].sum(0) / acting
        biases[output.name] = biases.get(output.name, torch.zeros((), dtype=torch.float64)) + wrong.mean(0).double().cpu()
    moved = {name: _moved(graph.by_name[name], shift) for name, shift in biases.items()}
    return replace(found, graph=graph.map(moved))


def _over_time(node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor], acting: int) -> Tensor:
    """An operation's values ``(T, N, ...)``; biases act in the first ``acting`` time steps."""
    time_steps, samples = inputs[0].shape[:2]
    value = evaluate(node, [one.flatten(0, 1) for one in inputs], tensors, biased=False)
    value = value.view(time_steps, samples, *value.shape[1:])
    if "bias" in tensors:
        value[:acting] += per_channel(tensors["bias"], value[0])
    return value


def _activations(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """The ANN's activations and logits by node name."""
    kept: dict[str, Tensor] = {}

    def look(node: Node, value: Tensor) -> None:
        if node.kind == "activation" or node.name == graph.output.name:
            kept[node.name] = value

    run(prepared(graph, torch.float32, images.device), images.float(), look)
    return kept


class Layer:
    """One layer of neurons, fitted on its actual input over time."""

    def __init__(self, node: Node, neurons: NeuronModel, current: Tensor, target: Tensor, acting: int) -> None:
        self.neurons, self.current, self.target = neurons, current, target
        self.refit = node.settings["function"] != "quantised" and not node.settings.get("tied")
        self.acting = acting
        steps = len(current)
        settled = neurons.active_steps is not None  # before it has settled, a net spike count means nothing
        early = [] if settled else [mark for mark in (steps // 4, steps // 2) if mark >= EARLIEST]
        self.marks = [*early, steps]

    def fitted(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The fitted theta ``()`` or ``(C,)``, V(0) ``(C,)`` in thresholds, and shift of the bias ``(C,)``."""
        channels = self.current.shape[2]
        theta = theta.expand(channels) if self.refit else theta
        initial = torch.full((channels,), 0.5, device=self.current.device)
        shift = torch.zeros(channels, device=self.current.device)
        if self.refit:
            theta = self._best([(theta * scale, initial) for scale in SCALES], shift)[0]
        if self.neurons.free_potential:
            initial = self._best([(theta, torch.full_like(initial, start)) for start in INITIAL], shift)[1]
        for _ in range(ROUNDS):
            mean = self._means(theta, initial, shift)[-1]
            shift = shift + _by_channel(self.target - mean).mean(1)
        return theta, initial, shift

    def sent(self, theta: Tensor, initial: Tensor, shift: Tensor) -> Tensor:
        """The layer's output over time ``(T, N, ...)``, spikes of height theta."""
        outputs = torch.empty_like(self.current)
        for step, spikes in enumerate(self._spikes(theta, initial, shift)):
            outputs[step] = spikes * per_channel(theta, spikes)
        return outputs

    def _best(self, candidates: list[tuple[Tensor, Tensor]], shift: Tensor) -> tuple[Tensor, Tensor]:
        """For each channel, the candidate with the least squared error; the earlier one if equal."""
        best: Tensor | None = None
        chosen = candidates[0]
        for theta, initial in candidates:
            errors = [_by_channel((mean - self.target).square_()).mean(1) for mean in self._means(theta, initial, shift)]
            error = torch.stack(errors).mean(0)
            if best is None:
                best, chosen = error, (theta, initial)
                continue
            better = error < best * (1 - 1e-6)
            best = torch.where(better, error, best)
            chosen = (torch.where(better, theta, chosen[0]), torch.where(better, initial, chosen[1]))
        return chosen

    def _means(self, theta: Tensor, initial: Tensor, shift: Tensor) -> list[Tensor]:
        """The mean output ``(N, ...)`` up to each time step in ``marks``."""
        height = per_channel(theta, self.target)
        total, found = torch.zeros_like(self.target), []
        for step, spikes in enumerate(self._spikes(theta, initial, shift), start=1):
            total += spikes
            if step in self.marks:
                found.append(total * height / (self.neurons.active_steps or step))
        return found

    def _spikes(self, theta: Tensor, initial: Tensor, shift: Tensor) -> Iterator[Tensor]:
        """The spikes of each time step in turn, in units of the threshold."""
        height = per_channel(theta, self.target)
        start, moved = per_channel(initial, self.target), per_channel(shift, self.target)
        state: State | None = None
        for step, raw in enumerate(self.current):
            current = (raw + moved if step < self.acting else raw) / height
            before = self.neurons.initial(current, start) if state is None else state
            spikes, state = self.neurons.step(current, before, reuse=True)
            yield spikes


def _by_channel(values: Tensor) -> Tensor:
    """``(N, C, ...)`` as ``(C, N ...)``."""
    return values.transpose(0, 1).flatten(1)


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
