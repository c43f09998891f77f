"""The interface of a spiking neuron model: its dynamics, and bounds on what its neurons can send.

All values are in units of the firing threshold: a neuron fires at 1, and a spike lowers its membrane potential by 1 (soft
reset). A model is a small frozen dataclass whose fields are its parameters. A class from outside is registered
(``NEURONS.register``), named as ``package.module:Class``, or passed as an instance.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.registry import Registry, no_subclass_of

State = tuple[Tensor, ...]
"""The state of a layer: the membrane potential first, then anything else the model keeps; every tensor ``(N, ...)``, batch
first."""


@dataclasses.dataclass(frozen=True)
class NeuronModel(ABC):
    """One kind of neuron; all neurons of a network share one model.

    Class attributes:
        name: what the model is called in files and messages.
        exact: whether every number that it adds, subtracts or stores, apart from the membrane potential, is whole. With
            fixed-point weights, float32 then represents its membrane potentials exactly. A leaky model is not exact.
        free_potential: whether V(0) may be chosen, by the user or by the correction. It may not if the net spike count must
            settle at a quantised activation, because half a threshold is what makes it round half up.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    free_potential: ClassVar[bool] = True

    # The dynamics

    def initial(self, like: Tensor, potential: Tensor | float) -> State:
        """The state before the first time step: V(0) = ``potential`` (a number, or a tensor that broadcasts) for each unit
        of ``like (N, ...)``, in newly allocated memory."""
        return (torch.empty_like(like).copy_(torch.as_tensor(potential)),)

    @abstractmethod
    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        """The spikes and the new state, given a state whose membrane potential already includes the input current of this time
        step.

        Args:
            state: its tensors are consumed; their memory may be reused for the new state.
            out: ``(N, ...)``, memory that may be used for the spikes.

        Returns:
            spikes, whole numbers of the shape and type of ``out``, and the state after the reset.
        """

    def step(self, current: Tensor, state: State, reuse: bool = False) -> tuple[Tensor, State]:
        """One time step: the input current I(t) ``(N, ...)`` is added to the membrane potential, then the neurons fire.

        Args:
            current: the input current in units of the threshold.
            state: the state after the previous time step.
            reuse: whether the memory of ``current`` may be reused for the spikes, and that of ``state`` for the new state.

        Returns:
            spikes, of the shape and type of ``current``, and the new state.
        """
        if reuse:
            return self.fire((state[0].add_(current), *state[1:]), current)
        potential = state[0] + current
        return self.fire((potential, *(tensor.clone() for tensor in state[1:])), torch.empty_like(potential))

    def slope(self, state: State) -> Tensor:
        """The surrogate derivative of the spikes with respect to the membrane potential ``(N, ...)``, for fine-tuning.

        Only for models whose reset subtracts what they send, and that keep no further state that gradients should pass.

        Args:
            state: as for ``fire``; not changed.

        Raises:
            InputError: if the model has none.
        """
        raise InputError(
            f"neuron model {self.name!r} has no surrogate derivative, so networks of it cannot be fine-tuned: give its class a "
            "method slope(state), or set fine_tune_epochs=0."
        )

    @property
    def state_tensors(self) -> int:
        """How many numbers are stored per neuron."""
        return len(self.initial(torch.zeros(1), 0.0))

    # What it can send

    @property
    @abstractmethod
    def sends(self) -> tuple[int, int]:
        """The minimum (at most 0) and the maximum number of spikes that one neuron sends in one time step."""

    def sends_in_all(self, time_steps: int) -> tuple[int, int]:
        """Bounds on the sum of a neuron's spikes over any number of time steps up to ``time_steps``."""
        low, high = self.sends
        return low * time_steps, high * time_steps

    def excess(self, time_steps: int) -> int:
        """The number of thresholds by which |V| may exceed |V(0)| + 2 + the largest |sum of input currents| over any interval
        within ``time_steps`` time steps.

        Since V = V(0) + sum of I - sum of spikes, the largest |sum of spikes| is always sufficient.
        """
        low, high = self.sends_in_all(time_steps)
        return max(-low, high)

    # Its role in conversion

    @property
    def levels(self) -> int | None:
        """n of the quantised activation at which the net spike count settles; None if a firing rate approximates the
        activation."""
        return None

    @property
    def active_steps(self) -> int | None:
        """The number of initial time steps in which the image and all biases are applied; None: all of them. A neuron's mean
        output is its net spike count divided by this number, and the correction then evaluates it only at step T."""
        return None

    @classmethod
    def of(cls, levels: int | None) -> Self:
        """The model that replaces an activation with ``levels`` levels above 0 (None: not quantised, or not known).

        Raises:
            InputError: if the model needs the number of levels, or does not support it.
        """
        try:
            return cls()
        except TypeError as error:
            raise InputError(f"neuron model {cls.name!r} cannot be made without arguments ({error}).") from None

    # In files and messages

    def to_json(self) -> dict[str, Any]:
        """``{"model": name, ...its fields}``, as stored in the file of a converted network.

        Raises:
            InputError: if another class is registered under this name and would be loaded in its place.
        """
        if self.name in NEURONS.names() and NEURONS.get(self.name) is not type(self):
            raise InputError(f"neuron model {self.name!r} exists already: give {type(self).__qualname__} another name.")
        return {"model": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The model written by ``to_json``.

        Raises:
            InputError: for the values of another model or of another version of this one.
        """
        fields = {name: value for name, value in values.items() if name != "model"}
        if values.get("model") != cls.name or fields.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise InputError(f"neurons={dict(values)} are not of the neuron model {cls.name!r} ({cls.__qualname__}).")
        return cls(**fields)

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        return f"{self.name} with {', '.join(f'{name} = {value}' for name, value in values.items())}" if values else self.name


def triangle(distance: Tensor) -> Tensor:
    """max(0, 1 - |x|): the surrogate derivative of a unit step at a distance of x thresholds from it (Esser et al., PNAS 2016,
    10.1073/pnas.1604850113)."""
    return (1 - distance.abs()).clamp_min_(0)


NEURONS: Registry[type[NeuronModel]] = Registry(
    "neuron model",
    "dynconf.neurons",
    {
        "integrate-and-fire": "dynconf_core.neurons.integrate_and_fire:IntegrateAndFire",
        "signed": "dynconf_core.neurons.signed:Signed",
        "reset-to-zero": "dynconf_core.neurons.reset_to_zero:ResetToZero",
    },
    no_subclass_of(NeuronModel),
)


def loaded(values: Mapping[str, Any], given: type[NeuronModel] | None = None) -> NeuronModel:
    """The model stored in a file: from the registry, or of the class ``given``; a file by itself never imports code.

    Raises:
        InputError: for a model that is neither, or values that do not fit.
    """
    name = str(values.get("model"))
    if given is not None:
        return given.from_json(values)
    if name not in NEURONS.names():
        raise InputError(
            f"the neurons are of the model {name!r}, which is none of {', '.join(NEURONS.names())}: register its class "
            "(NEURONS.register), or name it, load_snn(path, neurons=Class)."
        )
    return NEURONS.get(name).from_json(values)
