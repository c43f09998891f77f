"""Building a network from its description: the plain values recorded in a checkpoint's provenance and a stage's key."""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from torch import nn

from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import COLOURS, build
from dynconf_core.schemes.scheme import SCHEMES

SHARED = ("architecture", "stem", "classes", "resolution", "width", "channels", "method", "initial_threshold")
"""Entries common to all descriptions; further ones are parameters of the scheme."""


def described(description: Mapping[str, Any], seed: int) -> nn.Module:
    """Build the untrained network of a description.

    Args:
        description: ``architecture``, ``stem``, ``classes``, ``resolution``, ``width``, ``method`` (the conversion scheme), the
            scheme's own parameters (``levels`` for QCFS, ``bits`` for QFFS), ``channels`` of images that have not three, and,
            for training, ``initial_threshold``.
        seed: seed of the initial weights.

    Raises:
        InputError: for an unknown architecture, stem or scheme, a parameter that the scheme does not have, or a resolution that
            is too small.
    """
    scheme = SCHEMES.get(description["method"])
    own = {name: value for name, value in description.items() if name not in SHARED}
    unknown = [name for name in own if name not in scheme.fields]
    if unknown:
        raise InputError(
            f"{unknown[0]}={own[unknown[0]]} is not a field of the conversion scheme {description['method']!r}: "
            f"it has {', '.join(scheme.fields) or 'none'}."
        )
    taken = signature(scheme).parameters.values()
    missing = [one.name for one in taken if one.default is Parameter.empty and one.name not in own]
    if missing:
        raise InputError(f"method={description['method']!r} needs {', '.join(missing)}: give it in the description.")
    return build(
        description["architecture"],
        description["stem"],
        classes=description["classes"],
        resolution=description["resolution"],
        width=description["width"],
        channels=description.get("channels", COLOURS),
        activation=scheme(**own).activation(description.get("initial_threshold", 8.0)),
        seed=seed,
    )
