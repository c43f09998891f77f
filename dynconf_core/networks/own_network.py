"""A network of one's own, made by a function that is named as ``package.module:function``."""

import inspect

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.registry import loaded
from dynconf_core.wording import an, counted

KIND = "network"


def own_network(name: str) -> nn.Module:
    """The network that the function ``name`` makes, in evaluation mode.

    Args:
        name: ``package.module:function`` (the current folder is searched too): a function or class that takes no arguments, or
            a network itself.

    Raises:
        InputError: if it cannot be imported or called, or makes no network.
    """
    found = loaded(KIND, name)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise InputError(f"network {name!r} is {an(found)}: name a function that returns the network.")
        _check_call(name, found)
        try:
            found = found()
        except InputError:
            raise
        except Exception as error:  # somebody else's code raises nearly anything
            raise InputError(f"network {name!r} cannot be made: {type(error).__name__}: {error}.") from error
    if not isinstance(found, nn.Module):
        raise InputError(f"network {name!r} returns {an(found)}: it must return an nn.Module.")
    return found.eval()


def check_takes(network: nn.Module, sample: Tensor, name: str) -> int:
    """The number of classes C of the logits that ``network`` gives for one normalised ``sample (1, ...)``.

    Raises:
        InputError: if it does not take such a sample, or gives no logits ``(1, C)``.
    """
    shape = tuple(sample.shape[1:])
    try:
        with torch.no_grad():
            logits = network(sample)
    except InputError:
        raise
    except Exception as error:  # of a layer that does not fit
        raise InputError(f"{name} does not take images of the shape {shape}{_why(network, sample)}: {_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{name} gives {given} for one image: logits (1, C) are needed.")
    return int(logits.shape[1])


def _check_call(name: str, function: object) -> None:
    try:
        inspect.signature(function).bind()  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(
            f"network {name!r} cannot be called without arguments ({error}): name a function that takes none, such as "
            "`def make(): return Net(10)`."
        ) from None
    except ValueError:  # of a built-in function
        pass


def _why(network: nn.Module, sample: Tensor) -> str:
    """The first layer that states its input, where that is another."""
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            if sample.ndim > 2 and sample.shape[1] != layer.in_channels:
                repeat = "; --channels 3 repeats grey ones" if (sample.shape[1], layer.in_channels) == (1, 3) else ""
                takes = counted(layer.in_channels, "channel")
                return f" (its first layer, {name}, takes {takes}, the images have {sample.shape[1]}{repeat})"
            return ""
        if isinstance(layer, nn.Linear):
            if sample.ndim == 2 and sample.shape[1] != layer.in_features:
                takes = counted(layer.in_features, "feature")
                return f" (its first layer, {name}, takes {takes}, the vectors have {sample.shape[1]})"
            return ""
    return ""


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"
