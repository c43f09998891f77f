"""Which layers of a network integer arithmetic computes: those that read whole numbers of spikes, where it is faster."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dynconf_core.graph.bounds import in_one_step
from dynconf_core.graph.graph import Graph
from dynconf_core.simulation.integer import SpikeProduct, prepare


@dataclass(frozen=True)
class Products:
    """The exact integer products of a network's layers, by node name."""

    by_name: Mapping[str, SpikeProduct]

    @classmethod
    def of(cls, graph: Graph, tensors: Mapping[str, Mapping[str, Tensor]], samples: int) -> "Products":
        """Those that exist and, for batches of ``samples``, pay."""
        whole = graph.spikes()
        bounds = in_one_step(graph, 0.0)
        found: dict[str, SpikeProduct] = {}
        for node in graph.of_kind("convolution", "linear"):
            source = graph.by_name[node.inputs[0]]
            if source.name not in whole:
                continue
            wanted = ("stride", "padding", "dilation", "groups")
            geometry = {name: node.settings[name] for name in wanted if name in node.settings}
            product = prepare(
                tensors[node.name]["weight"],
                shape=(samples, *source.shape),
                signed=bool((bounds[source.name].low < 0).any()),
                largest=int(bounds[source.name].largest()),
                bias=tensors[node.name].get("bias"),
                **geometry,
            )
            if product is not None:
                found[node.name] = product
        return cls(found)

    def names(self) -> list[str]:
        """Of the layers that have one."""
        return list(self.by_name)

    def get(self, name: str) -> SpikeProduct | None:
        """The product of a layer, if it has one."""
        return self.by_name.get(name)
