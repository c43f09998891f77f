"""Two-sided activations as two one-sided ones, so that neurons that only count upwards can replace them.

    f(x) - slope f(-x)   becomes   the neurons of f(x), and those of f(-x) whose spikes weigh -slope

LeakyReLU and PReLU, x for x > 0 and slope x for x < 0, are relu(x) - slope relu(-x); a clip from -a to b is clip(x, 0, b) -
clip(-x, 0, a). Each side is an activation with a threshold of its own, and a settled SNN has both exactly. The two populations
are kept apart up to the next weights: a layer w reads w f(x) + (-slope w) f(-x), as two layers whose currents are added, so
that only spikes meet weights. The negated current comes from a copy of the layers before, with negated weights.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import STRUCTURE, WEIGHTED, Graph, Node
from dynconf_core.graph.operations import channels_read
from dynconf_core.graph.trace import activations_first, folded, traced


def as_converted(network: nn.Module, example: Tensor) -> Graph:
    """The network's graph in the form that conversion starts from: its activations are the layers of neurons.

    Raises:
        InputError: see ``trace.traced`` and ``one_sided``.
    """
    graph = traced(network, example)
    return replace(one_sided(activations_first(folded(graph))), left_out=graph.left_out)


def one_sided(graph: Graph) -> Graph:
    """The graph with every two-sided activation as two.

    Raises:
        InputError: for a max pool of an activation that falls anywhere.
    """
    if not any("slope" in node.tensors for node in graph.of_kind("activation")):
        return graph
    found = _Sides()
    for node in graph.nodes:
        found.take(node)
    return Graph(found.ended(graph.output.name))


@dataclass
class _Sides:
    """The new graph as it grows.

    Attributes:
        nodes: by name; a value's positive side has the name of the value.
        negative: by value, the name of its negative side, and the factor of that, one number or one per channel.
        both: values of which both sides may be above 0: means of several.
        spikes: names of the nodes that send spikes.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    negative: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    both: set[str] = field(default_factory=set)
    spikes: set[str] = field(default_factory=set)

    def take(self, node: Node) -> None:
        """Add a node of the old graph, after those it reads."""
        sided = any(name in self.negative for name in node.inputs)
        if node.kind == "activation" and "slope" in node.tensors:
            self._activation(node)
        elif not sided:
            self._add(node)
        elif node.kind in WEIGHTED:
            self._weighted(node)
        elif node.kind == "concatenate":
            self._concatenation(node)
        elif node.kind in STRUCTURE and self._moved_factor(node) is not None:
            self._moved(node)
        else:
            self._add(replace(node, inputs=tuple(one for name in node.inputs for one in self._terms(node, name))))

    def ended(self, output: str) -> tuple[Node, ...]:
        """All nodes; the output comes last."""
        if output in self.negative:
            self._whole(output)
        return tuple(self.nodes.values())

    def _add(self, node: Node) -> str:
        self.nodes[node.name] = node
        if node.kind == "activation" or (node.kind in STRUCTURE and self.spikes.issuperset(node.inputs)):
            self.spikes.add(node.name)
        return node.name

    def _activation(self, node: Node) -> None:
        (source,) = node.inputs
        source = self._whole(source) if source in self.negative else source
        tensors = {key: value for key, value in node.tensors.items() if key not in ("slope", "below")}
        below = {"threshold": node.tensors["below"]} if "below" in node.tensors else tensors
        other = self._negated(source)
        self._add(replace(node, inputs=(source,), tensors=tensors))
        name = self._add(replace(node, name=f"{node.name}.negative", inputs=(other,), tensors=below))
        self.negative[node.name] = name, -node.tensors["slope"]

    def _negated(self, name: str) -> str:
        """The node of the negative of a value."""
        node, label = self.nodes[name], f"{name}.negated"
        if label in self.nodes:
            return label
        if node.kind in WEIGHTED:
            tensors = {key: -value for key, value in node.tensors.items()}
            return self._add(replace(node, name=label, tensors=tensors))
        if name not in self.spikes and node.kind in (*STRUCTURE, "add") and node.kind != "max_pool":
            return self._add(replace(node, name=label, inputs=tuple(self._negated(one) for one in node.inputs)))
        return self._add(_identity(label, node, torch.tensor(-1.0, dtype=torch.float64)))

    def _weighted(self, node: Node) -> None:
        (source,) = node.inputs
        other, factor = self.negative[source]
        first = self._add(replace(node, name=f"{node.name}<{source}"))
        tensors = {"weight": _weight_by_input(node, factor)}
        second = self._add(replace(node, name=f"{node.name}<{other}", inputs=(other,), tensors=tensors))
        self._add(Node(node.name, "add", (first, second), node.shape))

    def _concatenation(self, node: Node) -> None:
        """The negative side has zeros for the values that have none."""
        self._add(node)
        parts: list[str] = []
        factors: list[Tensor] = []
        missing = 0
        for name in node.inputs:
            channels = self.nodes[name].channels
            if name not in self.negative:
                missing += channels
                factors.append(torch.ones(channels, dtype=torch.float64))
                continue
            other, factor = self.negative[name]
            factors.append(factor.expand(channels))
            parts.append(self._padded(node.name, other, missing, 0))
            missing = 0
        parts[-1] = self._padded(node.name, parts[-1], 0, missing)
        one = len(parts) == 1
        name = parts[0] if one else self._add(Node(f"{node.name}.negative", "concatenate", tuple(parts), node.shape))
        self.negative[node.name] = name, torch.cat(factors)
        if not self.both.isdisjoint(node.inputs):
            self.both.add(node.name)

    def _padded(self, reader: str, name: str, before: int, after: int) -> str:
        if not before and not after:
            return name
        node = self.nodes[name]
        shape = (before + node.channels + after, *node.shape[1:])
        pads = ((before, after), *[(0, 0)] * (len(shape) - 1))
        return self._add(Node(f"{reader}<{name}", "pad", (name,), shape, {"pads": pads}))

    def _moved(self, node: Node) -> None:
        (source,) = node.inputs
        other, _ = self.negative[source]
        factor = self._moved_factor(node)
        assert factor is not None
        settings = node.settings
        if node.kind == "max_pool":
            self._check_largest(node, factor)
            settings = {**settings, "least": True}  # of the larger values the negative sides are the smaller
        if node.kind == "average_pool" or source in self.both:
            self.both.add(node.name)
        self._add(node)
        name = self._add(replace(node, name=f"{node.name}.negative", inputs=(other,), settings=settings))
        self.negative[node.name] = name, factor

    def _check_largest(self, node: Node, factor: Tensor) -> None:
        """Raise ``InputError`` unless the largest value has the largest positive and the smallest negative side."""
        if bool((factor > 0).any()):
            raise InputError(
                f"the max pool at {node.name!r} follows an activation with a negative slope, which falls below 0, so that "
                "the largest input need not have the largest spike count: put the activation after the pool, or use an "
                "average pool."
            )
        if node.inputs[0] in self.both:
            raise InputError(
                f"the max pool at {node.name!r} pools means of an activation with two sides, whose spikes are counted "
                "apart: put the average pool behind it, or use ReLU."
            )

    def _moved_factor(self, node: Node) -> Tensor | None:
        """The factor behind an operation that moves or sums values of one input; None if it differs within a channel."""
        source = self.nodes[node.inputs[0]]
        _, factor = self.negative[source.name]
        if factor.ndim == 0:
            return factor
        if node.kind == "slice":
            return factor[slice(*node.settings["slices"][0])]
        if node.kind == "pad":
            before, after = node.settings["pads"][0]
            return torch.cat([factor.new_ones(before), factor, factor.new_ones(after)])
        if node.kind == "flatten":
            return factor.repeat_interleave(node.channels // len(factor))
        if node.kind == "rearrange":
            found = factor[channels_read(node, source)]
            return found[:, 0] if bool((found == found[:, :1]).all()) else None
        return factor

    def _terms(self, reader: Node, name: str) -> tuple[str, ...]:
        """What a sum adds up for a value; for other readers the one node that holds it."""
        if name not in self.negative:
            return (name,)
        if reader.kind != "add":
            return (self._whole(name),)
        return name, self._scaled(name)

    def _scaled(self, name: str) -> str:
        """The negative side of a value with its factor."""
        other, factor = self.negative[name]
        label = f"{other}.scaled"
        return label if label in self.nodes else self._add(_identity(label, self.nodes[other], factor))

    def _whole(self, name: str) -> str:
        """One node with both sides of a value."""
        label = f"{name}.sum"
        if label not in self.nodes:
            self._add(Node(label, "add", (name, self._scaled(name)), self.nodes[name].shape))
        return label


def _identity(name: str, source: Node, factor: Tensor) -> Node:
    return Node(name, "scale", (source.name,), source.shape, {"identity": True}, {"weight": factor})


def _weight_by_input(node: Node, factor: Tensor) -> Tensor:
    """The weights, each times the factor of the channel that it reads."""
    weight = node.tensors["weight"]
    if factor.ndim == 0 or node.kind == "scale":
        return weight * factor
    if node.kind == "linear":
        return weight * factor
    outputs, inputs, groups = len(weight), weight.shape[1], int(node.settings["groups"])
    read = factor.view(groups, 1, inputs).expand(groups, outputs // groups, inputs).reshape(outputs, inputs, 1, 1)
    return weight * read
