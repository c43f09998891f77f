"""The values of all nodes in one time step, or in several computed together."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel
from dynconf_core.neurons.model import NeuronModel, State
from dynconf_core.simulation import spiking_max_pool
from dynconf_core.simulation.integer import Layout, packed
from dynconf_core.simulation.products import Products
from dynconf_core.simulation.step_plan import StepPlan


class StepValues:
    """Values by node, ``(steps * N, ...)``, one time step after the other, and the computation of further ones from them.

    ``given`` are those of every step, ``(N, ...)``, where the input is an image."""

    def __init__(
        self,
        graph: Graph,
        neurons: NeuronModel,
        plan: StepPlan,
        tensors: Mapping[str, Mapping[str, Tensor]],
        products: Products,
        given: Mapping[str, Tensor],
        acting: bool | Tensor,
        steps: int,
    ) -> None:
        self.graph, self.neurons, self.plan, self.tensors, self.products = graph, neurons, plan, tensors, products
        self.acting, self.steps = acting, steps
        self.constant = {name: gated(value, acting) for name, value in given.items()}
        self.values: dict[str, Tensor] = {}
        self.packed: dict[tuple[str, Layout], Tensor] = {}

    def rows(self, name: str) -> Tensor:
        """A node's values in all time steps."""
        if name not in self.values:  # depends on the image alone: the same in every time step
            constant = self.constant[name]
            self.values[name] = torch.cat([constant] * self.steps) if self.steps > 1 else constant
        return self.values[name]

    def each(self, name: str) -> Sequence[Tensor]:
        """A node's values ``(N, ...)`` of each time step."""
        if name in self.constant:
            return [self.constant[name]] * self.steps
        return self.values[name].chunk(self.steps)

    def value(self, node: Node) -> Tensor:
        """The value of a node without state."""
        own = self.tensors[node.name]
        biased = self.acting if isinstance(self.acting, bool) else False
        whole, plain = self.products.whole.get(node.name), self.products.plain.get(node.name)
        if whole is not None:
            value = whole.of_packed(self._bytes(node.inputs[0], whole.layout), biased=biased)
        elif plain is not None:
            x = self.rows(node.inputs[0])
            value = plain(x.unsqueeze(2) if x.ndim == 3 else x, biased)
        else:
            value = evaluate(node, [self.rows(name) for name in node.inputs], own, biased=biased)
        if value.ndim == 4 and len(node.shape) == 2:
            value = value.squeeze(2)  # products take a signal as an image of height 1
        if not isinstance(self.acting, bool) and "bias" in own:
            value.add_(gated(per_channel(own["bias"], value).expand_as(value), self.acting))
        return value

    def let_go(self, name: str) -> None:
        """Free a node's values."""
        self.values.pop(name, None)
        self.packed = {key: kept for key, kept in self.packed.items() if key[0] != name}

    def _bytes(self, source: str, layout: Layout) -> Tensor:
        """A node's values as the bytes that integer products read, shared by all that use the same layout."""
        if (source, layout) not in self.packed:
            self.packed[source, layout] = packed(self.rows(source), layout)
        return self.packed[source, layout]

    def fired(self, node: Node, before: State | None) -> tuple[Tensor, State]:
        """A layer's spikes, and its state after the last time step; currents are added directly to the membrane potential."""
        spare: Tensor | None = None
        currents: list[Sequence[Tensor]] = []
        for name in self.plan.terms[node.name]:
            if name in self.plan.late:
                spare = self.value(self.graph.by_name[name])  # no other node reads it, so its memory may hold the spikes
                currents.append(spare.chunk(self.steps))
            else:
                currents.append(self.each(name))
        first = currents[0][0]
        spikes = spare if spare is not None and spare.dtype == torch.float32 else _like(first, self.steps)
        if before is None:
            like = first.double() if node.wide else first
            before = self.neurons.initial(like, per_channel(self.tensors[node.name]["initial"], like))
        state = before
        wide = torch.empty_like(state[0]) if node.wide else None  # the spikes are of the type of the membrane potential
        for out, *arriving in zip(spikes.chunk(self.steps), *currents, strict=True):
            for current in arriving:
                state[0].add_(current)
            sent, state = self.neurons.fire(state, out if wide is None else wide)
            if sent is not out:
                out.copy_(sent)
        return spikes, state

    def pooled(self, node: Node, before: State | None) -> tuple[Tensor, State]:
        """The spikes of a max pool, and its state after the last time step."""
        sent: list[Tensor] = []
        state = before
        for spikes in self.each(node.inputs[0]):
            change, state = spiking_max_pool.step(node, spikes, state)
            sent.append(change)
        assert state is not None
        return torch.cat(sent) if self.steps > 1 else sent[0], state


def _like(value: Tensor, steps: int) -> Tensor:
    """Uninitialised float32 memory for ``steps`` values like ``value (N, ...)``, in the same layout."""
    rows = value.movedim(1, -1)
    if value.ndim > 2 and rows.is_contiguous():  # channels last
        return torch.empty((steps * len(value), *rows.shape[1:]), dtype=torch.float32, device=value.device).movedim(-1, 1)
    return torch.empty((steps * len(value), *value.shape[1:]), dtype=torch.float32, device=value.device)


def gated(value: Tensor, acting: bool | Tensor) -> Tensor:
    """The value for samples on which it acts, 0 for the others."""
    if isinstance(acting, bool):
        return value if acting else torch.zeros_like(value)
    return value * acting.view(-1, *([1] * (value.ndim - 1)))
