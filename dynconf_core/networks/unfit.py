"""Why a state dict does not fit a network, in words: what is missing, unexpected or of another shape, and the likely cause."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.parameter import is_lazy

from dynconf_core.networks.state_dicts import beyond, lacking

SHOWN = 5
"""How many names a message lists."""


def faults(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What is wrong, a clause for each kind of fault; empty if ``given`` can be loaded."""
    missing, unexpected, shapes = lacking(given, wanted), beyond(given, wanted), _other_shapes(given, wanted)
    found = [f"it lacks {_keys(missing)}"] if missing else []
    found += [f"it holds {_keys(unexpected)}, which the network does not have"] if unexpected else []
    found += [
        f"{name!r} is of the type {given[name].dtype}, the network needs {value.dtype}"
        for name, value in wanted.items()
        if name in given and given[name].is_complex() and not value.dtype.is_complex
    ][:SHOWN]
    found += [
        f"{name!r} has shape {tuple(given[name].shape)}, the network needs {tuple(wanted[name].shape)}"
        for name in shapes[:SHOWN]
    ]
    return found + ([f"{len(shapes) - SHOWN} more have other shapes too"] if len(shapes) > SHOWN else [])


def likely_cause(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A question that names what the state dict was probably made for."""
    shapes = _other_shapes(given, wanted)
    if lacking(given, wanted) or beyond(given, wanted):
        if not given.keys() & wanted.keys():
            mine, yours = next(iter(given), "nothing"), next(iter(wanted), "nothing")
            return f"Was it made for another architecture? No name is the same ({mine!r} there, {yours!r} here)."
        return "Was it made for another architecture or depth, or for another method?"
    firsts = {
        (given[name].shape[:1], wanted[name].shape[:1]) for name in shapes if given[name].shape[1:] == wanted[name].shape[1:]
    }
    last = list(wanted)[-len(shapes) :]
    if len(firsts) == 1 and shapes == last:
        there, here = firsts.pop()
        if there and here:
            return f"Was it made for another number of classes, {there[0]} instead of {here[0]}?"
    if len(shapes) == 1 and given[shapes[0]].ndim == wanted[shapes[0]].ndim > 1:
        there, here = given[shapes[0]].shape, wanted[shapes[0]].shape
        if there[0] == here[0] and there[2:] == here[2:]:
            return f"Was it made for another number of channels or size of the images, {there[1]} instead of {here[1]}?"
    return "Was it made for another width, or for another method?"


def _other_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    known = ((name, value) for name, value in wanted.items() if name in given and not is_lazy(value))
    return [name for name, value in known if given[name].shape != value.shape]


def _keys(names: list[str]) -> str:
    if len(names) == 1:
        return repr(names[0])
    return f"{len(names)} keys ({', '.join(map(repr, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''})"
