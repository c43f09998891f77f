"""The options of a conversion, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from dynconf_core.arguments import flag, number, one_of, whole
from dynconf_core.conversion.fixed_point import WEIGHT_BITS
from dynconf_core.conversion.thresholds import SOURCES, check_source
from dynconf_core.errors import InputError
from dynconf_core.neurons.model import NEURONS, NeuronModel
from dynconf_core.wording import counted, told

AUTO = "auto"
HALF_CHARGED = 0.5
"""V(0) in units of the threshold for which the expected error of the firing rate is 0 (Bu et al., ICLR 2022)."""


@dataclass(frozen=True)
class ConversionOptions:
    """How a network is converted.

    Attributes:
        thresholds: the source of the thresholds: "learned", "max", "percentile" or "error"; see ``conversion.thresholds``.
        time_steps: T, for which thresholds and corrections are found and the fixed-point weights are proven exact.
        neurons: the neuron model of every layer, as an object, a registered name or ``package.module:Class``. "auto" takes the
            model that each activation names (QCFS integrate-and-fire, LSQ signed), or integrate-and-fire.
        levels: n, for a neuron model given by name that has levels, such as "signed".
        correct: whether thresholds, initial membrane potentials and biases are corrected; see ``conversion.correction``.
        initial_potential: V(0) in units of the threshold, for models that allow a choice; not together with ``correct``.
        percentile: for thresholds="percentile", in per cent.
        per_channel: whether thresholds found from data are one per channel, or one per layer.
        fixed_point: whether weights are rounded so that float32 is exact; see ``conversion.fixed_point``.
        weight_bits: bits of the fixed-point weights, sign included.
        image_limit: the largest absolute value of a normalised image; None stands for 1.5 times that of the given images.

    Raises:
        InputError: naming the field, its value and the remedy.
    """

    thresholds: str = "learned"
    time_steps: int = 32
    neurons: NeuronModel | str = AUTO
    levels: int | None = None
    correct: bool = False
    initial_potential: float = HALF_CHARGED
    percentile: float = 99.9
    per_channel: bool = True
    fixed_point: bool = True
    weight_bits: int = WEIGHT_BITS
    image_limit: float | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if self.time_steps < 1:
            raise InputError(f"time_steps={self.time_steps}: an SNN needs at least one.")
        check_source(self.thresholds, self.percentile)
        if not 3 <= self.weight_bits <= 20:
            raise InputError(f"weight_bits={self.weight_bits}: give 3 to 20, such as 8 or 13.")
        if self.image_limit is not None and not 0 < self.image_limit < 2.0**16:
            raise InputError(
                f"image_limit={self.image_limit}: give the largest absolute value of a normalised image, such as 3."
            )
        self._check_neurons()

    def _check_types(self) -> None:
        """Raise ``InputError`` for a value of another type; numbers of other libraries become Python's."""
        one_of("thresholds", self.thresholds, SOURCES)
        wholes = {"time_steps": "give the number of time steps, such as 16", "weight_bits": "give 3 to 20, such as 8 or 13"}
        for name, remedy in wholes.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), remedy))
        if self.levels is not None:
            object.__setattr__(
                self, "levels", whole("levels", self.levels, "give a whole number of levels, such as 15, or None")
            )
        for name in ("correct", "per_channel", "fixed_point"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        for name in ("initial_potential", "percentile", "image_limit"):
            if (given := getattr(self, name)) is not None or name != "image_limit":
                object.__setattr__(self, name, number(name, given))
        if not isinstance(self.neurons, str | NeuronModel):
            raise InputError(f"{told('neurons', self.neurons)}: give a neuron model, its name or package.module:Class.")

    def _check_neurons(self) -> None:
        if self.neurons == AUTO and self.levels is not None:
            raise InputError(
                f"neurons='auto' with levels={self.levels}: each activation has its own levels; name a neuron model "
                "with levels (neurons='signed'), or leave levels out."
            )
        model = self.model()
        if model is not None and self.levels not in (None, model.levels):
            has = "have none" if model.levels is None else f"have {model.levels}"
            raise InputError(f"neurons={str(model)!r} with levels={self.levels}: these neurons {has}; leave levels out.")
        if model is not None and model.levels is not None and model.levels > model.sends[1] * self.time_steps:
            raise InputError(
                f"levels={model.levels}: {model.name} neurons emit at most {counted(model.sends[1], 'spike')} per time step; "
                f"give 1 to {counted(model.sends[1] * self.time_steps, 'level')} with time_steps={self.time_steps}."
            )
        if not 0 <= self.initial_potential < 1:
            raise InputError(
                f"initial_potential={self.initial_potential}: give a number from 0 to below 1, in units of the threshold."
            )
        if self.initial_potential != HALF_CHARGED and self.correct:
            raise InputError(
                f"initial_potential={self.initial_potential} and correct=True: the correction chooses it; leave one out."
            )

    def model(self) -> NeuronModel | None:
        """The neuron model of every layer; None if each activation names its own.

        Raises:
            InputError: for an unknown name, or levels that the model does not have.
        """
        if isinstance(self.neurons, NeuronModel):
            return self.neurons
        return None if self.neurons == AUTO else _called(self.neurons).of(self.levels)

    def changed(self, changes: dict[str, Any]) -> ConversionOptions:
        """A copy with some fields replaced.

        Raises:
            InputError: for an unknown field, or a value that cannot work.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"conversion has no option {name!r}: choose among {', '.join(known)}.")
        return replace(self, **changes)


def _called(name: str) -> type[NeuronModel]:
    if name not in NEURONS.names() and ":" not in name:
        names = ", ".join((AUTO, *NEURONS.names()))
        raise InputError(f"neurons={name!r} is unknown: choose one of {names}, or your own, package.module:Class.")
    return NEURONS.get(name)
