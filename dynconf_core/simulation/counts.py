"""Spikes, synaptic operations and multiply-accumulates, exactly: at image borders, and for strided, grouped and depthwise
convolutions.

A spike causes one accumulation for every weight it meets: the fan-out of the unit that sent it. A pool before the weights
passes each spike on singly, an identity shortcut has no weights, a negative spike counts like any other. Analogue values (the
image, the inside of a linear bottleneck) are multiplied: those are multiply-accumulates, counted apart.

The fan-out of every unit is the gradient of the operation with all weights at 1, so that no border is counted by formula.
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
PASSING = ("sum_pool", "slice", "pad", "concatenate", "flatten")
"""Kinds that pass spikes on singly."""
_PIECE = 2.0**23
"""Sums of fan-outs times spikes may reach it, and then those of one unit more."""


@torch.inference_mode(False)
def fan_out(graph: Graph) -> dict[str, Tensor]:
    """Weights that one spike of each unit meets, float64 in the shape of one sample, for every layer of neurons and each max
    pool (which sends spikes of its own)."""
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
def multiply_accumulates(graph: Graph) -> dict[str, int]:
    """``{"once", "every_step", "ann"}`` of one sample: where the image alone is multiplied, where analogue values are in every
    step, and of the ANN, whose every value is analogue."""
    spikes, after = graph.spikes(), graph.after(("neurons",))
    found = {"once": 0, "every_step": 0, "ann": 0}
    for node in graph.of_kind("convolution", "linear", "scale"):
        if node.settings.get("identity"):
            continue
        operations = int(_weights_met(node, graph.by_name[node.inputs[0]]).sum())
        found["ann"] += operations
        if node.name not in after:
            found["once"] += operations
        elif node.inputs[0] not in spikes:
            found["every_step"] += operations
    return found


class Counter:
    """Counts as a network runs: ``network.step(..., look=counter)``, then ``counter.taken()`` or ``counter.in_all()``.

    Attributes:
        weights: how each sender's spikes are counted, by the name of its node.
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
        """See what a layer sends in a step, ``(N, ...)``."""
        ones = spikes.abs() if node.kind == "max_pool" or self.taken_back else spikes
        self.seen[node.name] = self.weights[node.name].counts(ones)

    def taken(self) -> dict[str, Tensor]:
        """Spikes and synaptic operations ``(N, 2)`` float64, whole numbers, of each sender in the step that was seen."""
        seen, self.seen = self.seen, {}
        return {name: counts * self.units[name] for name, counts in seen.items()}

    def in_all(self) -> Tensor:
        """Spikes of all neurons and synaptic operations of all senders ``(N, 2)``, as ``totals(taken())``, but in one product
        and as float64."""
        seen, self.seen = self.seen, {}
        return torch.cat([seen[name] for name in self.weights], dim=1).double() @ self.shares

    def totals(self, taken: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Spikes of all neurons and synaptic operations of all senders, ``(N,)`` int64 each."""
        spikes = sum(counts[:, 0] for name, counts in taken.items() if self._is_neurons(name))
        operations = sum(counts[:, 1] for counts in taken.values())
        assert isinstance(spikes, Tensor) and isinstance(operations, Tensor)
        return spikes.round().long(), operations.round().long()


@dataclass(frozen=True)
class _Weights:
    """What a layer's spikes are multiplied by: ones, and the fan-outs in units of their greatest common divisor.

    Attributes:
        pieces: of both, ``(2, units)`` float32, channels last: no sum over a piece reaches 2^24, so that none is rounded.
        unit: the divisor.
    """

    pieces: tuple[Tensor, ...]
    unit: float

    @classmethod
    def of(cls, met: Tensor, most: float, device: torch.device) -> "_Weights":
        """For the fan-outs of a layer's units, each of which sends at most so many spikes a step."""
        flat = _channels_last(met[None])
        unit = max(1, int(np.gcd.reduce(flat.long().flatten().numpy())))
        columns = torch.cat([torch.ones_like(flat), flat / unit])
        piece = columns.amax(0).cumsum(0).div(_PIECE / most, rounding_mode="floor")
        sizes = piece.unique_consecutive(return_counts=True)[1].tolist()
        return cls(tuple(part.contiguous().to(device) for part in columns.float().split(sizes, dim=1)), float(unit))

    def counts(self, ones: Tensor) -> Tensor:
        """Spikes, and synaptic operations in units, ``(N, 2)``, of ``ones (N, ...)``."""
        rows = _channels_last(ones).float()
        if len(self.pieces) == 1:
            return functional.linear(rows, self.pieces[0])
        parts = rows.split([piece.shape[1] for piece in self.pieces], dim=1)
        return torch.stack([functional.linear(*pair).double() for pair in zip(parts, self.pieces, strict=True)]).sum(0)


def _channels_last(values: Tensor) -> Tensor:
    """``(N, C, H, W)`` or ``(N, C)`` as ``(N, units)`` in the order in which channels-last memory holds them."""
    return (values.permute(0, 2, 3, 1) if values.ndim == 4 else values).reshape(len(values), -1)


def _weights_met(node: Node, source: Node) -> Tensor:
    """How many of the node's weights each value of its input is multiplied by, in the input's shape."""
    if node.kind == "linear":  # one of every output's; the largest weights are here, and the gradient would copy them
        return torch.full(source.shape, float(node.channels), dtype=torch.float64)
    ones = {"weight": torch.ones_like(node.tensors["weight"], dtype=torch.float64)}
    x = torch.zeros(1, *source.shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(evaluate(node, [x], ones).sum(), x)
    return gradient[0].round()


def _backwards(node: Node, graph: Graph, met: Tensor) -> list[Tensor]:
    """The weights met behind an operation without weights, by the units of its inputs."""
    inputs = [torch.zeros(1, *graph.by_name[name].shape, dtype=torch.float64, requires_grad=True) for name in node.inputs]
    with torch.enable_grad():
        gradients = torch.autograd.grad((evaluate(node, inputs, {}) * met).sum(), inputs)
    return [gradient[0].round() for gradient in gradients]
