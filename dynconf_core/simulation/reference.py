"""The network that a settled SNN equals: the same rounded weights, every neuron replaced by its quantised activation.

In counts of spikes, where the image and the biases act n times: q = clip(floor(z + V(0)), 0, n) for a neuron with n levels. The
logits are those of the sum over n steps, divided by n (exact counts are in ``reference_counts``). Layers that were plain ReLU
or clip have no levels; the reference is then the ANN with the rounded weights.
"""

import torch
from torch import Tensor

from dynconf_core.graph.operations import evaluate, max_pool, per_channel
from dynconf_core.simulation.network import SpikingNetwork


def reference_levels(snn: SpikingNetwork) -> int | None:
    """n where all neurons have the same number of levels, else None."""
    tops = {node.settings["levels"] for node in snn.graph.of_kind("neurons")}
    found: int | None = tops.pop() if len(tops) == 1 else None
    return found


def reference_logits(snn: SpikingNetwork, images: Tensor) -> Tensor:
    """``(N, C)`` for normalised ``images (N, ...)``."""
    counts = reference_counts(snn, images)
    return counts / counts.new_full((), reference_levels(snn) or 1)  # by a plain number a GPU multiplies with its reciprocal


@torch.no_grad()
def reference_counts(snn: SpikingNetwork, images: Tensor) -> Tensor:
    """n times the logits ``(N, C)``: to the bit what a settled SNN's logits sum to, where the weights are in fixed point."""
    levels = reference_levels(snn)
    times = levels or 1
    tensors, values = snn.tensors(), dict[str, Tensor]()
    last = {name: node.name for node in snn.graph.nodes for name in node.inputs}
    input_current = {node.name for node in snn.graph.nodes} - snn.graph.after(("neurons",))
    for node in snn.graph.nodes:
        own = tensors[node.name]
        inputs = [
            values[name] * (times if name in input_current and node.name not in input_current else 1) for name in node.inputs
        ]
        if node.kind == "input":
            values[node.name] = images.float()
        elif node.kind == "neurons":
            current = inputs[0]
            if levels is not None:
                values[node.name] = torch.floor(current + per_channel(own["initial"], current)).clamp(0, levels)
            elif node.settings["levels"] is not None:
                n = node.settings["levels"]
                values[node.name] = torch.floor(current * n + 0.5).clamp(0, n) / n
            else:
                values[node.name] = current.clamp(0, 1 if node.settings["clipped"] else None)
        elif node.kind == "max_pool":
            values[node.name] = max_pool(node, inputs[0])
        elif "bias" in own and node.name not in input_current:
            values[node.name] = evaluate(node, inputs, {**own, "bias": own["bias"] * times})
        else:
            values[node.name] = evaluate(node, inputs, own)
        for name in node.inputs:
            if last[name] == node.name:
                values.pop(name, None)
    return values[snn.graph.output.name]
