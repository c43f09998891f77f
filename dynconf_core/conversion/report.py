"""The conversion report: how far the SNN deviates from the ANN, layer by layer.

For every layer of neurons it gives the thresholds, the firing rate, and the relative error of the mean output after t time
steps against the ANN's activation, |theta c_t / t - a| / |a|, where c_t is the net spike count (divided by min(t, n) if the
image acts in the first n steps only). The ANN is then run with the activations up to this layer replaced by the SNN's mean
outputs: where its predictions change most, the conversion loses most. The images are compared in batches, so that their number
takes time, not memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.arguments import callback, memory_limit
from dynconf_core.conversion.comparison import Comparison
from dynconf_core.data.images import class_numbers
from dynconf_core.errors import InputError
from dynconf_core.graph.operations import prepared
from dynconf_core.graph.sides import as_converted
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.footprint import batch_size
from dynconf_core.simulation.given import check_network, check_network_to_compare
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.wording import counted

NEURONS = 2**27
"""The most neurons times images in a report for which time is not much; more only for the sake of ``FEWEST`` images."""
FEWEST = 64
"""Images of a report, if there are so many, whatever the size of the network: each is 1.6 points of agreement."""
AT_A_TIME = 2**25
"""The most neurons times images compared at a time; a few float32 values of each are kept."""
MARKS = (1 / 4, 1 / 2, 1)
"""Fractions of T at which errors are reported."""


@dataclass(frozen=True)
class LayerReport:
    """One layer of neurons.

    Attributes:
        name: the name of its node.
        neurons: the number of neurons.
        levels: n, if its output approximates a quantised activation.
        threshold: "least", "mean" and "most" over its channels, in units of the trained network.
        rate: spikes per neuron and time step.
        error: relative error of the mean output at each of the report's ``marks``.
        agreement: share of the ANN's predictions that do not change when the activations up to this layer are replaced by the
            SNN's mean outputs.
        accuracy: accuracy of the ANN with these activations replaced; None without labels.
    """

    name: str
    neurons: int
    levels: int | None
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
        first_layer: name of the first layer at which predictions change; None if none does.
        worst_layer: name of the layer at which agreement drops most; None if it never drops.
        rounding: what rounding the weights changed when the SNN was made (see ``rounding_errors``); None if that is not known.
    """

    time_steps: int
    images: int
    marks: list[int]
    ann_accuracy: float | None
    snn_accuracy: float | None
    agreement: float
    layers: list[LayerReport]
    first_layer: str | None
    worst_layer: str | None
    rounding: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON, nested."""
        return asdict(self)

    def __str__(self) -> str:
        """A table with one line per layer, and a legend."""
        layers = self.layers
        columns = [("layer", [_shortened(layer.name) for layer in layers]), ("neurons", [str(one.neurons) for one in layers])]
        levels = {layer.levels for layer in layers}
        if len(levels) > 1:
            columns.append(("levels", ["-" if layer.levels is None else str(layer.levels) for layer in layers]))
        columns.append(("threshold", [_span(layer.threshold) for layer in layers]))
        columns.append(("rate", [f"{layer.rate:.2f}" for layer in layers]))
        for place, mark in enumerate(self.marks):
            columns.append((f"err@{mark}", [f"{layer.error[place]:.1%}" for layer in layers]))
        columns.append(("agrees", [f"{layer.agreement:.1%}" for layer in layers]))
        lines = _aligned(columns)
        for row, layer in enumerate(layers, start=1):
            lines[row] += "*" if layer.name == self.worst_layer else ""
        lines.append("err@t: relative error of the mean output up to step t against the activation.")
        lines.append("agrees: predictions unchanged when the ANN's activations up to this layer are")
        lines.append("replaced by the SNN's mean outputs" + ("; * the largest drop." if self.worst_layer else "."))
        if len(levels) == 1 and None not in levels:
            lines.append(f"Every layer has n = {counted(levels.pop() or 0, 'level')}.")
        if self.first_layer is not None and self.worst_layer is not None:
            lines.append(f"Agreement falls first at {self.first_layer}, and most at {self.worst_layer}.")
        if self.rounding is not None:
            logits, worst, images = (self.rounding[key] for key in ("logits", "worst", "images"))
            lines.append(f"Rounding the weights changes the logits by {logits:.1%} of their standard deviation")
            share = f"{self.rounding['layers'][worst]:.1%}"
            lines.append(f"over {images} images; of all layers {_shortened(worst)} most, by {share}.")
        parts = [
            f"after T = {counted(self.time_steps, 'time step')} the SNN agrees with the ANN on {100 * self.agreement:.1f} %"
        ]
        if self.ann_accuracy is not None and self.snn_accuracy is not None:
            parts.append(f"accuracy {100 * self.ann_accuracy:.2f} % (ANN), {100 * self.snn_accuracy:.2f} % (SNN)")
        return "\n".join([*lines, f"On {counted(self.images, 'image')}: {'; '.join(parts)}."])


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
        images: normalised images ``(N, ...)``, ideally some hundred of the training data.
        time_steps: T.
        labels: ``(N,)``; without labels no accuracies are reported.
        memory: bytes the process may use on a CPU; None sets no limit.
        progress: called as batches are compared.

    Raises:
        InputError: if images and labels do not fit together, memory is too little for one image, or the SNN was converted from
            another network.
    """
    check_network(snn)
    check_network_to_compare(ann)
    memory = memory_limit(memory)
    callback("progress", progress)
    snn.check(images, time_steps)
    time_steps = int(time_steps)
    if labels is not None and len(labels := class_numbers("labels", labels)) != len(images):
        raise InputError(f"labels={len(labels)} for {counted(len(images), 'image')}: give one for each.")
    if not len(images):
        raise InputError("there are no images: give at least one, ideally some hundred.")
    where = snn.device
    graph = prepared(as_converted(ann, images[:1].to(where)), torch.float32, where)
    names = {node.name for node in graph.of_kind("activation")}
    if names != snn.layers().keys():
        odd = sorted(names ^ snn.layers().keys())
        raise InputError(f"the SNN was converted from another network: only one of the two has a layer {odd[0]!r}.")
    marks = sorted({max(1, round(share * time_steps)) for share in MARKS})
    neurons = sum(prod(node.shape) for node in snn.layers().values())
    at_a_time = max(1, min(batch_size(snn, memory), AT_A_TIME // neurons))
    comparison = Comparison(snn, graph, marks)
    batches = images.split(at_a_time)
    truths = [None] * len(batches) if labels is None else labels.split(at_a_time)
    for number, (batch, truth) in enumerate(zip(batches, truths, strict=True), start=1):
        comparison.add(batch.to(where), time_steps, None if truth is None else truth.to(where))
        progress(number, len(batches), "comparing with the ANN")

    def share(count: int) -> float:
        return count / len(images)

    def accuracy(right: int) -> float | None:
        return None if labels is None else share(right)

    layers = list[LayerReport]()
    for name, node in snn.layers().items():
        theta = snn.tensors()[name]["threshold"]
        span = {"least": float(theta.min()), "mean": float(theta.mean()), "most": float(theta.max())}
        tally, size = comparison.layers[name], prod(node.shape)
        rate = tally.spikes / (size * len(images) * time_steps)
        kept, right = share(tally.agreed), accuracy(tally.right)
        layers.append(LayerReport(name, size, node.settings["levels"], span, rate, tally.errors(), kept, right))
    falls = [before - after for before, after in pairwise([1.0, *(layer.agreement for layer in layers)])]
    first = next((layer.name for layer in layers if layer.agreement < 1), None)
    worst = layers[falls.index(max(falls))].name if max(falls) > 0 else None
    ann_right, snn_right = accuracy(comparison.ann_right), accuracy(comparison.snn.right)
    agreement = share(comparison.snn.agreed)
    rounding = snn.facts.get("rounding")
    return ConversionReport(time_steps, len(images), marks, ann_right, snn_right, agreement, layers, first, worst, rounding)


def images_for_report(snn: SpikingNetwork, wanted: int) -> int:
    """How many of the ``wanted`` images a report should compare: fewer, but at least 64, of a large network."""
    neurons = sum(prod(node.shape) for node in snn.layers().values())
    return min(wanted, max(FEWEST, NEURONS // neurons))


def _shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]


def _span(theta: Mapping[str, float]) -> str:
    return f"{theta['mean']:.3g}" if theta["least"] == theta["most"] else f"{theta['least']:.2g} to {theta['most']:.2g}"


def _aligned(columns: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The lines of a table: the first column to the left, the others to the right, with space between them in every line."""
    widths = [max(map(len, (heading, *cells))) for heading, cells in columns]
    rows = [[heading for heading, _ in columns], *map(list, zip(*(cells for _, cells in columns), strict=True))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
