"""An SNN and its ANN on the same images, batch by batch: sums for the conversion report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel, run
from dynconf_core.simulation.network import SpikingNetwork, State


@dataclass
class Tally:
    """Sums over images.

    Attributes:
        agreed, right: predictions that are the ANN's, and those that are the label.
        spikes: of either sign.
        wrong: squared error of the mean output, at each mark.
        activation: squared activation.
    """

    agreed: int = 0
    right: int = 0
    spikes: float = 0.0
    wrong: list[float] = field(default_factory=list)
    activation: float = 0.0

    def judge(self, logits: Tensor, predictions: Tensor, labels: Tensor | None) -> None:
        """Add the predictions that follow from ``logits (n, C)``."""
        found = logits.argmax(1)
        self.agreed += int((found == predictions).sum())
        self.right += 0 if labels is None else int((found == labels).sum())

    def errors(self) -> list[float]:
        """The relative error at each mark."""
        return [sqrt(wrong / self.activation) if self.activation > 0 else sqrt(wrong) for wrong in self.wrong]


class Comparison:
    """An SNN and the graph of its ANN, compared batch by batch.

    Attributes:
        layers: sums by layer.
        snn: those of the SNN after T time steps.
        ann_right: the ANN's right predictions.
    """

    def __init__(self, snn: SpikingNetwork, graph: Graph, marks: Sequence[int]) -> None:
        self.network, self.graph, self.marks = snn, graph, marks
        self.layers = {name: Tally(wrong=[0.0] * len(marks)) for name in snn.layers()}
        self.snn, self.ann_right = Tally(), 0

    def add(self, images: Tensor, time_steps: int, labels: Tensor | None) -> None:
        """Compare a batch ``(n, ...)`` with labels ``(n,)``."""
        activations: dict[str, Tensor] = {}

        def keep(node: Node, value: Tensor) -> None:
            if node.kind == "activation":
                activations[node.name] = value
                self.layers[node.name].activation += float(value.double().square().sum())

        predictions = run(self.graph, images.float(), keep).argmax(1)
        self.ann_right += 0 if labels is None else int((predictions == labels).sum())
        counts = {name: torch.zeros_like(value) for name, value in activations.items()}

        def look(node: Node, spikes: Tensor) -> None:
            if node.kind == "neurons":
                counts[node.name] += spikes
                self.layers[node.name].spikes += float(spikes.abs().sum(dtype=torch.float64))

        input_current = self.network.input_current(images)
        state: State | None = None
        total = torch.zeros(len(images), self.graph.output.channels, device=images.device)
        for time_step in range(1, time_steps + 1):
            step = self.network.step(input_current, state, time_step, look)
            state, total = step.state, total + step.logits
            if time_step in self.marks:
                for name, activation in activations.items():
                    wrong = float((self._mean(name, counts[name], time_step) - activation).double().square().sum())
                    self.layers[name].wrong[self.marks.index(time_step)] += wrong
        del state
        self.snn.judge(total, predictions, labels)
        self._replace(
            {name: self._mean(name, counts.pop(name), time_steps) for name in list(counts)}, images, predictions, labels
        )

    def _mean(self, name: str, counts: Tensor, time_step: int) -> Tensor:
        """The mean output of a layer up to a step, in the ANN's units."""
        acting = min(time_step, self.network.active_steps or time_step)
        return counts * per_channel(self.network.tensors()[name]["threshold"], counts) / acting

    def _replace(self, outputs: Mapping[str, Tensor], images: Tensor, predictions: Tensor, labels: Tensor | None) -> None:
        """Run the ANN with the activations up to each layer replaced; what comes before the layer is computed once for all."""
        nodes = self.graph.nodes
        values: dict[str, Tensor] = {}
        last = {name: place for place, node in enumerate(nodes) for name in node.inputs}

        def advance(values: dict[str, Tensor], place: int) -> None:
            node = nodes[place]
            given = [values[name] for name in node.inputs]
            values[node.name] = images.float() if node.kind == "input" else evaluate(node, given, node.tensors)
            for name in node.inputs:
                if last[name] == place:
                    values.pop(name, None)

        for place, node in enumerate(nodes):
            advance(values, place)
            if node.kind == "activation":
                values[node.name] = outputs[node.name]
                rest = dict(values)
                for later in range(place + 1, len(nodes)):
                    advance(rest, later)
                self.layers[node.name].judge(rest[self.graph.output.name], predictions, labels)
