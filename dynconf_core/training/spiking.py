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


class _Firing(torch.autograd.Function):
    """The spikes of a layer in all time steps, ``(T N, ...)``, one step after the other.

    The gradient is that of V'(t) = V(t - 1) + I(t), s(t) = spikes of V'(t), V(t) = V'(t) - s(t) with ds / dV' = ``slope``, from
    the last step to the first. In one piece it takes fewer operations than step by step, and keeps the slopes alone.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, acting: int, steps: int, neurons: NeuronModel, potential: Tensor, *rest: Tensor
    ) -> Tensor:
        """Simulate ``steps`` steps.

        Args:
            current: in units of the threshold, ``(acting N, ...)``, or ``(N, ...)`` if it is the same in all of these steps.
            acting: the number of first steps in which it acts.
            steps: T.
            neurons: the model.
            potential: V(0), ``(N, ...)``.
            rest: what else the model keeps.
        """
        state, spikes, slopes = (potential.clone(), *rest), [], []
        for t in range(steps):
            if t < acting:
                state[0].add_(_of_step(current, t, len(potential)))
            slopes.append(neurons.slope(state))
            sent, state = neurons.fire(state, torch.empty_like(potential))
            spikes.append(sent)
        ctx.save_for_backward(*slopes)
        ctx.acting, ctx.constant = acting, len(current) == len(potential)
        return torch.cat(spikes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        count = len(slopes[0])
        later = torch.zeros_like(slopes[0])
        found: list[Tensor] = []
        for t in reversed(range(len(slopes))):
            later = torch.lerp(later, _of_step(gradient, t, count), slopes[t])
            if t < ctx.acting:
                found.append(later)
        current = torch.stack(found).sum(0) if ctx.constant else torch.cat(found[::-1])
        return (current, None, None, None, later, *[None] * (len(ctx.needs_input_grad) - 5))


def _of_step(rows: Tensor, t: int, count: int) -> Tensor:
    """The rows ``(N, ...)`` of a time step; all of them if there are those of one step alone."""
    return rows if len(rows) == count else rows[t * count : (t + 1) * count]


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
        self.factors = _factors(self.graph)
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
            elif node.kind == "scale" and self.factors.get(node.inputs[0]) is node:
                value = values[node.inputs[0]]  # the weights before it have its factors
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
        """The tensors of a node, computed from the parameters of its module, and of the factors that its weights take in."""
        module, after = self.modules_of.get(node.name), self.factors.get(node.name)
        own = node.tensors if module is None else _own_tensors(module, node)
        return own if after is None else _scaled(own, self.tensors(after))

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
        theta, same = own["threshold"], node.inputs[0] not in self.timed
        count = len(source) if same else len(source) // (self.steps + 1)
        now, still = (source, source) if same else source.split([self.steps * count, count])
        start = per_channel(own["initial"], still) if "initial" in own else self.initial
        state = self.neurons.initial(still.detach().to(theta.dtype), start)
        # At least the precision of the threshold: half precision would add up rounding errors.
        current = now.to(theta.dtype) / per_channel(theta, now)
        spikes: Tensor = _Firing.apply(current, self.active if same else self.steps, self.steps, self.neurons, *state)
        if sent is not None:
            sent[node.name] = spikes.unflatten(0, (self.steps, count))
        module = self.modules_of[node.name]
        return torch.cat([spikes * per_channel(theta, spikes), module(still.to(theta.dtype))])

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


def _factors(graph: Graph) -> dict[str, Node]:
    """By the names of weights, the factors and offsets that follow them at once: multiplied with the weights instead of with
    the values of all images and time steps."""
    pairs = ((graph.by_name[node.inputs[0]], node) for node in graph.of_kind("scale"))
    weights = ("convolution", "linear")
    return {before.name: node for before, node in pairs if before.kind in weights and graph.readers[before.name] == (node,)}


def _scaled(own: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and bias with factors and offsets ``(O,)`` or ``()`` that follow them."""
    weight, factor = own["weight"], after["weight"]
    found = {"weight": weight * factor.expand(len(weight)).view(-1, *[1] * (weight.ndim - 1))}
    biases = [own["bias"] * factor] if "bias" in own else []
    biases += [after["bias"].expand(len(weight))] if "bias" in after else []
    return {**found, "bias": sum(biases[1:], start=biases[0])} if biases else found


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
