"""The graph of a network: nodes in the order of the data flow, each one operation with its settings and tensors.

A network is traced into a graph; conversion rewrites it, the file of a converted SNN stores it, and the simulation runs it.
The Python code of the network is not needed any more.

Kinds of node, with their settings and tensors:

    input                                                     the image, a constant current in the SNN
    convolution   stride padding dilation groups              weight (O, I / groups, kh, kw), bias (O,) or none
    linear                                                    weight (O, I), bias (O,) or none
    scale         identity                                    weight (C,) or (), bias (C,) or none: a factor for each channel
    average_pool  kernel stride padding                       the mean over the window, including padding
    sum_pool      kernel stride padding                       the sum over the window
    max_pool      kernel stride padding dilation ceil_mode    the maximum over the window; with "least" the minimum
                  least
    add                                                       of two or more inputs of one shape
    concatenate                                               along the channels
    slice         slices: (start, stop, step) per dimension   of one sample's (C, H, W) or (F,)
    pad           pads: (before, after) per dimension         with zeros, of one sample's dimensions
    flatten                                                   (C, H, W) to (C H W,)
    rearrange     of                                          index: the position of every value in its flattened input (of
                                                              "values"), or of every channel (of "channels", (C,)); values are
                                                              moved, repeated or left out
    round         bits                                        to multiples of 2^-bits, half to even
    activation    function                                    "relu"; "clip": threshold; "quantised": threshold, and in the
                  levels neurons                              settings n and the name of its neuron model; with a slope,
                                                              f(x) - slope f(-x), and the threshold of f(-x) in below
    neurons       levels clipped                              threshold (for information only), initial () or (C,); n or None,
                                                              and whether the activation they replace has an upper limit

A signal (C, L) is an image of height 1 to convolutions and pools: their weights are (O, I / groups, 1, k), their settings
(1, k).
Weights in fixed point have the setting ``bits``, their binary places; ``identity`` marks the scale of a shortcut without
weights; ``wide`` marks nodes whose value (of neurons: the membrane potential) needs float64 to be exact.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

Settings = Mapping[str, Any]
"""Settings by name, as values that JSON can hold; the module's docstring lists those of each kind of node."""
WEIGHTED = ("convolution", "linear", "scale")
"""Kinds that multiply by weights."""
POOLS = ("average_pool", "sum_pool", "max_pool")
STRUCTURE = (*POOLS, "slice", "pad", "concatenate", "flatten", "rearrange")
"""Kinds that move or sum values without multiplying them."""


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: unique in the graph; the position of the operation in the traced network.
        kind: one of the kinds in the module's docstring.
        inputs: names of the nodes whose values it takes.
        settings: plain values, as JSON holds them.
        tensors: weights, biases, thresholds and initial membrane potentials.
        shape: of the value for one sample, without the batch.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    settings: Settings = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Whether its value, or the membrane potential of its neurons, is float64."""
        return bool(self.settings.get("wide", False))

    @property
    def channels(self) -> int:
        """Length of the first dimension after the batch."""
        return self.shape[0]

    def with_tensors(self, **tensors: Tensor | None) -> "Node":
        """The node with tensors replaced, added or (None) removed."""
        merged = {**self.tensors, **tensors}
        return replace(self, tensors={name: tensor for name, tensor in merged.items() if tensor is not None})


@dataclass(frozen=True)
class Graph:
    """Nodes ordered so that every input comes before its readers; the last node is the output (the logits).

    Attributes:
        nodes: in the order of the data flow.
        left_out: what the traced network does with the logits, which the graph leaves out: "softmax" or "log_softmax".
    """

    nodes: tuple[Node, ...]
    left_out: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each node's value, in order."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def input(self) -> Node:
        """The image."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """The logits."""
        return self.nodes[-1]

    def of_kind(self, *kinds: str) -> tuple[Node, ...]:
        """The nodes of these kinds, in order."""
        return tuple(node for node in self.nodes if node.kind in kinds)

    def after(self, kinds: Iterable[str]) -> frozenset[str]:
        """Names of the nodes of these kinds and of all nodes that depend on them."""
        wanted, found = set(kinds), set[str]()
        for node in self.nodes:
            if node.kind in wanted or found.intersection(node.inputs):
                found.add(node.name)
        return frozenset(found)

    def spikes(self) -> frozenset[str]:
        """Names of the nodes whose values are whole numbers of spikes: what neurons (in an ANN: activations) send, moved or
        summed by operations without weights."""
        found = set[str]()
        for node in self.nodes:
            if node.kind in ("neurons", "activation") or (node.kind in STRUCTURE and found.issuperset(node.inputs)):
                found.add(node.name)
        return frozenset(found)

    def map(self, change: Mapping[str, Node]) -> "Graph":
        """The graph with some nodes replaced by others of the same names."""
        return replace(self, nodes=tuple(change.get(node.name, node) for node in self.nodes))

    def without(self, name: str) -> "Graph":
        """The graph without the one-input node ``name``; its readers read its input instead."""
        (source,) = self.by_name[name].inputs
        return replace(
            self,
            nodes=tuple(
                replace(node, inputs=tuple(source if given == name else given for given in node.inputs))
                for node in self.nodes
                if node.name != name
            ),
        )
