"""The quantised network that a settled SNN equals: the same rounded weights, with a quantised activation for every neuron.

A neuron with n levels emits q = clip(floor(z + V(0)), 0, n) spikes, where z is its summed current when the image and the
biases act n times. The logits are the sum over n time steps divided by n (``reference_counts`` returns the exact sum). Layers
converted from plain ReLU or clip have no levels; the reference is then the ANN with rounded weights.
"""

import torch
from torch import Tensor

from dynconf_core.graph.operations import evaluate, max_pool, per_channel
from dynconf_core.simulation.frames import column, divisor, present
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.step_values import gated


def reference_levels(snn: SpikingNetwork) -> int | None:
    """n if all neurons have the same number of levels; otherwise None."""
    tops = {node.settings["levels"] for node in snn.graph.of_kind("neurons")}
    found: int | None = tops.pop() if len(tops) == 1 else None
    return found


def reference_logits(snn: SpikingNetwork, images: Tensor, time_steps: int = 0, lengths: Tensor | None = None) -> Tensor:
    """The reference network's logits ``(N, C)`` for normalised ``images (N, ...)``.

    For frames ``(N, T, ...)`` they are those for the mean frame: of T = ``time_steps``, of samples that end after ``lengths
    (N,)`` steps (see ``simulation.frames.mean_frame``).
    """
    counts = reference_counts(snn, images, time_steps, lengths)
    # Divided by a tensor, since a GPU multiplies by the reciprocal of a plain number.
    return counts / counts.new_full((), reference_levels(snn) or 1)


@torch.no_grad()
def reference_counts(snn: SpikingNetwork, images: Tensor, time_steps: int = 0, lengths: Tensor | None = None) -> Tensor:
    """n times the logits, ``(N, C)``: with fixed-point weights exactly the sum of a settled SNN's logits. Arguments as for
    ``reference_logits``."""
    levels = reference_levels(snn)
    times = levels or 1
    tensors, values = snn.tensors(), dict[str, Tensor]()
    frames = snn.by_time_step(images)
    if frames:
        values = _summed(snn, images, snn.input_steps(time_steps), lengths, times)
    last = {name: node.name for node in snn.graph.nodes for name in node.inputs}
    input_current = {node.name for node in snn.graph.nodes} - snn.graph.after(("neurons",))
    for node in snn.graph.nodes:
        if frames and node.name in input_current:
            continue
        own = tensors[node.name]
        inputs = [
            values[name] * (times if name in input_current and node.name not in input_current and not frames else 1)
            for name in node.inputs
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
            values[node.name] = values[node.name].float()
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


def _summed(snn: SpikingNetwork, frames: Tensor, acting: int, lengths: Tensor | None, times: int) -> dict[str, Tensor]:
    """``times`` the mean over the frames ``(N, T, ...)`` of the values before the first neurons."""
    settles = snn.active_steps is not None
    found: dict[str, Tensor] = {}
    for step in range(1, acting + 1):
        here = present(step, lengths)
        for name, value in snn.before_neurons(gated(frames[:, step - 1], here), True if settles else here).items():
            found[name] = found[name] + value if name in found else value
    steps = divisor(acting, lengths, settles)
    if isinstance(steps, int) and steps == times:
        return found  # to the bit what the neurons receive
    return {name: value * times / column(steps, value) for name, value in found.items()}
