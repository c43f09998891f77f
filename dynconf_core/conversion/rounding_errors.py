"""What rounding to fixed point changes, measured on images.

The settled network (n levels at once, without the steps of the counts) is computed twice, with the weights as they are and with
the rounded ones. The error of a layer is what rounding its own weights changes in the mean of each channel over the positions,
in relation to how much this mean varies from image to image: a mean is what later layers look at, equal errors of all its
positions add up in it, and only what varies between images can tell them apart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynconf_core.conversion.places import Places, once
from dynconf_core.conversion.rounding import Rounded
from dynconf_core.graph.bounds import row_blocks
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.graph.operations import evaluate, max_pool, per_channel
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.simulation.exactness import plain_arithmetic

FEWEST = 8
"""Fewer images say too little of how much values vary."""
MOST = 32
"""Images that are looked at, if there are so many."""
LARGEST = 0.1
"""The largest error of a layer that is accepted in float32. A larger one that remains, also of the logits, calls for a
warning. The layers of ResNet-20 (CIFAR-10, T = 32 to 256) have up to 1 %; the last of ResNet-18 and ResNet-50 with random
weights, whose logits vary little, 2 and 7 % on pictures; one after a mean over 32 x 32 positions of noise 25 %."""
LARGEST_FOLLOWING = 0.02
"""The same for layers that follow each other without an activation, whose errors are those of few places and add up. In
EfficientNet-Lite0 (T = 32, 64) they have up to 0.3 %."""
SAME = 1e-12
"""Variances smaller than this, relative to the squared mean, are rounding errors of float32."""
VALUES = 2**24
"""The most values of a layer computed at a time, unless a single image has more."""


@dataclass(frozen=True)
class RoundingErrors:
    """Errors by rounding, as shares of the standard deviation over images.

    Attributes:
        images: on how many they were measured.
        layers: of every weighted or rounded value, by rounding its own weights alone.
        logits: of the logits, by rounding everything.
    """

    images: int
    layers: Mapping[str, float]
    logits: float

    @property
    def worst(self) -> str:
        """The layer with the largest error."""
        return max(self.layers, key=self.layers.__getitem__)

    def warning(self) -> str | None:
        """What to say if the logits, or a layer, change by more than ``LARGEST``; otherwise None."""
        if max(self.logits, self.layers[self.worst]) <= LARGEST:
            return None
        return (
            f"rounding the weights to fixed point changes the logits by {self.logits:.0%} of their standard deviation over "
            f"{self.images} images, and of all layers {self.worst} most, by {self.layers[self.worst]:.0%} (above "
            f"{LARGEST:.0%} is much): see what fixed_point=False (--no-fixed-point) changes."
        )

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON, to three significant digits, with the ``worst`` layer and the ``warning``, if any."""
        layers = {name: float(f"{error:.3g}") for name, error in self.layers.items()}
        found = {"images": self.images, "logits": float(f"{self.logits:.3g}"), "worst": self.worst, "layers": layers}
        return found if self.warning() is None else {**found, "warning": self.warning()}


@torch.no_grad()
def rounding_errors(graph: Graph, places: Places, weight_bits: int, neurons: NeuronModel, images: Tensor) -> RoundingErrors:
    """Measure on the first ``MOST`` images.

    Args:
        graph: with ``round`` nodes and weights that are not rounded.
        places: binary places of its values.
        weight_bits: bits of every weight.
        neurons: the SNN's neuron model.
        images: normalised images ``(N, ...)``.
    """
    chosen = images[:MOST].float()
    sums = {node.name: _Sums() for node in graph.nodes if node.kind in (*WEIGHTED, "round", "add")}
    whole = _Sums()
    settled = _Settled(graph, places, weight_bits, neurons)
    with plain_arithmetic():
        for batch in chosen.split(max(1, VALUES // max(math.prod(node.shape) for node in graph.nodes))):
            settled.add(batch, sums, whole)
    return RoundingErrors(len(chosen), _shares(graph, places, sums), whole.error / (whole.spread or math.inf))


def _shares(graph: Graph, places: Places, sums: "Mapping[str, _Sums]") -> dict[str, float]:
    """Each layer's error in relation to the largest spread among the values that are added together: a branch that
    contributes little needs no finer grid."""
    largest: dict[int, float] = {}
    own = {node.name for node in graph.of_kind(*WEIGHTED) if node.name in once(graph)}  # rounded before they are added
    for name, one in sums.items():
        if name not in own:
            group = places.groups[name]
            largest[group] = max(largest.get(group, 0.0), one.spread)
    measured = (node.name for node in graph.of_kind(*WEIGHTED, "round"))
    spread = {name: sums[name].spread if name in own else largest[places.groups[name]] for name in sums}
    return {name: sums[name].error / (spread[name] or math.inf) for name in measured}


class _Sums:
    """Sums over images of a value's channel means ``(N, C)`` and of their errors."""

    def __init__(self) -> None:
        self.images, self.channels, self.wrong = 0, 1, 0.0
        self.first = self.second = torch.zeros((), dtype=torch.float64)

    def add(self, value: Tensor, error: Tensor) -> None:
        """Add the values ``(n, C, ...)`` of a batch, and what rounding changes in them."""
        means, errors = (one.double().flatten(2).mean(2) if one.ndim > 2 else one.double() for one in (value, error))
        self.images += len(means)
        self.channels = means.shape[1]
        self.wrong += float(errors.square().sum())
        self.first, self.second = self.first + means.sum(0), self.second + means.square().sum(0)

    @property
    def error(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.wrong / (self.images * self.channels))

    @property
    def spread(self) -> float:
        """Root of the mean variance over the images; 0 if the values are all the same but for float32's rounding."""
        mean = self.first / self.images
        variance = float((self.second / self.images - mean.square()).clamp_min(0).mean())
        return math.sqrt(variance) if variance > SAME * float(mean.square().mean()) else 0.0


class _Settled:
    """The settled network, with and without rounding."""

    def __init__(self, graph: Graph, places: Places, weight_bits: int, neurons: NeuronModel) -> None:
        self.graph, self.places, self.weight_bits, self.neurons = graph, places, weight_bits, neurons
        self.once = once(graph)
        self.times = neurons.levels or 1
        self.last = {name: node.name for node in graph.nodes for name in node.inputs}

    def add(self, images: Tensor, sums: Mapping[str, _Sums], logits: _Sums) -> None:
        """Compute a batch ``(n, ...)`` and add to the sums."""
        plain: dict[str, Tensor] = {}
        rounded: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            if node.kind == "input":
                plain[node.name] = rounded[node.name] = images
                continue
            own, given, changed = self._tensors(node, images.device), self._given(node, plain), self._given(node, rounded)
            plain[node.name] = self._value(node, given, own)
            error = torch.zeros_like(plain[node.name])
            if node.kind in WEIGHTED:
                # A difference of weights gives the error to full precision, a difference of values does not.
                fixed = Rounded(node, self.places.values, self.weight_bits)
                wrong = {key: _difference(fixed[key], value).to(images.device) for key, value in node.tensors.items()}
                error = self._value(node, given, wrong)
                rounded[node.name] = self._value(node, changed, {key: own[key] + wrong.pop(key) for key in own})
            elif node.kind == "round":
                error = self._on_grid(node, given[0]) - given[0]
                rounded[node.name] = self._on_grid(node, changed[0])
            else:
                rounded[node.name] = self._value(node, changed, own)
            if node.name in sums:
                sums[node.name].add(plain[node.name], error)
            for name in node.inputs:
                if self.last[name] == node.name:
                    plain.pop(name, None)
                    rounded.pop(name, None)
        output = self.graph.output.name
        logits.add(plain[output], rounded[output] - plain[output])

    def _tensors(self, node: Node, where: torch.device) -> dict[str, Tensor]:
        return {
            key: value.to(where, torch.float32) if value.is_floating_point() else value.to(where)
            for key, value in node.tensors.items()
        }

    def _given(self, node: Node, values: Mapping[str, Tensor]) -> list[Tensor]:
        """A node's inputs, over n time steps if the node comes after neurons."""
        several = node.name not in self.once
        return [values[name] * (self.times if several and name in self.once else 1) for name in node.inputs]

    def _value(self, node: Node, inputs: list[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
        if node.kind == "round":
            return inputs[0]
        if node.kind == "max_pool":
            return max_pool(node, inputs[0])
        if node.kind == "neurons":  # without the steps, which turn small changes into none or large ones
            if self.neurons.levels is not None:
                return (inputs[0] + (per_channel(tensors["initial"], inputs[0]) - 0.5)).clamp(0, self.neurons.levels)
            limited = node.settings["levels"] is not None or node.settings["clipped"]
            return inputs[0].clamp(0, 1 if limited else None)
        if "bias" in tensors and node.name not in self.once:
            tensors = {**tensors, "bias": tensors["bias"] * self.times}
        return evaluate(node, inputs, tensors)

    def _on_grid(self, node: Node, value: Tensor) -> Tensor:
        scale = 2.0 ** self.places.values[node.name]
        return (torch.round(value.double() * scale) / scale).float()


def _difference(fixed: Tensor, value: Tensor) -> Tensor:
    """What rounding adds to a tensor, float32, computed in float64 by blocks."""
    if value.ndim < 2:
        return (fixed.double() - value).float()
    found = torch.empty_like(value, dtype=torch.float32)
    for rows in row_blocks(value):
        found[rows] = fixed[rows].double() - value[rows]
    return found
