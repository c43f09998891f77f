"""A trained network as the SNN it converts to, with gradients: the network that fine-tuning trains.

The forward values are those of the core's simulation in the units of the ANN: the same graph, the same neuron model, a spike of
layer l has the height theta_l. The backward pass replaces the derivative of a spike by the model's surrogate (see
``NeuronModel.slope``) and follows the membrane potential through all time steps, the reset included (Neftci, Mostafa, Zenke,
"Surrogate Gradient Learning in Spiking Neural Networks", IEEE Signal Processing Magazine 2019, arXiv 1901.09948).

Weights, thresholds, learned initial potentials and the factors of batch normalisation are the network's own parameters. Batch
normalisation keeps its running statistics. Whatever is trained is therefore stored, loaded and converted as after training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dynconf_core.activations.quantisation import Quantised
from dynconf_core.conversion.convert import learned_potentials, named_by_activations
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, max_pool, per_channel
from dynconf_core.graph.trace import activations_first, traced
from dynconf_core.neurons.model import NeuronModel

CLOSE = 1e-6
"""The largest difference between a module's tensors and those of its node, relative to the largest."""


class _Spikes(torch.autograd.Function):
    """The spikes that a neuron model sends, as a function of the membrane potential with the derivative ``slope``."""

    @staticmethod
    def forward(ctx: FunctionCtx, potential: Tensor, sent: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return sent

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * slope, None, None


class Spiking(nn.Module):
    """The SNN of a network, differentiable in the network's parameters.

    Args:
        network: with activations that declare their quantisation; trained in place.
        example: a normalised image ``(1, ...)``, for its shape.
        options: of the conversion, whose thresholds must be those learned in training.
        steps: T, the number of time steps that are simulated.

    Raises:
        InputError: for a network that cannot be traced, thresholds from another source, a correction, a neuron model without a
            surrogate derivative, an initial potential given besides learned ones, or a parameter that is no weight of a module
            that the graph knows.
    """

    def __init__(self, network: nn.Module, example: Tensor, options: ConversionOptions, steps: int) -> None:
        super().__init__()
        if options.thresholds != "learned" or options.correct:
            raise InputError(
                "fine-tuning trains the thresholds that were learned with the network, but this conversion finds them from "
                "images: use QCFS or LSQ activations, or set fine_tune_epochs=0."
            )
        self.network, self.steps = network, steps
        self.graph = activations_first(traced(network.eval(), example))
        self.neurons = options.model() or named_by_activations(self.graph)
        _check_reset(self.neurons)
        learned_potentials(self.graph, self.neurons, options)
        self.initial = options.initial_potential
        self.modules_of = _modules_of(network, self.graph)
        self.timed = self.graph.after(("activation",))

    @property
    def active(self) -> int:
        """The number of first time steps in which the image and the biases act."""
        return self.steps if self.neurons.active_steps is None else min(self.steps, self.neurons.active_steps)

    def forward(self, images: Tensor) -> Tensor:
        """What both networks make of normalised ``images (N, ...)``: ``(T + 1, N, C)``.

        Row t - 1 holds the SNN's logits after t steps, that is, their sum divided by the number of steps in which the image has
        acted; the last row the logits of the network itself, in evaluation mode.
        """
        logits = self._run(images).to(images.dtype)  # sums in half precision would be rounded
        spiking, still = logits[:-1].cumsum(0), logits[-1:]
        presented = torch.arange(1, self.steps + 1, device=images.device).clamp_max_(self.active)
        return torch.cat([spiking / presented.view(-1, 1, 1), still])

    @torch.no_grad()
    def sent(self, images: Tensor) -> dict[str, Tensor]:
        """The spikes ``(T, N, ...)`` of every layer, by the name of its node."""
        found: dict[str, Tensor] = {}
        self._run(images, found)
        return found

    def _run(self, images: Tensor, sent: dict[str, Tensor] | None = None) -> Tensor:
        """The logits ``(T + 1, N, C)`` of every time step, then of the network itself."""
        values: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            own = self.tensors(node)
            if node.kind == "input":
                value = images
            elif node.kind == "activation":
                value = self._fired(node, values[node.inputs[0]], own, sent)
            elif node.name not in self.timed:
                value = evaluate(node, [values[name] for name in node.inputs], own)
            elif node.kind == "max_pool":
                value = self._pooled(node, self._rows(node.inputs[0], values))
            else:
                value = self._evaluated(node, [self._rows(name, values) for name in node.inputs], own)
            values[node.name] = value
        logits: Tensor = self._rows(self.graph.output.name, values).unflatten(0, (self.steps + 1, len(images)))
        return logits

    def tensors(self, node: Node) -> Mapping[str, Tensor]:
        """The tensors of a node, computed from the parameters of its module."""
        module = self.modules_of.get(node.name)
        return node.tensors if module is None else _own_tensors(module, node)

    def _acting(self, like: Tensor) -> Tensor:
        """1 for every row of ``like ((T + 1) N, ...)`` whose time step the image acts in, 0 for the others."""
        acting = torch.ones(self.steps + 1, device=like.device, dtype=like.dtype)
        acting[self.active : self.steps] = 0
        return acting.repeat_interleave(len(like) // (self.steps + 1)).view(-1, *[1] * (like.ndim - 1))

    def _rows(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """A node's values ``((T + 1) N, ...)``, one time step after the other, then those of the network itself."""
        value = values[name]
        if name in self.timed:
            return value
        rows = torch.cat([value] * (self.steps + 1))
        return rows if self.active == self.steps else rows * self._acting(rows)

    def _evaluated(self, node: Node, inputs: Sequence[Tensor], own: Mapping[str, Tensor]) -> Tensor:
        if self.active == self.steps or "bias" not in own:
            return evaluate(node, inputs, own)
        value = evaluate(node, inputs, own, biased=False)
        return value + per_channel(own["bias"], value) * self._acting(value)

    def _fired(self, node: Node, source: Tensor, own: Mapping[str, Tensor], sent: dict[str, Tensor] | None) -> Tensor:
        """What a layer of neurons sends in every time step, and the activation itself."""
        theta = own["threshold"]
        same = node.inputs[0] not in self.timed
        parts = [source] * (self.steps + 1) if same else source.chunk(self.steps + 1)
        start = per_channel(own["initial"], parts[0]) if "initial" in own else self.initial
        state = self.neurons.initial(parts[0].detach().to(theta.dtype), start)
        potential, rest = state[0], state[1:]
        spikes: list[Tensor] = []
        for t, part in enumerate(parts[:-1]):
            if t < self.active or not same:
                # At least the precision of the threshold: half precision would add up rounding errors.
                potential = potential + part.to(theta.dtype) / per_channel(theta, part)
            now, rest = self._step(potential, rest)
            potential = potential - now
            spikes.append(now)
        if sent is not None:
            sent[node.name] = torch.stack(spikes)
        module = self.modules_of[node.name]
        return torch.cat([torch.cat(spikes) * per_channel(theta, parts[0]), module(parts[-1].to(theta.dtype))])

    def _step(self, potential: Tensor, rest: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The spikes of one time step, and what the neurons keep besides the membrane potential."""
        with torch.no_grad():
            slope = self.neurons.slope((potential, *rest))
            given = (potential.detach().clone(), *(one.clone() for one in rest))
            sent, after = self.neurons.fire(given, torch.empty_like(potential))
        spikes: Tensor = _Spikes.apply(potential, sent, slope)
        return spikes, after[1:]

    def _pooled(self, node: Node, rows: Tensor) -> Tensor:
        """The changes of the largest running count in every window, and the maximum itself."""
        parts = rows.unflatten(0, (self.steps + 1, -1))
        totals = torch.cat([parts[:-1].cumsum(0), parts[-1:]]).flatten(0, 1)
        largest = max_pool(node, totals).unflatten(0, (self.steps + 1, -1))
        changes = torch.diff(largest[:-1], dim=0, prepend=torch.zeros_like(largest[:1]))
        return torch.cat([changes, largest[-1:]]).flatten(0, 1)


def _check_reset(neurons: NeuronModel) -> None:
    """Raise ``InputError`` unless the model has a surrogate derivative, and a spike lowers its membrane potential by 1."""
    potential = torch.linspace(-2.75, 2.75, 12)
    state = neurons.initial(torch.empty_like(potential), potential)
    neurons.slope(state)
    sent, after = neurons.fire(state, torch.empty_like(potential))
    if not torch.equal(after[0], potential - sent):
        raise InputError(
            f"{neurons.name} neurons do not lower their membrane potential by what they send, which fine-tuning takes for "
            "granted: choose others, or set fine_tune_epochs=0."
        )


def _own_tensors(module: Any, node: Node) -> dict[str, Tensor]:
    """The tensors that a node has by its module's present parameters."""
    if isinstance(module, Quantised):
        declared = module.quantisation()
        given = {"threshold": declared.threshold, **declared.charge()}
        values = {name: torch.as_tensor(value, device=declared.threshold.device) for name, value in given.items()}
        return {name: value.reshape(()) if value.numel() == 1 else value.flatten() for name, value in values.items()}
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        assert module.running_mean is not None and module.running_var is not None
        factor = torch.rsqrt(module.running_var + module.eps) * (1 if module.weight is None else module.weight)
        offset = -factor * module.running_mean
        return {"weight": factor, "bias": offset if module.bias is None else module.bias + offset}
    weight = module.weight
    weight = weight.unsqueeze(2) if weight.ndim == 3 else weight
    return {"weight": weight} if module.bias is None else {"weight": weight, "bias": module.bias}


_HELD = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)
"""Modules whose parameters a node's tensors are computed from, besides the activations."""


def _modules_of(network: nn.Module, graph: Graph) -> dict[str, nn.Module]:
    """The module of every node that has one, compared with the node's tensors.

    Raises:
        InputError: if a parameter of the network takes part through none of them, or an activation has two sides.
    """
    known, found = dict(network.named_modules()), dict[str, nn.Module]()
    for node in graph.nodes:
        module: Any = known.get(node.name.partition("#")[0])
        held = isinstance(module, (*_HELD, Quantised))
        if held and _same(_own_tensors(module, node), node.tensors):
            found[node.name] = module
        elif node.kind == "activation":
            raise InputError(
                f"the activation at {node.name!r} is no module with a quantisation() of its own, so its threshold cannot be "
                "fine-tuned: use QCFS or LSQ modules, or set fine_tune_epochs=0."
            )
    trained = {id(parameter) for module in found.values() for parameter in module.parameters()}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and id(parameter) not in trained:
            raise InputError(
                f"{name} is no weight of a convolution, linear layer, batch normalisation or quantised activation, so it "
                "cannot be fine-tuned: call such a module where it is used, or set fine_tune_epochs=0."
            )
    return found


def _same(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module gives a node's tensors."""
    if own.keys() != tensors.keys():
        return False
    pairs = [(one.detach().double().cpu(), tensors[key]) for key, one in own.items()]
    return all(
        one.shape == other.shape and bool(((one - other).abs() <= CLOSE * other.abs().max().clamp_min(1e-12)).all())
        for one, other in pairs
    )
