"""What a graph of NIR holds, and what of it stands in metadata alone, where other readers than ``from_nir`` do not look."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import nir


@dataclass(frozen=True)
class NirSummary:
    """What was written.

    Attributes:
        units: of currents and thresholds, "threshold" or "physical".
        nodes: the number of nodes by type.
        edges: the number of edges.
        neurons: the number of neurons.
        for_readers: what a reader must do for the same spikes, since NIR has no word for it.
    """

    units: str
    nodes: Mapping[str, int]
    edges: int
    neurons: int
    for_readers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "nodes": dict(self.nodes), "for_readers": list(self.for_readers)}

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.nodes.items())
        return f"{sum(self.nodes.values())} nodes ({kinds}), {self.edges} edges, {self.neurons} neurons, {self.units} units"


def nir_summary(graph: nir.NIRGraph) -> NirSummary:
    """The summary of a graph that ``to_nir`` made."""
    nodes = Counter(type(node).__name__ for node in graph.nodes.values())
    neurons = sum(int(node.v_threshold.size) for node in graph.nodes.values() if type(node).__name__ == "IF")
    return NirSummary(str(graph.metadata["units"]), dict(sorted(nodes.items())), len(graph.edges), neurons, _for_readers(graph))


def _for_readers(graph: Any) -> tuple[str, ...]:
    spiking = [node.metadata for node in graph.nodes.values() if type(node).__name__ == "IF"]
    starts = sorted({float(value) for meant in spiking for value in np.asarray(meant["initial_potential"]).reshape(-1)})
    shown = f"{starts[0]:g}" if len(starts) == 1 else f"{starts[0]:g} to {starts[-1]:g}, by layer and channel"
    found = [f"set V(0) to initial_potential ({shown})"]
    if all(meant["reset"] == "subtract" for meant in spiking):
        found.append("at a spike subtract v_threshold from the potential (soft reset)")
    found.append("fire at or above v_threshold, at most once a time step, with no lower bound of the potential")
    found.append("give the image as a constant input in every time step")
    rounded = {name: node.metadata["round_bits"] for name, node in graph.nodes.items() if "round_bits" in node.metadata}
    if rounded:
        places = ", ".join(f"{name} to 2^-{bits}" for name, bits in rounded.items())
        found.append(f"round to multiples (round_bits): {places}")
    wide = json.loads(graph.metadata["facts"]).get("wide", [])
    if wide:
        found.append(f"add up in float64 to be exact: {', '.join(map(str, wide))} (from_nir does)")
    return tuple(found)
