"""What the nodes of one time step compute."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel
from dynconf_core.neurons import integrate_and_fire, signed
from dynconf_core.simulation.integer import Layout, packed
from dynconf_core.simulation.products import Products
from dynconf_core.simulation.step_plan import StepPlan

NeuronState = integrate_and_fire.State | signed.State


class StepValues:
    """The values of one time step, by node, and how a node's is computed from them."""

    def __init__(
        self,
        graph: Graph,
        plan: StepPlan,
        tensors: Mapping[str, Mapping[str, Tensor]],
        products: Products | None,
        given: Mapping[str, Tensor],
        acting: bool | Tensor,
    ) -> None:
        self.graph, self.plan, self.tensors, self.products, self.acting = graph, plan, tensors, products, acting
        self.values = {name: gated(value, acting) for name, value in given.items()}
        self.packed: dict[tuple[str, Layout], Tensor] = {}

    def value(self, node: Node) -> Tensor:
        """Of a node without a state."""
        own = self.tensors[node.name]
        biased = self.acting if isinstance(self.acting, bool) else False
        product = self.products.get(node.name) if self.products is not None else None
        if product is not None:
            value = product.of_packed(self._bytes(node.inputs[0], product.layout), biased=biased)
        else:
            value = evaluate(node, [self.values[name] for name in node.inputs], own, biased=biased)
        if not isinstance(self.acting, bool) and "bias" in own:
            value.add_(gated(per_channel(own["bias"], value).expand_as(value), self.acting))
        return value

    def _bytes(self, source: str, layout: Layout) -> Tensor:
        """A value as the bytes that integer products read; those that read one layout share them."""
        if (source, layout) not in self.packed:
            self.packed[source, layout] = packed(self.values[source], layout)
        return self.packed[source, layout]

    def fired(self, node: Node, before: NeuronState | None) -> tuple[Tensor, NeuronState]:
        """A layer's spikes and new state: every current is added to the membrane potential as it comes."""
        potential = None if before is None else before.potential
        spare: Tensor | None = None
        for name in self.plan.terms[node.name]:
            late = name in self.plan.late
            current = self.value(self.graph.by_name[name]) if late else self.values[name]
            if potential is None:
                initial = per_channel(self.tensors[node.name]["initial"], current)
                potential = torch.empty_like(current).copy_(initial)
            potential.add_(current)
            spare = current if late else spare  # nobody else reads it: it may hold the spikes
        assert potential is not None
        out = torch.empty_like(potential) if spare is None else spare
        if node.settings["signed"]:
            net = before.net if isinstance(before, signed.State) else torch.zeros_like(potential)
            return signed.fire(potential, net, signed.Parameters(1.0, int(node.settings["levels"])), out)
        return integrate_and_fire.fire(potential, integrate_and_fire.Parameters(1.0), out)


def gated(value: Tensor, acting: bool | Tensor) -> Tensor:
    """The value where it acts, else 0."""
    if isinstance(acting, bool):
        return value if acting else torch.zeros_like(value)
    return value * acting.view(-1, *([1] * (value.ndim - 1)))
