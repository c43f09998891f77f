"""What a conversion scheme says: the activation to train with, the neurons it becomes, and where their thresholds come from.

A scheme is a frozen dataclass whose fields are its own numbers (L of QCFS, the bits of QFFS). One of your own is one file:
write such a class and name it, as ``package.module:Class``, in a ``Setting``.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol, Self

from dynconf_core.networks.architecture import Activation
from dynconf_core.registry import Registry
from dynconf_core.schemes.field import Field


class ConversionScheme(Protocol):
    """How a network is trained and converted, its numbers included.

    Attributes:
        title: as a table shows it.
        neurons: the model of the SNN's neurons, as ``dynconf_core.neurons.model.NEURONS`` takes it.
        fields: the scheme's own fields that ``--set`` may override, by name; attributes of the scheme.
        starts_from_a_threshold: whether the activation takes the recipe's ``initial_threshold``.
        images: calibration images that the conversion looks at; 1 where thresholds are learned, and the image's shape and
            range are all that matters.
    """

    title: ClassVar[str]
    neurons: ClassVar[str]
    fields: ClassVar[Mapping[str, Field]]
    starts_from_a_threshold: ClassVar[bool]
    images: ClassVar[int]

    @classmethod
    def preset(cls, profile: str, family: str) -> tuple[Self, int]:
        """The scheme's numbers, and T, in a profile ("smoke", "quick", "paper") on a family of data sets ("cifar10", ...)."""
        ...

    def activation(self, initial_threshold: float) -> Activation:
        """The maker of one layer's activation."""
        ...

    def network(self) -> dict[str, Any]:
        """Those of the scheme's numbers that shape the network as it is trained: keyword arguments of the class."""
        ...

    def conversion(self, time_steps: int) -> dict[str, Any]:
        """How the trained network is converted for T = ``time_steps``: fields of ``ConversionOptions`` by name, of plain values
        (they stand in the key of the stage); T, fixed point and the range of the images are the plan's."""
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
