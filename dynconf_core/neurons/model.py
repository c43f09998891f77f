"""What a spiking neuron is to conversion and simulation: its dynamics, and what holds of everything that it can send.

All values are in units of the firing threshold: a neuron fires at 1, and a spike lowers its membrane potential by 1. A model is
a small frozen dataclass; its fields are its parameters. A class from elsewhere is registered (``NEURONS.register``), named as
``package.module:Class``, or handed over as an instance.
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
"""Of a layer: the membrane potential first, then what else the model keeps; every tensor ``(N, ...)``, batch first."""


@dataclasses.dataclass(frozen=True)
class NeuronModel(ABC):
    """One kind of neuron; all neurons of a network are of one model.

    Class attributes:
        name: what the model is called in files and messages.
        exact: whether every number that it adds, subtracts or keeps beside the potential is whole, so that float32 holds
            its membrane potentials exactly where the weights are in fixed point. A leak, for one, is not exact.
        free_potential: whether V(0) may be chosen, by the user or by the correction. Where the net count must settle at a
            quantised activation it may not: half a threshold is what rounds half up.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    free_potential: ClassVar[bool] = True

    # The dynamics

    def initial(self, like: Tensor, potential: Tensor | float) -> State:
        """The state before the first step: V(0) = ``potential`` (a number, or a tensor that broadcasts) for each unit of ``like
        (N, ...)``, in memory of its own."""
        return (torch.empty_like(like).copy_(torch.as_tensor(potential)),)

    @abstractmethod
    def fire(self, state: State, out: Tensor) -> tuple[Tensor, State]:
        """Spikes and the state after the step, of a state whose membrane potential has the step's input current in it already.

        Args:
            state: its tensors are used up: their memory may hold the new state.
            out: ``(N, ...)``, memory for the spikes, which may be used.

        Returns:
            spikes, whole numbers of the shape and type of ``out``, and the state after the reset.
        """

    def step(self, current: Tensor, state: State, reuse: bool = False) -> tuple[Tensor, State]:
        """One time step: the input current I(t) ``(N, ...)`` is added to the membrane potential, then the neurons fire.

        Args:
            current: in thresholds.
            state: after the step before.
            reuse: whether the memory of ``current`` may hold the spikes, and that of ``state`` the new state.

        Returns:
            spikes, of the shape and type of ``current``, and the new state.
        """
        if reuse:
            return self.fire((state[0].add_(current), *state[1:]), current)
        potential = state[0] + current
        return self.fire((potential, *(tensor.clone() for tensor in state[1:])), torch.empty_like(potential))

    @property
    def state_tensors(self) -> int:
        """How many numbers a neuron keeps."""
        return len(self.initial(torch.zeros(1), 0.0))

    # What it can send

    @property
    @abstractmethod
    def sends(self) -> tuple[int, int]:
        """The least (at most 0) and the most that one neuron sends in one step, in spikes."""

    def sends_in_all(self, time_steps: int) -> tuple[int, int]:
        """Bounds of the sum of a neuron's spikes over any number of steps up to ``time_steps``."""
        low, high = self.sends
        return low * time_steps, high * time_steps

    def excess(self, time_steps: int) -> int:
        """By how many thresholds |V| may exceed |V(0)| + 2 + the largest |sum of input currents| from any step to any other of
        ``time_steps`` steps.

        As V = V(0) + sum of I - sum of spikes, the largest |sum of spikes| is always enough.
        """
        low, high = self.sends_in_all(time_steps)
        return max(-low, high)

    # Its part in a conversion

    @property
    def levels(self) -> int | None:
        """n of the quantised activation at which the net spike count settles; None where a rate approximates the activation."""
        return None

    @property
    def active_steps(self) -> int | None:
        """In how many of the first steps the image and all biases act; None: in all. A neuron's mean output is its net count
        over these steps, and the correction looks at no earlier ones than T."""
        return None

    @classmethod
    def of(cls, levels: int | None) -> Self:
        """The model after an activation with ``levels`` levels above 0 (None: not quantised, or not known).

        Raises:
            InputError: where it needs to know them, or cannot have so many.
        """
        try:
            return cls()
        except TypeError as error:
            raise InputError(f"neuron model {cls.name!r} cannot be made without arguments ({error}).") from None

    # In files and messages

    def to_json(self) -> dict[str, Any]:
        """``{"model": name, ...its fields}``, as a converted network's file holds it.

        Raises:
            InputError: where another class has this name in the registry, and would be taken for it.
        """
        if self.name in NEURONS.names() and NEURONS.get(self.name) is not type(self):
            raise InputError(f"neuron model {self.name!r} exists already: give {type(self).__qualname__} another name.")
        return {"model": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The model that ``to_json`` wrote.

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


NEURONS: Registry[type[NeuronModel]] = Registry(
    "neuron model",
    "dynconf.neurons",
    {
        "integrate-and-fire": "dynconf_core.neurons.integrate_and_fire:IntegrateAndFire",
        "signed": "dynconf_core.neurons.signed:Signed",
    },
    no_subclass_of(NeuronModel),
)


def loaded(values: Mapping[str, Any], given: type[NeuronModel] | None = None) -> NeuronModel:
    """The model that a file holds: of the registry, or of the class ``given`` by name; a file alone never imports code.

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
