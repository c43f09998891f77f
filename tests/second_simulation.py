"""A second implementation of SNNs: the network itself, its activations replaced by neurons, run once a time step in float64.

And the product's SNN run with everything it sends kept, and its graph run in float64 by a loop of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import State as NeuronState
from dynconf_core.neurons.signed import Signed
from dynconf_core.simulation.network import SpikingNetwork, State


class PlainNeuron(nn.Module):
    """One layer in the units of the ANN, from the equations and from nothing of the product."""

    def __init__(self, theta: float, top: int | None) -> None:
        super().__init__()
        self.theta, self.top = theta, top
        self.potential: Tensor | None = None
        self.count: Tensor | None = None
        self.inputs: list[Tensor] = []
        self.spikes: list[Tensor] = []

    def forward(self, current: Tensor) -> Tensor:
        if self.potential is None or self.count is None:
            self.potential, self.count = torch.zeros_like(current) + self.theta / 2, torch.zeros_like(current)
        self.potential = self.potential + current
        if self.top is None:
            fired = torch.where(self.potential >= self.theta, 1.0, 0.0).to(current)
        else:
            up = (self.potential >= self.theta) & (self.count < self.top)
            down = (self.potential < 0) & (self.count > 0)
            fired = torch.where(up, 1.0, torch.where(down, -1.0, 0.0)).to(current)
        self.potential = self.potential - self.theta * fired
        self.count = self.count + fired
        self.inputs.append(current.clone())
        self.spikes.append(fired)
        return self.theta * fired


class PlainMaxPool(nn.Module):
    """Sends by how much the maximum of the running sums has changed."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool
        self.total: Tensor | float = 0.0
        self.sent: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x
        before, self.sent = self.sent, self.pool(self.total)
        change: Tensor = self.sent - before
        return change


Given = Tensor | Sequence[Tensor]
"""Images, or the frames of each time step."""


def at(images: Given, time_step: int) -> Tensor:
    return images if isinstance(images, Tensor) else images[time_step - 1]


@torch.no_grad()
def plain_simulation(network: nn.Module, images: Given, time_steps: int) -> tuple[Tensor, dict[str, PlainNeuron]]:
    """Logits ``(N, T, C)`` float64, and the neurons by the activations' names."""
    spiking = copy.deepcopy(network).double()
    neurons: dict[str, PlainNeuron] = {}
    active = time_steps
    for name, module in list(spiking.named_modules()):
        if isinstance(module, QCFS):
            neurons[name] = PlainNeuron(float(module.threshold), None)
        elif isinstance(module, LSQ):
            neurons[name], active = PlainNeuron(module.top * float(module.step), module.top), module.top
        elif isinstance(module, nn.MaxPool2d):
            spiking.set_submodule(name, PlainMaxPool(module))
        if name in neurons:
            spiking.set_submodule(name, neurons[name])
    logits = []
    for time_step in range(1, time_steps + 1):
        if time_step == active + 1:
            for module in spiking.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None
                    module.running_mean.zero_()
                if isinstance(getattr(module, "bias", None), Tensor):
                    module.bias.zero_()  # type: ignore[union-attr, operator]
        logits.append(spiking(at(images, time_step).double() * (time_step <= active)))
    return torch.stack(logits, 1), neurons


# The product's SNN, run: as it is, and its graph in float64


@torch.no_grad()
def simulated(snn: SpikingNetwork, images: Given, time_steps: int) -> tuple[Tensor, dict[str, Tensor], State]:
    """Logits ``(N, T, C)``, spikes ``(N, T, ...)`` by layer (max pools too), and the last state."""
    seen: dict[str, list[Tensor]] = {}

    def look(node: Node, spikes: Tensor) -> None:
        seen.setdefault(node.name, []).append(spikes.clone())

    given = images if isinstance(images, Tensor) else torch.stack(list(images), 1)
    input_current, state, logits = snn.input_current(given), None, []
    for time_step in range(1, time_steps + 1):
        step = snn.step(input_current, state, time_step, look)
        state = step.state
        logits.append(step.logits.clone())
    assert state is not None
    return torch.stack(logits, 1), {name: torch.stack(steps, 1) for name, steps in seen.items()}, state


@torch.no_grad()
def in_float64(snn: SpikingNetwork, images: Given, time_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits ``(N, T, C)`` and the largest value of every node, computed in float64 by a loop of its own."""
    potentials: dict[str, Tensor] = {}
    own_states: dict[str, NeuronState] = {}
    counts: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}
    logits = []
    input_current = {node.name for node in snn.graph.nodes} - snn.graph.after(("neurons",))
    for time_step in range(1, time_steps + 1):
        values: dict[str, Tensor] = {}
        acting = snn.active_steps is None or time_step <= snn.active_steps
        for node in snn.graph.nodes:
            own = {key: value.double() if key != "index" else value for key, value in snn.tensors()[node.name].items()}
            inputs = [values[name] for name in node.inputs]
            if node.kind == "input":
                value = at(images, time_step).double() * acting
            elif node.kind == "neurons":
                start = own["initial"].view(-1, *[1] * (inputs[0].ndim - 2))
                potential = potentials.get(node.name, torch.zeros_like(inputs[0]) + start) + inputs[0]
                count = counts.get(node.name, torch.zeros_like(potential))
                largest[node.name + " charged"] = potential.abs().max()
                if isinstance(snn.neurons, IntegrateAndFire | Signed):
                    value = (potential >= 1).double()
                    if isinstance(snn.neurons, Signed):
                        value = value * (count < snn.neurons.levels) - ((potential < 0) & (count > 0)).double()
                else:  # somebody's own: its equations are not ours to repeat, but float64 is
                    before = own_states.get(node.name, snn.neurons.initial(inputs[0], start))
                    value, own_states[node.name] = snn.neurons.step(inputs[0], before)
                potentials[node.name], counts[node.name] = potential - value, count + value
            elif node.kind == "max_pool":
                before = counts.get(node.name, torch.zeros_like(inputs[0]))
                counts[node.name] = before + inputs[0]
                value = evaluate(node, [counts[node.name]], own) - evaluate(node, [before], own)
            else:
                value = evaluate(node, inputs, own, biased=acting or node.name in input_current)
                value = value * acting if node.name in input_current else value
            values[node.name] = value
            largest[node.name] = torch.maximum(largest.get(node.name, value.new_zeros(())), value.abs().max())
        logits.append(values[snn.graph.output.name])
    return torch.stack(logits, 1), largest


def places_of(graph: Graph) -> dict[str, int]:
    """Binary places of every value, followed through the graph from what each node says of itself."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        given_places = [found[name] for name in node.inputs]
        if node.kind in ("input", "neurons"):
            found[node.name] = 0
        elif node.kind == "round":
            found[node.name] = node.settings["bits"]
        else:
            found[node.name] = max(given_places) + (node.settings["bits"] if node.kind in WEIGHTED else 0)
    return found


def exact_run(snn: SpikingNetwork, images: Tensor, time_steps: int) -> Tensor:
    """Mean logits, after float32 was seen to give what float64 does."""
    logits, _, _ = simulated(snn, images, time_steps)
    assert torch.equal(logits.double(), in_float64(snn, images, time_steps)[0])
    return logits.double().mean(1)


def relative(found: Tensor, expected: Tensor) -> float:
    """The error as a share of what is expected."""
    return float((found - expected).norm() / expected.norm())
