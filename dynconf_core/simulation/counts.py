"""Counts of spikes, synaptic operations and multiply-accumulates.

A spike causes one accumulation (a synaptic operation) for each weight it reaches, so its cost is the fan-out of the neuron that
emitted it. A pool passes every spike on unchanged, an identity shortcut has no weights, and a negative spike counts like a
positive one. Analogue values (the image, the inside of a linear bottleneck) need multiply-accumulates, which are counted
separately.

The fan-out is computed as the gradient of the operation with all weights set to 1. The counts are therefore exact at image
borders, and for strided, grouped and depthwise convolutions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.simulation.network import SpikingNetwork

SENDERS = ("neurons", "max_pool")
PASSING = ("sum_pool", "slice", "pad", "concatenate", "flatten", "rearrange")
"""Kinds of nodes that pass every spike on unchanged; a rearrangement may pass it to several places."""
_PIECE = 2.0**23
"""Limit on a partial sum of fan-outs times spikes; with one further unit it stays below 2^24."""


@torch.inference_mode(False)
def fan_out(graph: Graph) -> dict[str, Tensor]:
    """Fan-out of every unit: how many weights one of its spikes reaches.

    Float64, in the shape of one sample, for every layer of neurons and every max pool (which emits spikes of its own)."""
    met: dict[str, Tensor] = {node.name: torch.zeros(node.shape, dtype=torch.float64) for node in graph.nodes}
    spikes = graph.spikes()
    for node in reversed(graph.nodes):
        if node.kind in ("convolution", "linear") or (node.kind == "scale" and not node.settings.get("identity")):
            (name,) = node.inputs
            met[name] += _weights_met(node, graph.by_name[name])
        elif node.kind in PASSING and node.name in spikes:
            for name, share in zip(node.inputs, _backwards(node, graph, met[node.name]), strict=True):
                met[name] += share
    return {node.name: met[node.name] for node in graph.nodes if node.kind in SENDERS}


@torch.inference_mode(False)
def multiply_accumulates(graph: Graph, by_time_step: bool = False) -> dict[str, int]:
    """Multiply-accumulates of one sample.

    Args:
        graph: the SNN's.
        by_time_step: whether the input changes with the time step, so that nothing is computed once.

    Returns:
        ``"once"``: those that depend on the image alone and are computed once; ``"every_step"``: those on analogue values
        within the network, repeated in every time step; ``"ann"``: those of the ANN, which runs once.
    """
    spikes, after = graph.spikes(), graph.after(("neurons",))
    found = {"once": 0, "every_step": 0, "ann": 0}
    for node in graph.of_kind("convolution", "linear", "scale"):
        if node.settings.get("identity"):
            continue
        operations = int(_weights_met(node, graph.by_name[node.inputs[0]]).sum())
        found["ann"] += operations
        if node.name not in after:
            found["every_step" if by_time_step else "once"] += operations
        elif node.inputs[0] not in spikes:
            found["every_step"] += operations
    return found


class Counter:
    """Counts spikes and synaptic operations while a network runs.

    Pass it as ``look`` to ``network.step``, then call ``counter.taken()`` or ``counter.in_all()``.

    Attributes:
        weights: how the spikes of each emitting node are counted, by node name.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        device = network.device
        low, high = network.neurons.sends
        self.taken_back, most = low < 0, float(max(-low, high))
        self.weights = {name: _Weights.of(met, most, device) for name, met in fan_out(network.graph).items()}
        self.units = {name: torch.tensor([1.0, weights.unit], device=device).double() for name, weights in self.weights.items()}
        shares = [[float(self._is_neurons(name)), 0.0, 0.0, weights.unit] for name, weights in self.weights.items()]
        self.shares = torch.tensor(shares, dtype=torch.float64, device=device).view(-1, 2)
        self.seen: dict[str, Tensor] = {}

    def _is_neurons(self, name: str) -> bool:
        return self.network.graph.by_name[name].kind == "neurons"

    def __call__(self, node: Node, spikes: Tensor) -> None:
        """Count the spikes ``(N, ...)`` that a layer emits in one time step."""
        ones = spikes.abs() if node.kind == "max_pool" or self.taken_back else spikes
        self.seen[node.name] = self.weights[node.name].counts(ones)

    def taken(self) -> dict[str, Tensor]:
        """Spikes and synaptic operations of the last time step, ``(N, 2)`` float64 (whole numbers), by emitting node."""
        seen, self.seen = self.seen, {}
        return {name: counts * self.units[name] for name, counts in seen.items()}

    def in_all(self) -> Tensor:
        """The same as ``totals(taken())`` in a single matrix product: ``(N, 2)`` float64."""
        seen, self.seen = self.seen, {}
        return torch.cat([seen[name] for name in self.weights], dim=1).double() @ self.shares

    def totals(self, taken: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Spikes of all neurons, and synaptic operations caused by all nodes that emit spikes: ``(N,)`` int64 each."""
        spikes = sum(counts[:, 0] for name, counts in taken.items() if self._is_neurons(name))
        operations = sum(counts[:, 1] for counts in taken.values())
        assert isinstance(spikes, Tensor) and isinstance(operations, Tensor)
        return spikes.round().long(), operations.round().long()


@dataclass(frozen=True)
class _Weights:
    """Factors that turn a layer's spikes into counts: ones, and fan-outs divided by their greatest common divisor.

    Attributes:
        pieces: both rows, ``(2, units)`` float32, channels last, split so that no sum over a piece reaches 2^24, the limit of
            exact whole numbers.
        unit: the greatest common divisor.
    """

    pieces: tuple[Tensor, ...]
    unit: float

    @classmethod
    def of(cls, met: Tensor, most: float, device: torch.device) -> "_Weights":
        """Factors for the fan-outs ``met`` of a layer whose units emit at most ``most`` spikes per time step."""
        flat = _channels_last(met[None])
        unit = max(1, int(np.gcd.reduce(flat.long().flatten().numpy())))
        columns = torch.cat([torch.ones_like(flat), flat / unit])
        piece = columns.amax(0).cumsum(0).div(_PIECE / most, rounding_mode="floor")
        sizes = piece.unique_consecutive(return_counts=True)[1].tolist()
        return cls(tuple(part.contiguous().to(device) for part in columns.float().split(sizes, dim=1)), float(unit))

    def counts(self, ones: Tensor) -> Tensor:
        """Spikes, and synaptic operations divided by ``unit``, ``(N, 2)``, for absolute spikes ``ones (N, ...)``."""
        rows = _channels_last(ones).float()
        if len(self.pieces) == 1:
            return functional.linear(rows, self.pieces[0])
        parts = rows.split([piece.shape[1] for piece in self.pieces], dim=1)
        return torch.stack([functional.linear(*pair).double() for pair in zip(parts, self.pieces, strict=True)]).sum(0)


def _channels_last(values: Tensor) -> Tensor:
    """``(N, C, H, W)`` or ``(N, C)`` as ``(N, units)``, in channels-last order."""
    return (values.permute(0, 2, 3, 1) if values.ndim == 4 else values).reshape(len(values), -1)


def _weights_met(node: Node, source: Node) -> Tensor:
    """The number of the node's weights that each of its input values reaches, in the shape of the input."""
    if node.kind == "linear":  # one per output; the gradient would copy the network's largest weights
        return torch.full(source.shape, float(node.channels), dtype=torch.float64)
    ones = {"weight": torch.ones_like(node.tensors["weight"], dtype=torch.float64)}
    x = torch.zeros(1, *source.shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(evaluate(node, [x], ones).sum(), x)
    return gradient[0].round()


def _backwards(node: Node, graph: Graph, met: Tensor) -> list[Tensor]:
    """Fan-outs passed back through an operation without weights, to each of its inputs."""
    inputs = [torch.zeros(1, *graph.by_name[name].shape, dtype=torch.float64, requires_grad=True) for name in node.inputs]
    with torch.enable_grad():
        gradients = torch.autograd.grad((evaluate(node, inputs, node.tensors) * met).sum(), inputs)
    return [gradient[0].round() for gradient in gradients]
