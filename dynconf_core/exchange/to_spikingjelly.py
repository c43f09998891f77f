"""A converted network as a module of SpikingJelly, with that library's own layers and neurons."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.exchange.stepwise import Stepwise, layer_like
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate, max_pool, per_channel
from dynconf_core.libraries import spikingjelly as library
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.reset_to_zero import ResetToZero
from dynconf_core.simulation.given import check_network
from dynconf_core.simulation.network import SpikingNetwork


def to_spikingjelly(snn: SpikingNetwork) -> nn.Module:
    """The network as a module from images to the logits of one time step.

    ``(N, ...)`` becomes ``(N, classes)``; in step mode "m", ``(T, N, ...)`` becomes ``(T, N, classes)``.

    Its convolutions, linear layers and ``IFNode`` are SpikingJelly's, with trainable weights;
    ``spikingjelly.activation_based.functional`` sets its step mode, and ``reset_net`` its membrane potentials to V(0). With
    fixed-point weights its spikes are those of ``snn``, to the bit.

    Raises:
        InputError: for neurons that SpikingJelly does not have.
    """
    check_network(snn)
    if type(snn.neurons) not in (IntegrateAndFire, ResetToZero):
        raise InputError(
            f"{snn.neurons} neurons have no counterpart in SpikingJelly: convert with neurons='integrate-and-fire' "
            "(--neurons integrate-and-fire)."
        )
    layers = layers_of_spikingjelly()
    made: dict[str, nn.Module] = {}
    for node in snn.graph.nodes[1:]:
        tensors = {key: value.detach().clone() for key, value in snn.tensors()[node.name].items()}
        if node.kind in ("convolution", "linear"):
            kinds = library("layer")
            made[node.name] = layer_like(node, tensors, kinds.Conv2d, kinds.Conv1d, kinds.Linear)
        elif node.kind == "neurons":
            made[node.name] = layers["neurons"](tensors["initial"], 0.0 if type(snn.neurons) is ResetToZero else None)
        elif node.kind == "max_pool":
            made[node.name] = layers["max_pool"](node)
        else:
            made[node.name] = layers["operation"](node, tensors)
    return Stepwise(snn.graph, made).to(snn.device).eval()


@cache
def layers_of_spikingjelly() -> dict[str, Any]:
    """The classes that SpikingJelly lacks; they are made of its own, which are imported only here."""
    base, neuron = library("base"), library("neuron")

    class Neurons(neuron.IFNode):  # type: ignore[misc, name-defined]
        """An ``IFNode`` with V(0), one value or one per channel."""

        def __init__(self, initial: Tensor, v_reset: float | None) -> None:
            super().__init__(v_threshold=1.0, v_reset=v_reset)
            self.set_reset_value("v", initial if initial.ndim else float(initial))
            self.reset()

        def materialize_states(self, inputs: Any, states: Any, step_mode: str) -> Any:
            x, start = inputs[0][0] if step_mode == "m" else inputs[0], states[0]
            if isinstance(start, Tensor) and start.ndim == 1:
                states = (per_channel(start.to(x), x).expand_as(x).clone(), *states[1:])
            elif isinstance(start, Tensor) and start.shape != x.shape:
                raise ValueError(
                    f"the images have changed their shape from {tuple(start.shape)}: call functional.reset_net first."
                )
            return super().materialize_states(inputs, states, step_mode)

    class Operation(nn.Module, base.StepModule):  # type: ignore[misc, name-defined]
        """Any operation without state, on each time step."""

        def __init__(self, node: Node, tensors: Mapping[str, Tensor]) -> None:
            super().__init__()
            self.node, self.step_mode = node, "s"
            for name, value in tensors.items():
                if value.is_floating_point():
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value)

        def forward(self, *inputs: Tensor) -> Tensor:
            if self.node.kind == "round":  # passes gradients on; the difference is exact
                (x,) = inputs
                return x + (evaluate(self.node, inputs, {}) - x).detach()
            tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
            if self.step_mode == "s":
                return evaluate(self.node, inputs, tensors)
            together = evaluate(self.node, [x.flatten(0, 1) for x in inputs], tensors)
            return torch.unflatten(together, 0, inputs[0].shape[:2])

        def extra_repr(self) -> str:
            return str(self.node.kind)

    class SpikingMaxPool(base.MemoryModule):  # type: ignore[misc, name-defined]
        """Sends the change of the largest running spike count in the window (``simulation/spiking_max_pool.py``)."""

        def __init__(self, node: Node) -> None:
            super().__init__()
            self.node = node
            self.register_memory("counts", 0.0)
            self.register_memory("largest", 0.0)

        def single_step_functional_forward(self, inputs: Any, states: Any) -> Any:
            counts = states[0] + inputs[0]
            largest = max_pool(self.node, counts)
            return (largest - states[1],), (counts, largest)

        def extra_repr(self) -> str:
            return f"kernel={self.node.settings['kernel']}"

    return {"neurons": Neurons, "operation": Operation, "max_pool": SpikingMaxPool}
