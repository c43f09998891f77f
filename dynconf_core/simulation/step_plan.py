"""The plan of a time step: the order of the nodes, the terms of each layer's current, and when values are freed."""

from collections.abc import Mapping
from dataclasses import dataclass

from dynconf_core.graph.graph import Graph, Node


@dataclass(frozen=True)
class StepPlan:
    """The plan of one time step.

    Attributes:
        before: nodes that depend on the image alone, in forward order.
        order: the nodes that a time step visits, in order; a layer of neurons adds up its own current.
        needed: names of the values of ``before`` that later nodes read.
        terms: by layer of neurons, the values whose sum is its current.
        late: terms that are computed only when their layer adds them up, since no other node reads them.
        last: by node, the values that are no longer needed after it.
    """

    before: tuple[Node, ...]
    order: tuple[Node, ...]
    needed: frozenset[str]
    terms: Mapping[str, tuple[str, ...]]
    late: frozenset[str]
    last: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, graph: Graph) -> "StepPlan":
        """The plan for ``graph``."""
        after = graph.after(("neurons",))
        before = tuple(node for node in graph.nodes if node.name not in after)
        needed = frozenset(node.name for node in before if any(reader.name in after for reader in graph.readers[node.name]))
        layers = graph.of_kind("neurons")
        terms = {node.name: _summed(node, graph, after) for node in layers}
        absorbed = {name for node in layers for name in _between(node, graph, terms[node.name])}
        late = frozenset(name for names in terms.values() for name in names if _late(graph.by_name[name], graph, after))
        order = tuple(node for node in graph.nodes if node.name in after and node.name not in absorbed | late)
        return cls(before, order, needed, terms, late, _last_use(order, terms, late, graph))


def _summed(node: Node, graph: Graph, after: frozenset[str]) -> tuple[str, ...]:
    """The values whose sum is a layer's current; a sum that no other node reads is split into its terms."""
    waiting, found = [node.inputs[0]], []
    while waiting:
        source = graph.by_name[waiting.pop(0)]
        if source.kind == "add" and source.name in after and len(graph.readers[source.name]) == 1:
            waiting += source.inputs
        else:
            found.append(source.name)
    return tuple(found)


def _between(node: Node, graph: Graph, terms: tuple[str, ...]) -> set[str]:
    """The sums between a layer and its terms."""
    waiting, found = [node.inputs[0]], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in terms:
            found.add(name)
            waiting += graph.by_name[name].inputs
    return found


def _late(node: Node, graph: Graph, after: frozenset[str]) -> bool:
    """Whether a term is computed only when its layer adds it up, into memory of its own."""
    fresh = node.kind in ("convolution", "linear", "scale", "sum_pool", "add", "concatenate", "rearrange")
    return fresh and node.name in after and len(graph.readers[node.name]) == 1


def _last_use(
    order: tuple[Node, ...], terms: Mapping[str, tuple[str, ...]], late: frozenset[str], graph: Graph
) -> dict[str, tuple[str, ...]]:
    """By node, the values that are no longer needed after it."""
    last: dict[str, str] = {}
    for node in order:
        read = [*node.inputs] if node.kind != "neurons" else []
        for name in terms.get(node.name, ()):
            read += graph.by_name[name].inputs if name in late else [name]
        last |= dict.fromkeys(read, node.name)
    found: dict[str, list[str]] = {}
    for name, reader in last.items():
        found.setdefault(reader, []).append(name)
    return {reader: tuple(names) for reader, names in found.items()}
