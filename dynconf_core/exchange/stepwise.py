"""A graph run by modules, one for each node."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dynconf_core.graph.graph import Graph, Node


class Stepwise(nn.Module):
    """The nodes of a graph as modules; each takes the values of its inputs.

    Attributes:
        layers: the modules; names have "/" in the place of ".".
    """

    def __init__(self, graph: Graph, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({_key(name): layer for name, layer in layers.items()})
        self.input, self.output = graph.input.name, graph.output.name
        after = graph.after(("neurons",))
        self.before = tuple(node for node in graph.nodes[1:] if node.name not in after)
        self.order = tuple(node for node in graph.nodes if node.name in after)

    def forward(self, x: Tensor) -> Tensor:
        """The output of one time step, in which the image acts; or of as many as ``x`` holds, if the modules take as many."""
        return self.step(self.once(x))

    def once(self, x: Tensor) -> dict[str, Tensor]:
        """The values that depend on the image alone."""
        return self._run(self.before, {self.input: x})

    def step(self, constant: Mapping[str, Tensor]) -> Tensor:
        """The output of one time step, given the values that depend on the image alone."""
        return self._run(self.order, constant)[self.output]

    def _run(self, nodes: tuple[Node, ...], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = dict(given)
        for node in nodes:
            inputs = (values[name].double() if node.wide else values[name] for name in node.inputs)
            value = self.layers[_key(node.name)](*inputs)
            values[node.name] = value.float() if node.kind == "neurons" else value  # spikes, also of wide potentials
        return values


def layer_like(node: Node, tensors: Mapping[str, Tensor], image: Any, signal: Any, linear: Any) -> nn.Module:
    """A layer with the weights of a ``convolution`` (of the class ``image`` or ``signal``) or ``linear`` node."""
    outputs, inputs, *kernel = tensors["weight"].shape
    given, biased = dict(tensors), "bias" in tensors
    if node.kind == "linear":
        layer: nn.Module = linear(inputs, outputs, bias=biased)
    else:
        groups, of_signal = int(node.settings["groups"]), len(node.shape) == 2
        sides = slice(1, None) if of_signal else slice(None)  # a signal is an image of height 1
        geometry = {name: tuple(node.settings[name])[sides] for name in ("stride", "padding", "dilation")}
        make = signal if of_signal else image
        layer = make(inputs * groups, outputs, tuple(kernel)[sides], groups=groups, bias=biased, **geometry)
        given["weight"] = given["weight"].squeeze(2) if of_signal else given["weight"]
    layer = layer.double() if node.wide else layer
    layer.load_state_dict(given)
    return layer


def _key(name: str) -> str:
    key = name.replace(".", "/")
    return f"{key}/" if hasattr(nn.ModuleDict, key) else key
