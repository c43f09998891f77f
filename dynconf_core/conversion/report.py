"""The conversion report: how far the SNN deviates from the ANN, layer by layer.

For every layer of neurons it gives the thresholds, the firing rate, and the relative error of the mean output after t time
steps against the ANN's activation, |theta c_t / t - a| / |a|, where c_t is the net spike count (divided by min(t, n) if the
image acts in the first n steps only). The ANN is then run with the activations up to this layer replaced by the SNN's mean
outputs: where its predictions change most, the conversion loses most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import per_channel, prepared, run
from dynconf_core.graph.sides import one_sided
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.network import SpikingNetwork, State

NEURONS = 2**27
"""The most neurons times images in a report, which keeps a few float32 values of each."""
MARKS = (1 / 4, 1 / 2, 1)
"""Fractions of T at which errors are reported."""


@dataclass(frozen=True)
class LayerReport:
    """One layer of neurons.

    Attributes:
        name: the name of its node.
        neurons: the number of neurons.
        threshold: "least", "mean" and "most" over its channels, in units of the trained network.
        rate: spikes per neuron and time step.
        error: relative error of the mean output at each of the report's ``marks``.
        agreement: share of the ANN's predictions that do not change when the activations up to this layer are replaced by the
            SNN's mean outputs.
        accuracy: accuracy of the ANN with these activations replaced; None without labels.
    """

    name: str
    neurons: int
    threshold: dict[str, float]
    rate: float
    error: list[float]
    agreement: float
    accuracy: float | None


@dataclass(frozen=True)
class ConversionReport:
    """How far an SNN deviates from its ANN; ``str(report)`` is a table for a terminal.

    Attributes:
        time_steps: T.
        images: the number of images compared.
        marks: the time steps at which errors are reported.
        ann_accuracy: accuracy of the ANN; None without labels.
        snn_accuracy: accuracy of the SNN after T time steps; None without labels.
        agreement: share of images on which ANN and SNN predict the same after T time steps.
        layers: the layers in forward order.
        worst_layer: name of the layer at which agreement drops most; None if it never drops.
    """

    time_steps: int
    images: int
    marks: list[int]
    ann_accuracy: float | None
    snn_accuracy: float | None
    agreement: float
    layers: list[LayerReport]
    worst_layer: str | None

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON, nested."""
        return asdict(self)

    def __str__(self) -> str:
        """One line per layer and a legend, 80 columns wide for names of up to 20 letters."""
        names = [_shortened(layer.name) for layer in self.layers]
        width = max(map(len, (*names, "layer")))
        heading = f"{'layer':<{width}}{'neurons':>8}{'threshold':>14}{'rate':>6}"
        lines = [heading + "".join(f"{f'err@{t}':>8}" for t in self.marks) + f"{'agrees':>8}"]
        for name, layer in zip(names, self.layers, strict=True):
            theta = layer.threshold
            span = f"{theta['mean']:.3g}" if theta["least"] == theta["most"] else f"{theta['least']:.2g} to {theta['most']:.2g}"
            errors = "".join(f"{error:>8.1%}" for error in layer.error)
            mark = "*" if layer.name == self.worst_layer else ""
            row = f"{name:<{width}}{layer.neurons:>8}{span:>14}{layer.rate:>6.2f}"
            lines.append(f"{row}{errors}{layer.agreement:>8.1%}{mark}")
        lines.append("err@t: relative error of the mean output up to step t against the activation.")
        lines.append("agrees: predictions unchanged when the ANN's activations up to this layer are")
        lines.append("replaced by the SNN's mean outputs" + ("; * the largest drop." if self.worst_layer else "."))
        parts = [f"after T = {self.time_steps} time steps the SNN agrees with the ANN on {100 * self.agreement:.1f} %"]
        if self.ann_accuracy is not None and self.snn_accuracy is not None:
            parts.append(f"accuracy {100 * self.ann_accuracy:.2f} % (ANN), {100 * self.snn_accuracy:.2f} % (SNN)")
        return "\n".join([*lines, f"On {self.images} images: {'; '.join(parts)}."])


@torch.no_grad()
def conversion_report(
    snn: SpikingNetwork,
    ann: nn.Module,
    images: Tensor,
    time_steps: int,
    labels: Tensor | None = None,
    *,
    memory: int | None = None,
    progress: Progress = silent,
) -> ConversionReport:
    """Compare an SNN with its ANN.

    Args:
        snn: the network converted from ``ann``.
        ann: the trained network, in evaluation mode.
        images: normalised images ``(N, ...)`` on the SNN's device, ideally some hundred of the training data.
        time_steps: T.
        labels: ``(N,)``; without labels no accuracies are reported.
        memory: bytes the process may use on a CPU; None sets no limit.
        progress: called as batches are compared.

    Raises:
        InputError: if images and labels do not fit together, or the SNN was converted from another network.
    """
    if labels is not None and len(labels) != len(images):
        raise InputError(f"labels={len(labels)} for {len(images)} images: give one for each.")
    snn.check(images, time_steps)
    graph = prepared(one_sided(activations_first(folded(traced(ann, images)))), torch.float32, images.device)
    activations: dict[str, Tensor] = {}

    def keep(node: Node, value: Tensor) -> None:
        if node.kind == "activation":
            activations[node.name] = value

    logits = run(graph, images, keep)
    if activations.keys() != snn.layers().keys():
        odd = sorted(activations.keys() ^ snn.layers().keys())
        raise InputError(f"the SNN was converted from another network: only one of the two has a layer {odd[0]!r}.")
    marks = sorted({max(1, round(share * time_steps)) for share in MARKS})
    watch = _Watch(snn, activations)
    spiking_logits = watch.through(images, time_steps, marks)
    predictions = logits.argmax(1)

    def kept(found: Tensor) -> tuple[float, float | None]:
        """Agreement and accuracy of the logits ``found (N, C)``."""
        correct = None if labels is None else float((found.argmax(1) == labels.to(found.device)).float().mean())
        return float((found.argmax(1) == predictions).float().mean()), correct

    layers, replaced = list[LayerReport](), dict[str, Tensor]()
    for name, node in snn.layers().items():
        replaced[name] = watch.outputs[name]
        theta = snn.tensors()[name]["threshold"]
        span = {"least": float(theta.min()), "mean": float(theta.mean()), "most": float(theta.max())}
        share = kept(run(graph, images, lambda node, value: replaced.get(node.name)))
        layers.append(LayerReport(name, prod(node.shape), span, watch.rates[name] / time_steps, watch.errors[name], *share))
    falls = [before - after for before, after in pairwise([1.0, *(layer.agreement for layer in layers)])]
    agreement, accuracy = kept(spiking_logits)
    worst = layers[falls.index(max(falls))].name if max(falls) > 0 else None
    return ConversionReport(time_steps, len(images), marks, kept(logits)[1], accuracy, agreement, layers, worst)


def images_for_report(snn: SpikingNetwork, wanted: int) -> int:
    """How many of the ``wanted`` images a report can compare within a few GiB; at least 8."""
    neurons = sum(prod(node.shape) for node in snn.layers().values())
    return min(wanted, max(8, NEURONS // neurons))


def _shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]


class _Watch:
    """Runs the SNN and records the outputs of its layers."""

    def __init__(self, snn: SpikingNetwork, activations: Mapping[str, Tensor]) -> None:
        self.snn, self.activations = snn, activations
        self.counts = {name: torch.zeros_like(value) for name, value in activations.items()}
        self.rates = dict.fromkeys(activations, 0.0)
        self.errors: dict[str, list[float]] = {name: [] for name in activations}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, node: Node, spikes: Tensor) -> None:
        if node.kind == "neurons":
            self.counts[node.name] += spikes
            self.rates[node.name] += float(spikes.abs().mean())

    def through(self, images: Tensor, time_steps: int, marks: Sequence[int]) -> Tensor:
        """Run all time steps and return the summed logits."""
        input_current = self.snn.input_current(images)
        state: State | None = None
        total = torch.zeros(len(images), self.snn.graph.output.channels, device=images.device)
        for time_step in range(1, time_steps + 1):
            step = self.snn.step(input_current, state, time_step, self)
            state, total = step.state, total + step.logits
            if time_step in marks:
                self._compare(time_step)
        return total

    def _compare(self, time_step: int) -> None:
        acting = min(time_step, self.snn.active_steps or time_step)
        for name, counts in self.counts.items():
            theta = self.snn.tensors()[name]["threshold"]
            self.outputs[name] = counts * per_channel(theta, counts) / acting
            size = float(self.activations[name].norm())
            wrong = float((self.outputs[name] - self.activations[name]).norm())
            self.errors[name].append(wrong / size if size > 0 else wrong)
