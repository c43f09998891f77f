"""Spikes, synaptic operations and multiply-accumulates, exactly: at image borders, and for strided, grouped and depthwise
convolutions.

A spike causes one accumulation for every weight it meets: the fan-out of the unit that sent it. A pool before the weights
passes each spike on singly, an identity shortcut has no weights, a negative spike counts like any other. Analogue values (the
image, the inside of a linear bottleneck) are multiplied: those are multiply-accumulates, counted apart.

The fan-out of every unit is the gradient of the operation with all weights at 1, so that no border is counted by formula.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.simulation.network import SpikingNetwork

SENDERS = ("neurons", "max_pool")
PASSING = ("sum_pool", "slice", "pad", "concatenate", "flatten")
"""Kinds that pass spikes on singly."""


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


@dataclass
class Counter:
    """Counts as a network runs: ``network.step(..., look=counter)``, then ``counter.taken()``."""

    network: SpikingNetwork

    def __post_init__(self) -> None:
        self.weights = {
            name: _columns(weights, self.network.graph.by_name[name], self.network.device)
            for name, weights in fan_out(self.network.graph).items()
        }
        self.seen: dict[str, Tensor] = {}

    def __call__(self, node: Node, spikes: Tensor) -> None:
        """See what a layer sends in a step, ``(N, ...)``."""
        columns, by_channel = self.weights[node.name]
        ones = spikes.abs() if node.kind == "max_pool" or node.settings["signed"] else spikes
        # Over the channels first, where they all have one fan-out: sums of ones, exact in float32.
        flat = ones.flatten(1) if by_channel or ones.ndim == 2 else ones.sum(1).flatten(1)
        self.seen[node.name] = flat.double() @ columns

    def taken(self) -> dict[str, Tensor]:
        """Spikes and synaptic operations ``(N, 2)`` float64, whole numbers, of each sender in the step that was seen."""
        seen, self.seen = self.seen, {}
        return seen

    def totals(self, taken: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Spikes of all neurons and synaptic operations of all senders, ``(N,)`` int64 each."""
        kinds = self.network.graph.by_name
        spikes = sum(counts[:, 0] for name, counts in taken.items() if kinds[name].kind == "neurons")
        operations = sum(counts[:, 1] for counts in taken.values())
        assert isinstance(spikes, Tensor) and isinstance(operations, Tensor)
        return spikes.round().long(), operations.round().long()


def _columns(weights: Tensor, node: Node, device: torch.device) -> tuple[Tensor, bool]:
    """What spikes are multiplied by, ``(units or places, 2)``: ones, and the fan-out; and whether it differs by channel."""
    by_channel = weights.ndim < 3 or not bool((weights == weights[:1]).all())
    flat = weights.flatten() if by_channel else weights[0].flatten()
    return torch.stack([torch.ones_like(flat), flat], dim=1).to(device), by_channel


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
