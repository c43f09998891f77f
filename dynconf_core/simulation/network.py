"""A spiking network as a function of one time step: ``step(drive, state, time_step) -> (logits, state, spikes)``.

What depends on the image alone (everything before the first neurons, as the image is a constant current) is computed once
(``drive``). The state of all neurons is a value that the caller holds, batch first in every tensor, so that leaving out
finished samples is an index.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dynconf_core.neurons import integrate_and_fire, signed

Parameters = integrate_and_fire.Parameters | signed.Parameters
LayerState = integrate_and_fire.State | signed.State
State = dict[str, LayerState]
"""Of each layer of neurons, by the name of its node."""


class Neurons(nn.Module):
    """A layer of spiking neurons: integrate-and-fire, or signed where ``top`` (n) bounds the net spike count."""

    threshold: Tensor

    def __init__(self, threshold: Tensor, top: int | None = None) -> None:
        super().__init__()
        self.top = top
        self.register_buffer("threshold", threshold)

    def parameters_of_step(self) -> Parameters:
        """Threshold and top as plain numbers."""
        threshold = float(self.threshold)
        if self.top is None:
            return integrate_and_fire.Parameters(threshold)
        return signed.Parameters(threshold, self.top)


@dataclass(frozen=True)
class Drive:
    """What the image alone determines: the values that spiking nodes read, with and without the input and biases."""

    active: dict[fx.Node, Tensor]
    silent: dict[fx.Node, Tensor]


@dataclass(frozen=True)
class Step:
    """The outcome of one time step.

    Attributes:
        logits: this step's output ``(N, C)``, not the running sum.
        state: of all neurons, after the step.
        spikes: how many spikes each sample emitted in the step, all layers, a negative one counting 1, ``(N,)``.
    """

    logits: Tensor
    state: State
    spikes: Tensor


class SpikingNetwork(nn.Module):
    """A converted network.

    Attributes:
        graph: the operations, with a ``Neurons`` module where the ANN had an activation.
        active_steps: the number of steps in which the input and all biases act; None for always.
    """

    def __init__(self, graph: fx.GraphModule, active_steps: int | None) -> None:
        super().__init__()
        self.graph = graph
        self.active_steps = active_steps
        self._modules_by_node: dict[fx.Node, nn.Module] = {}
        modules = dict(graph.named_modules())
        spiking: set[fx.Node] = set()
        for node in graph.graph.nodes:
            if node.op == "call_module":
                self._modules_by_node[node] = modules[str(node.target)]
            if isinstance(self._modules_by_node.get(node), Neurons) or spiking.intersection(node.all_input_nodes):
                spiking.add(node)
        self._before = [node for node in graph.graph.nodes if node not in spiking and node.op != "output"]
        self._spiking = [node for node in graph.graph.nodes if node in spiking and node.op != "output"]
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        self._output: fx.Node = output.args[0]
        self._needed = {node for node in self._before if any(user in spiking for user in node.users)}
        self._constants: dict[fx.Node, Parameters] | None = None

    def layers(self) -> dict[str, Neurons]:
        """The layers of neurons by node name, in the order of the data."""
        found = ((node.name, self._modules_by_node[node]) for node in self._spiking if node in self._modules_by_node)
        return {name: module for name, module in found if isinstance(module, Neurons)}

    def drive(self, images: Tensor) -> Drive:
        """Everything before the first neurons, for normalised ``images (N, 3, H, W)``."""
        active = self._run(self._before, {}, images, biased=True)
        kept = {node: value for node, value in active.items() if node in self._needed}
        return Drive(kept, {node: torch.zeros_like(value) for node, value in kept.items()})

    def step(self, drive: Drive, state: State | None, time_step: int) -> Step:
        """One time step, from 1; ``state`` is None in the first."""
        parameters = self._layer_constants()
        acts = self.active_steps is None or time_step <= self.active_steps
        values: dict[fx.Node, Tensor] = dict(drive.active if acts else drive.silent)
        after: State = {}
        emitted: list[Tensor] = []
        for node in self._spiking:
            module = self._modules_by_node.get(node)
            if not isinstance(module, Neurons):
                values[node] = self._evaluated(node, values, biased=acts)
                continue
            current = values[node.all_input_nodes[0]]
            spikes, after[node.name] = _stepped(current, state[node.name] if state else None, parameters[node])
            emitted.append(_emitted(spikes, module.top is not None))
            values[node] = spikes.mul_(parameters[node].threshold)
        return Step(values[self._output], after, torch.stack(emitted).sum(0).long())

    def _layer_constants(self) -> dict[fx.Node, Parameters]:
        """Thresholds as plain numbers, read once: a read from a GPU waits for it."""
        if self._constants is None:
            self._constants = {
                node: module.parameters_of_step()
                for node, module in self._modules_by_node.items()
                if isinstance(module, Neurons)
            }
        return self._constants

    def _apply(self, fn: Any, recurse: bool = True) -> "SpikingNetwork":
        self._constants = None
        super()._apply(fn, recurse)
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of ``nn.Module``; the thresholds are read anew."""
        self._constants = None
        return super().load_state_dict(*args, **kwargs)

    def _run(self, nodes: list[fx.Node], values: dict[fx.Node, Tensor], images: Tensor, biased: bool) -> dict[fx.Node, Tensor]:
        for node in nodes:
            values[node] = images if node.op == "placeholder" else self._evaluated(node, values, biased)
        return values

    def _evaluated(self, node: fx.Node, values: dict[fx.Node, Tensor], biased: bool) -> Tensor:
        arguments: Any = fx.node.map_arg(node.args, values.__getitem__)
        module: Any = self._modules_by_node.get(node)
        result: Tensor
        if module is None:
            operation: Any = node.target
            result = operation(*arguments, **node.kwargs)
        elif isinstance(module, nn.Conv2d) and not biased:
            result = module._conv_forward(arguments[0], module.weight, None)
        elif isinstance(module, nn.Linear) and not biased:
            result = functional.linear(arguments[0], module.weight)
        else:
            result = module(*arguments)
        return result


def _emitted(spikes: Tensor, signed_ones: bool) -> Tensor:
    """How many spikes each sample emitted, ``(N,)``, a negative one counting 1. Sums of whole numbers in float32, exact below
    2^24 a layer; counting integers is thirty times slower."""
    ones = spikes.abs() if signed_ones else spikes
    return ones.flatten(1).sum(1).double()


def _stepped(current: Tensor, state: LayerState | None, parameters: Parameters) -> tuple[Tensor, LayerState]:
    if isinstance(parameters, signed.Parameters):
        before = state if isinstance(state, signed.State) else signed.initial(current, parameters)
        return signed.step(current, before, parameters)
    charged = state if isinstance(state, integrate_and_fire.State) else integrate_and_fire.initial(current, parameters)
    return integrate_and_fire.step(current, charged, parameters)
