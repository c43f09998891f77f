"""A converted network as a model of NeuroBench (Yik et al., Nature Communications 2025), whose hooks see every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dynconf_core.exchange.stepwise import Stepwise, layer_like
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import evaluate, per_channel
from dynconf_core.libraries import neurobench_models
from dynconf_core.neurons.model import NeuronModel, State
from dynconf_core.simulation import spiking_max_pool
from dynconf_core.simulation.frames import at_steps
from dynconf_core.simulation.given import check_network
from dynconf_core.simulation.input_checks import check_time_steps
from dynconf_core.simulation.network import SpikingNetwork

if TYPE_CHECKING:
    from neurobench.models import NeuroBenchModel


def neurobench_model(snn: SpikingNetwork, time_steps: int) -> NeuroBenchModel:
    """The network for ``neurobench.benchmarks.Benchmark`` and its metrics.

    Called with normalised images ``(N, ...)`` or frames ``(N, T, ...)``, it runs all time steps and returns the predicted
    classes ``(N,)``. What depends on an image alone is computed once, as in ``snn``. Its layers of neurons are NeuroBench's
    activation layers, its convolutions and linear layers the connection layers; NeuroBench's metrics of membrane potentials
    know snnTorch's neurons alone.

    Args:
        snn: the network, with any neurons.
        time_steps: T.

    Raises:
        InputError: for a network that is not converted, or a T that cannot be.
    """
    check_network(snn)
    check_time_steps(time_steps, snn.time_steps_limit)

    class Model(neurobench_models().NeuroBenchModel):  # type: ignore[misc]
        """See ``neurobench_model``."""

        def __init__(self) -> None:
            super().__init__()
            self.net = Unrolled(snn, time_steps)
            self.add_activation_module(Neurons)

        def __call__(self, batch: Tensor) -> Tensor:
            logits: Tensor = self.net(batch)
            return logits.mean(1).argmax(1)

        def __net__(self) -> nn.Module:
            return self.net

    return Model()


class Unrolled(nn.Module):
    """A converted network as plain modules of PyTorch, from images to the logits ``(N, T, C)`` of all time steps."""

    def __init__(self, snn: SpikingNetwork, time_steps: int) -> None:
        super().__init__()
        made: dict[str, nn.Module] = {}
        for node in snn.graph.nodes[1:]:
            tensors = {key: value.detach().clone() for key, value in snn.tensors()[node.name].items()}
            made[node.name] = _layer(node, tensors, snn.neurons)
        self.network = Stepwise(snn.graph, made)
        self.time_steps, self.active_steps = time_steps, snn.active_steps
        self.check, self.by_time_step = snn.check, snn.by_time_step
        self.to(snn.device).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The logits of every time step, for images ``(N, ...)`` or frames ``(N, T, ...)``."""
        self.check(images, self.time_steps)
        self._begin()
        framed, logits = self.by_time_step(images), []
        constant = {} if framed else self.network.once(images.float())
        for time_step in range(1, self.time_steps + 1):
            if time_step - 1 == self.active_steps:
                constant = {name: torch.zeros_like(value) for name, value in constant.items()}
                self._switch(False)
            if framed:
                constant = self.network.once(at_steps(images.float(), range(time_step, time_step + 1)))
            logits.append(self.network.step(constant))
        return torch.stack(logits, 1)

    def _begin(self) -> None:
        self._switch(True)
        for layer in self.network.layers.values():
            if isinstance(layer, Neurons | MaxPool):
                layer.state = None

    def _switch(self, acting: bool) -> None:
        """Whether the biases act."""
        for layer in self.network.layers.values():
            if isinstance(layer, Convolution | Convolution1d | Linear | Operation):
                layer.acting = acting


class Convolution(nn.Conv2d):
    """A convolution of images whose bias can be switched off."""

    acting = True

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self._conv_forward(x, self.weight, self.bias if self.acting else None)
        return value


class Convolution1d(nn.Conv1d):
    """A convolution of signals whose bias can be switched off."""

    acting = True

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self._conv_forward(x, self.weight, self.bias if self.acting else None)
        return value


class Linear(nn.Linear):
    """A linear layer whose bias can be switched off."""

    acting = True

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias if self.acting else None)


class Neurons(nn.Module):
    """A layer of neurons, with its state."""

    initial: Tensor

    def __init__(self, neurons: NeuronModel, initial: Tensor) -> None:
        super().__init__()
        self.neurons, self.state = neurons, None
        self.register_buffer("initial", initial)

    state: State | None

    def forward(self, current: Tensor) -> Tensor:
        before = self.neurons.initial(current, per_channel(self.initial, current)) if self.state is None else self.state
        spikes, self.state = self.neurons.step(current, before)
        return spikes


class MaxPool(nn.Module):
    """A spiking max pool, with its state."""

    state: State | None

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node, self.state = node, None

    def forward(self, spikes: Tensor) -> Tensor:
        change, self.state = spiking_max_pool.step(self.node, spikes, self.state)
        return change


class Operation(nn.Module):
    """An operation that NeuroBench does not count."""

    acting = True

    def __init__(self, node: Node, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.node = node
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def forward(self, *inputs: Tensor) -> Tensor:
        return evaluate(self.node, inputs, dict(self.named_buffers()), biased=self.acting)


def _layer(node: Node, tensors: Mapping[str, Tensor], neurons: NeuronModel) -> nn.Module:
    if node.kind == "neurons":
        return Neurons(neurons, tensors["initial"])
    if node.kind == "max_pool":
        return MaxPool(node)
    if node.kind not in ("convolution", "linear"):
        return Operation(node, tensors)
    return layer_like(node, tensors, Convolution, Convolution1d, Linear)
