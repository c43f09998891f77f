"""Conversion schemes: the activation to train with, the neurons it becomes, and the source of their thresholds.

A scheme is a frozen dataclass whose fields are its parameters (L for QCFS, the bits for QFFS). To use a scheme of your own,
write such a class and name it as ``package.module:Class`` in a ``Setting``.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.registry import Registry
from dynconf_core.schemes.field import Field


class ConversionScheme(Protocol):
    """How a network is trained and converted, with the scheme's parameters.

    Attributes:
        title: its name in tables.
        neurons: the SNN's neuron model, a name in ``dynconf_core.neurons.model.NEURONS``.
        fields: the parameters that ``--set`` may override, by name; each is an attribute of the scheme.
        starts_from_a_threshold: whether the activation uses the recipe's ``initial_threshold``.
        images: the number of calibration images the conversion uses. If the thresholds are learned, only the shape and range of
            an image matter to the SNN, and some more to what is measured of rounding its weights.
    """

    title: ClassVar[str]
    neurons: ClassVar[str]
    fields: ClassVar[Mapping[str, Field]]
    starts_from_a_threshold: ClassVar[bool]
    images: ClassVar[int]

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """The scheme and T for a profile ("smoke", "quick", "paper") and a family of data sets ("cifar10", ...)."""
        ...

    def activation(self, initial_threshold: float) -> Activation:
        """A factory for one layer's activation."""
        ...

    def network(self) -> dict[str, Any]:
        """The parameters that affect the trained network, as keyword arguments of the class."""
        ...

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """Fields of ``ConversionOptions`` for converting the trained network with T = ``time_steps``.

        They are plain values, as they are part of the stage's key. T, fixed point and the images' range come from the plan.
        """
        ...


def _fault(found: object) -> str | None:
    if not isinstance(found, type) or not is_dataclass(found):
        return "is no dataclass: name a frozen dataclass with what dynconf_core.schemes.scheme.ConversionScheme says"
    needed = (*ConversionScheme.__annotations__, "preset", "activation", "network", "conversion")
    missing = [name for name in needed if not hasattr(found, name)]
    if missing:
        return f"lacks {', '.join(missing)}: see dynconf_core.schemes.scheme.ConversionScheme"
    own: Mapping[str, Field] = getattr(found, "fields")  # noqa: B009
    unknown = [name for name in own if name not in {field.name for field in fields(found)}]
    return f"has no attribute {unknown[0]}, which its fields name: make it a field of the dataclass" if unknown else None


SCHEMES: Registry[type[ConversionScheme]] = Registry(
    "conversion scheme",
    "dynconf.schemes",
    {
        "qcfs": "dynconf_core.schemes.qcfs:QCFSScheme",
        "qffs": "dynconf_core.schemes.qffs:QFFSScheme",
        "post-training": "dynconf_core.schemes.post_training:PostTraining",
    },
    _fault,
)
