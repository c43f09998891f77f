"""A copy of a network, in float64 on the CPU, of anything that an ``nn.Module`` may hold.

``copy.deepcopy`` refuses what many networks keep: weights computed by weight norm, spectral norm or pruning, activations with
gradients, locks, open files, generators. Here modules and containers are copied one by one; weights that are computed from
others become plain weights, as they are at present; what cannot be copied at all is shared, never changed.
"""

import copy
from collections import OrderedDict, deque
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dynconf_core.errors import InputError
from dynconf_core.graph.writing import first_line

COMPUTING = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""Hooks that compute a weight from other tensors before every call of their module."""
CONTAINERS = (list, set, deque, dict, OrderedDict)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, if torch.compile or DataParallel wraps it."""
    inner = module.module if isinstance(module, WRAPPERS) else getattr(module, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else module


@torch.no_grad()
def in_float64(network: nn.Module) -> nn.Module:
    """A copy on the CPU whose parameters and buffers are float64; nothing that it computes changes ``network``.

    Raises:
        InputError: if a weight that is computed from other tensors cannot be computed.
    """
    copied: nn.Module = _Copying(network).copied(network)
    return copied


class _Copying:
    """One copy of a network; what is met twice is copied once."""

    def __init__(self, network: nn.Module) -> None:
        self.copies: dict[int, Any] = {}
        self.originals: list[Any] = []  # kept, so that no address is used again
        # First, so that an object's own way of copying finds the modules and tensors that it holds.
        modules = [unwrapped(module) for module in network.modules()]
        self.names = {id(module): name for name, module in network.named_modules()}
        for module in modules:
            self._keep(module, object.__new__(parametrize.type_before_parametrizations(module)))
        for tensor in (*network.parameters(), *network.buffers()):
            self.copied(tensor)
        for module in modules:
            if not self.copies[id(module)].__dict__:
                self._fill(module)

    def _module(self, module: nn.Module) -> nn.Module:
        """A copy of a module that is no part of the network, but an attribute of one."""
        inner = unwrapped(module)
        if id(inner) not in self.copies:
            self._keep(inner, object.__new__(parametrize.type_before_parametrizations(inner)))
            self._fill(inner)
        known: nn.Module = self.copies[id(inner)]
        return known

    def _fill(self, module: nn.Module) -> None:
        try:
            present = _present_weights(module)
        except Exception as error:  # what computes the weights is the user's own, or torch's on tensors of other types
            name = self.names.get(id(module)) or type(module).__name__
            raise InputError(
                f"a weight of {name} is computed from other tensors, which fails ({first_line(error)}): make it a plain weight "
                "(remove_weight_norm, remove_spectral_norm, prune.remove or parametrize.remove_parametrizations)."
            ) from error
        state = self.copies[id(module)].__dict__
        for name, value in module.__dict__.items():
            if name not in present and name != "_compiled_call_impl":
                state[name] = self.copied(value)
        state["_parameters"].update({name: self.copied(value) for name, value in present.items()})
        if parametrize.is_parametrized(module):
            del state["_modules"]["parametrizations"]
        hooks = state["_forward_pre_hooks"]
        for key in [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, COMPUTING)]:
            del hooks[key]

    def copied(self, value: Any) -> Any:
        """A copy of any value; itself, where it cannot be copied."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Tensor):
            return self._keep(value, _tensor(value))
        if type(value) in CONTAINERS:
            return self._container(value)
        if isinstance(value, tuple):
            parts = [self.copied(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.copied(value.__self__))
        if type(value) is partial:
            return partial(self.copied(value.func), *self.copied(value.args), **self.copied(value.keywords))
        if isinstance(value, torch.Generator):
            return self._keep(value, value.clone_state())
        return self._object(value)

    def _container(self, value: Any) -> Any:
        copied = self._keep(value, deque(maxlen=value.maxlen) if isinstance(value, deque) else type(value)())
        if isinstance(value, dict):
            copied.update({key: self.copied(one) for key, one in value.items()})
        elif isinstance(value, set):
            copied.update(value)
        else:
            copied.extend(self.copied(one) for one in value)
        return copied

    def _object(self, value: Any) -> Any:
        """An object of any other class: by deepcopy, else attribute by attribute, else the object itself."""
        tried = dict(self.copies)
        try:
            copied = copy.deepcopy(value, tried)
        except Exception:  # classes define for themselves how they are copied, and fail as they like
            ordinary: Any = object.__reduce_ex__
            if type(value).__reduce_ex__ is not ordinary or not hasattr(value, "__dict__") or isinstance(value, type):
                return value
            try:
                copied = self._keep(value, object.__new__(type(value)))
            except TypeError:
                return value
            copied.__dict__.update({name: self.copied(one) for name, one in value.__dict__.items()})
            return copied
        self.originals.append(tried.pop(id(tried), None))  # deepcopy's own list of what it copied
        self.copies = tried
        return copied if copied is value else self._keep(value, copied)

    def _keep(self, original: Any, copied: Any) -> Any:
        self.copies[id(original)] = copied
        self.originals.append(original)
        return copied


def _tensor(value: Tensor) -> Tensor:
    dtype = torch.float64 if value.is_floating_point() else value.dtype
    copied = value.detach().to("cpu", dtype, copy=True)
    return nn.Parameter(copied, requires_grad=False) if isinstance(value, nn.Parameter) else copied


def _present_weights(module: nn.Module) -> dict[str, Any]:
    """Weights that are computed from other tensors, as they are now, in the network's own arithmetic: these are the weights of
    the plain network."""
    if parametrize.is_parametrized(module):
        parametrized: Any = module.parametrizations
        return {name: nn.Parameter(getattr(module, name), requires_grad=False) for name in parametrized}
    hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, COMPUTING)]
    if not hooks:
        return {}
    apart = object.__new__(type(module))
    apart.__dict__.update(module.__dict__)
    for hook in hooks:
        hook(apart, ())
    names = [hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name for hook in hooks]
    return {name: nn.Parameter(apart.__dict__[name].detach(), requires_grad=False) for name in names}
