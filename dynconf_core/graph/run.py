"""The graph of an ANN, run: every node's value, or the output alone."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate

Look = Callable[[Node, Tensor], Tensor | None]
"""Sees a node's value, batch first; what it returns, unless None, takes the value's place."""


def prepared(graph: Graph, dtype: torch.dtype, device: torch.device) -> Graph:
    """The graph with its tensors in ``dtype`` on ``device``."""
    moved = {
        node.name: node.with_tensors(**{key: value.to(device, dtype) for key, value in node.tensors.items()})
        for node in graph.nodes
        if node.tensors
    }
    return graph.map(moved)


@torch.no_grad()
def run(graph: Graph, images: Tensor, look: Look | None = None) -> Tensor:
    """The output ``(N, C)`` for normalised ``images (N, ...)``; a value is kept only until its last reader has seen it."""
    values: dict[str, Tensor] = {}
    last = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        value = images if node.kind == "input" else evaluate(node, [values[name] for name in node.inputs], node.tensors)
        replaced = look(node, value) if look is not None else None
        values[node.name] = value if replaced is None else replaced
        for name in node.inputs:
            if last[name] == node.name:
                values.pop(name, None)
    return values[graph.output.name]


def batches(images: Any, size: int) -> Iterator[Tensor]:
    """``images`` in slices of at most ``size``."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
