"""A spiking network as a function of one time step: ``step(input_current, state, time_step) -> (logits, state)``.

An image ``(N, ...)`` is a constant input current, so everything before the first neurons is computed only once
(``input_current``). Frames ``(N, T, ...)``, such as event frames or an encoded image, are one input for each time step, and the
same is computed in every step. Since it is linear, the network then approximates what the ANN computes for the mean frame. In
networks whose input acts in the first n steps only, the frames are those of these n steps.

The state of all neurons is a value held by the caller, batch first in every tensor: samples that have exited are dropped by
indexing. All values are in units of the thresholds: neurons fire at 1 and emit 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import evaluate, per_channel
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.neurons.model import State as LayerState
from dynconf_core.simulation.frames import at_steps, mean_frame
from dynconf_core.simulation.input_checks import check_frames, check_images, check_time_steps
from dynconf_core.simulation.pace import Pace, chunks, pace
from dynconf_core.simulation.products import Products
from dynconf_core.simulation.step_plan import StepPlan
from dynconf_core.simulation.step_values import StepValues, gated

State = dict[str, LayerState]
"""The state of each layer of neurons and each max pool, by node name."""
Look = Callable[[Node, Tensor], None]
"""Called with the spikes ``(N, ...)`` that a layer of neurons or a max pool emits; must not keep or change the tensor."""


@dataclass(frozen=True)
class InputCurrent:
    """What a simulation takes in: values that depend on the image alone, by node, and the number of samples.

    For frames ``values`` holds them alone, ``(N, T, ...)``, under the name of the input node."""

    values: Mapping[str, Tensor]
    samples: int


@dataclass(frozen=True)
class Step:
    """The result of one time step: its ``logits (N, C)``, not their running sum, and the ``state`` after it."""

    logits: Tensor
    state: State


class SpikingNetwork(nn.Module):
    """A converted network; ``network(images, time_steps)`` returns the logits of every time step.

    Attributes:
        graph: the operations, in threshold units. The module's buffers (see ``tensors``) hold the weights; the graph shares
            their memory until the network is moved.
        neurons: the neuron model of all layers.
        active_steps: the number of time steps in which the image and all biases act; None for all.
        image_limit: the largest absolute value of a normalised image for which exactness is proven; None without fixed-point
            weights.
        time_steps_limit: the most time steps for which exactness is proven; None without fixed-point weights.
        facts: facts of the conversion, as JSON (source of the thresholds, time steps, binary places, report).
    """

    def __init__(
        self,
        graph: Graph,
        neurons: NeuronModel,
        *,
        image_limit: float | None = None,
        time_steps_limit: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not graph.of_kind("neurons"):
            raise InputError("the graph has no layer of neurons, so nothing in it would spike.")
        self.neurons = neurons
        self.active_steps = neurons.active_steps
        self.image_limit, self.time_steps_limit = image_limit, time_steps_limit
        self.facts = dict(facts or {})
        for node in graph.nodes:
            for key, value in node.tensors.items():
                layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format  # as the values are
                kind = _type(node, key, value)
                kept = torch.empty_like(value, dtype=kind, memory_format=layout, requires_grad=False)
                self.register_buffer(_buffer(node.name, key), kept.copy_(value.detach()))
        shared = {node.name: self.get_buffer(_buffer(node.name, "weight")) for node in graph.nodes if "weight" in node.tensors}
        self.graph = graph.map({name: graph.by_name[name].with_tensors(weight=weight) for name, weight in shared.items()})
        self._plan = StepPlan.of(graph)
        self._forget()

    def _forget(self) -> None:
        """Discard what was prepared for the previous weights or device."""
        self._tensors: dict[str, dict[str, Tensor]] | None = None
        self._products: Products | None = None
        self._accelerated_for = 0
        self.tried_for: set[int] = set()  # batch sizes for which the arithmetic is known to be exact on this device

    @property
    def exact(self) -> bool:
        """Whether the weights are in fixed point, so that the network is computed exactly."""
        return self.image_limit is not None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.buffers()).device

    def layers(self) -> dict[str, Node]:
        """The layers of neurons by node name, in forward order."""
        return {node.name: node for node in self.graph.of_kind("neurons")}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of every node, on the network's device."""
        if self._tensors is None:
            self._tensors = {
                node.name: {key: getattr(self, _buffer(node.name, key)) for key in node.tensors} for node in self.graph.nodes
            }
        return self._tensors

    def accelerate(self, samples: int) -> list[str]:
        """Compute layers by integer products where these are exact and, for batches of ``samples``, faster than float32.

        Has an effect only with fixed-point weights on a CPU. Each layer is compared with float arithmetic, which takes some
        milliseconds.

        Returns:
            the names of the layers computed by integer products.
        """
        if not self.exact or self.device.type != "cpu":
            return []
        if self._products is None or self._accelerated_for != samples:
            self._products = Products.of(self.graph, self.neurons, self.tensors(), samples, exact=True, integers=True)
            self._accelerated_for = samples
        return list(self._products.whole)

    def products(self, samples: int) -> Products:
        """The prepared products of the weighted layers; made at the first call, for batches of ``samples``."""
        if self._products is None:
            cpu = self.device.type == "cpu"
            self._products = (
                Products.of(self.graph, self.neurons, self.tensors(), samples, exact=self.exact, integers=False)
                if cpu
                else Products()
            )
            self._accelerated_for = 0
        return self._products

    def pace(self, images: int, time_steps: int) -> Pace:
        """How many of ``images`` and ``time_steps`` are computed at a time by ``run``."""
        return pace(self.graph, self.device.type, images, time_steps)

    def forward(self, images: Tensor, time_steps: int) -> Tensor:
        """The logits ``(N, T, C)`` of every time step, on the images' device, for normalised ``images (N, ...)`` or frames
        ``(N, T, ...)``."""
        self.check(images, time_steps)
        logits = images.new_empty((len(images), time_steps, self.graph.output.channels), dtype=torch.float32)
        for rows, steps, found in self.run(images, time_steps):
            logits[rows, steps.start - 1 : steps.stop - 1] = found.transpose(0, 1)
        return logits

    def run(self, images: Tensor, time_steps: int, look: Look | None = None) -> Iterator[tuple[slice, range, Tensor]]:
        """Run all images for all time steps, in pieces that suit the device.

        Args:
            images: normalised images ``(N, ...)`` or frames ``(N, T, ...)``, already checked.
            time_steps: T.
            look: called with the spikes of every layer, ``(k * n, ...)``, one time step after the other.

        Yields:
            the n images, the k time steps, and their logits ``(k, n, C)``.
        """
        at_a_time = self.pace(len(images), time_steps)
        for start in range(0, len(images), at_a_time.images):
            rows = slice(start, min(start + at_a_time.images, len(images)))
            input_current, state = self.input_current(images[rows]), None
            for steps in chunks(time_steps, at_a_time.steps, self.active_steps):
                found = self.steps(input_current, state, steps, look)
                state = found.state
                yield rows, steps, found.logits.unflatten(0, (len(steps), input_current.samples))

    def check(self, images: Tensor, time_steps: int) -> None:
        """Raise ``InputError`` if T < 1, if images or frames have the wrong shape or exceed the limits of proven exactness, or
        if there are fewer frames than steps in which the input acts, or others than 0 beyond these."""
        check_time_steps(time_steps, self.time_steps_limit)
        check_images(images, self.graph.input.shape, self.image_limit)
        if self.by_time_step(images):
            check_frames(images, time_steps, self.input_steps(time_steps), self.neurons)

    def by_time_step(self, images: Tensor) -> bool:
        """Whether ``images`` are frames ``(N, T, ...)``, one for each time step, rather than images ``(N, ...)``."""
        return images.ndim == len(self.graph.input.shape) + 2

    def input_steps(self, time_steps: int) -> int:
        """The number of the first T = ``time_steps`` steps in which the input acts."""
        return time_steps if self.active_steps is None else min(time_steps, self.active_steps)

    def mean_frame(self, images: Tensor, time_steps: int, lengths: Tensor | None = None) -> Tensor:
        """The image ``(N, ...)`` whose ANN output the network approximates: the mean of the frames ``(N, T, ...)``, of samples
        that end after ``lengths (N,)`` steps; an image itself."""
        if not self.by_time_step(images):
            return images
        return mean_frame(images.float(), self.input_steps(time_steps), lengths, self.active_steps is not None)

    def input_current(self, images: Tensor) -> InputCurrent:
        """What a simulation of normalised ``images (N, ...)`` or frames ``(N, T, ...)`` takes in."""
        if self.by_time_step(images):
            return InputCurrent({self.graph.input.name: images.float()}, len(images))
        return InputCurrent(self.before_neurons(images, True), len(images))

    def before_neurons(self, images: Tensor, acting: bool | Tensor) -> dict[str, Tensor]:
        """The values before the first neurons that later nodes read, by node, for one input ``images (N, ...)``, which acts, as
        the biases do, on all samples or on those where ``acting (N,)``."""
        tensors, values = self.tensors(), dict[str, Tensor]()
        images = images.float()
        if images.ndim > 2:  # channels last
            images = images.movedim(1, -1).contiguous().movedim(-1, 1)
        biased = acting if isinstance(acting, bool) else False
        for node in self._plan.before:
            inputs, own = [values[name] for name in node.inputs], tensors[node.name]
            value = images if node.kind == "input" else evaluate(node, inputs, own, biased=biased)
            if not isinstance(acting, bool) and "bias" in own:
                value = value + gated(per_channel(own["bias"], value).expand_as(value), acting)
            values[node.name] = value
        return {name: values[name] for name in self._plan.needed}

    def changes(self, input_current: InputCurrent) -> bool:
        """Whether the input changes with the time step."""
        given = input_current.values.get(self.graph.input.name)
        return given is not None and self.by_time_step(given)

    def _frames(self, input_current: InputCurrent, time_steps: range | Tensor) -> Tensor | None:
        """The frames of these time steps (see ``at_steps``); None if the input is an image."""
        return at_steps(input_current.values[self.graph.input.name], time_steps) if self.changes(input_current) else None

    @torch.no_grad()
    def step(self, input_current: InputCurrent, state: State | None, time_step: int | Tensor, look: Look | None = None) -> Step:
        """Run one time step.

        Args:
            input_current: the input current of the N samples.
            state: the state after the previous time step, None before the first; its tensors are overwritten.
            time_step: the number of the time step, from 1; ``(N,)`` if samples are at different time steps.
            look: called with the spikes of every layer.
        """
        frames = self._frames(input_current, range(time_step, time_step + 1) if isinstance(time_step, int) else time_step)
        return self._steps(input_current, frames, state, self._acting(time_step), 1, look)

    @torch.no_grad()
    def steps(self, input_current: InputCurrent, state: State | None, time_steps: range, look: Look | None = None) -> Step:
        """Run several time steps together, layer by layer; equal to as many calls of ``step``.

        Args:
            input_current: the input current of the N samples.
            state: the state after the previous time step, None before the first; its tensors are overwritten.
            time_steps: k consecutive time steps; the image and the biases must act in all or in none of them.
            look: called with the spikes of every layer, ``(k * N, ...)``, one time step after the other.

        Returns:
            the logits ``(k * N, C)``, one time step after the other, and the state after the last.
        """
        acting = self._acting(time_steps[0])
        if acting != self._acting(time_steps[-1]):
            raise ValueError(f"the image acts up to step {self.active_steps}, in some but not all of {time_steps}.")
        frames = self._frames(input_current, time_steps)
        return self._steps(input_current, frames, state, acting, len(time_steps), look)

    def _steps(
        self,
        input_current: InputCurrent,
        frames: Tensor | None,
        state: State | None,
        acting: bool | Tensor,
        steps: int,
        look: Look | None,
    ) -> Step:
        products = self.products(max(1, steps * input_current.samples))
        constant = input_current.values if frames is None else {}
        now = StepValues(self.graph, self.neurons, self._plan, self.tensors(), products, constant, acting, steps)
        if frames is not None:
            now.values |= self.before_neurons(gated(frames, acting), acting)
        after: State = {}
        for node in self._plan.order:
            before = state[node.name] if state is not None and node.kind in ("neurons", "max_pool") else None
            if node.kind == "neurons":
                now.values[node.name], after[node.name] = now.fired(node, before)
            elif node.kind == "max_pool":
                now.values[node.name], after[node.name] = now.pooled(node, before)
            else:
                now.values[node.name] = now.value(node)
            if look is not None and node.kind in ("neurons", "max_pool"):
                look(node, now.values[node.name])
            for name in self._plan.last.get(node.name, ()):
                now.let_go(name)
        return Step(now.values[self.graph.output.name].float(), after)

    def initial_state(self, like: State) -> dict[str, LayerState]:
        """The initial value of every state tensor: one number, or one per channel, to be broadcast."""
        found: dict[str, LayerState] = {}
        for name, layer in like.items():
            if self.graph.by_name[name].kind == "max_pool":
                found[name] = tuple(tensor.new_zeros(()) for tensor in layer)
            else:
                start = per_channel(self.tensors()[name]["initial"], layer[0])
                found[name] = self.neurons.initial(start, start)
        return found

    def _acting(self, time_step: int | Tensor) -> bool | Tensor:
        """Whether image and biases act, for all samples or, as ``(N,)``, for each."""
        if self.active_steps is None:
            return True
        if isinstance(time_step, int):
            return time_step <= self.active_steps
        acting = time_step <= self.active_steps
        return bool(acting[0]) if bool((acting == acting[0]).all()) else acting

    def _apply(self, fn: Any, recurse: bool = True) -> "SpikingNetwork":
        self._forget()
        super()._apply(fn, recurse)
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """See ``nn.Module``."""
        self._forget()
        return super().load_state_dict(*args, **kwargs)


def _type(node: Node, key: str, value: Tensor) -> torch.dtype:
    """The type in which a node's tensor is kept: float64 where its sums need it; the threshold is for information only."""
    if not value.is_floating_point():
        return value.dtype
    return torch.float64 if node.wide and key != "threshold" else torch.float32


def _buffer(node: str, key: str) -> str:
    return f"{node}:{key}".replace(".", "/")
