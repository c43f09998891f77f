"""A network whose steps are those of one process, computed by several: each has a share of every batch.

Torch's ``DistributedDataParallel`` averages the gradients, those of learned thresholds and steps included. Batch normalisation
takes the statistics of the whole batch, so that how many processes there are changes nothing but the order of sums.
"""

import copy
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import batch_norm, cross_entropy
from torch.nn.parallel import DistributedDataParallel

from dynconf_core.errors import InputError
from dynconf_core.training.processes import Processes

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def parallel(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The network to call in training instead of ``network``, in training mode, with the same tensors.

    Its parameters become those of process 0. For a process alone it is ``network`` itself.
    """
    if processes.count == 1:
        return network
    tensors = {id(one): one for one in (*network.parameters(), *network.buffers())}
    shared = copy.deepcopy(network, tensors)
    # Torch's own synchronised normalisation is for GPUs alone.
    shared = _synchronised(shared) if device.type == "cpu" else nn.SyncBatchNorm.convert_sync_batchnorm(shared)
    # Buffers are the same in all processes anyway. The option has a new name since torch 2.13.
    known = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False, "device_ids": None if device.type == "cpu" else [device]}
    return DistributedDataParallel(shared.train(), **options)


def settle(network: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
    """Run a step of which nothing remains but how gradients are grouped.

    After its first step, ``DistributedDataParallel`` groups them in the order in which they came, and sums of more than two
    numbers depend on the groups. So a run that is resumed has to have its first step behind it, as one that is not.

    Args:
        network: as given to ``parallel``.
        forward: as made from it.
        images, labels: this process's share of a batch.

    Raises:
        InputError: if a parameter has no part in the logits.
    """
    before = [buffer.clone() for buffer in network.buffers()]
    cross_entropy(forward(images), labels).backward()
    idle = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    if idle:
        raise InputError(f"parameter {idle[0]!r} has no part in the network's logits, as several processes need: remove it.")
    for one in network.parameters():
        one.grad = None
    with torch.no_grad():
        for buffer, old in zip(network.buffers(), before, strict=True):
            buffer.copy_(old)


def _synchronised(module: nn.Module) -> nn.Module:
    """``module`` with each batch normalisation in it replaced."""
    if isinstance(module, NORMS):
        return SynchronisedNorm(module)
    for name, child in module.named_children():
        setattr(module, name, _synchronised(child))
    return module


class SynchronisedNorm(nn.Module):
    """A batch normalisation over the shares, of one size, of all processes; it keeps the statistics of ``norm`` up to date."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (n, C, ...)``."""
        norm = self.norm
        if not norm.training:
            plain: Tensor = norm(x)
            return plain
        result, mean, variance = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            rate = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            count = x.numel() // x.shape[1] * distributed.get_world_size()
            norm.running_mean.mul_(1 - rate).add_(mean, alpha=rate)
            norm.running_var.mul_(1 - rate).add_(variance, alpha=rate * count / (count - 1))
        out: Tensor = result
        return out


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, with the statistics of all processes."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = _widened(x)
        variance, mean = torch.var_mean(exact, _all_but_channels(x), correction=0)
        own = torch.stack([mean, variance])
        every = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(every, own)
        means, variances = torch.stack(every, 1)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(x, mean, (variance + eps).rsqrt(), *(() if weight is None else (weight,)))
        ctx.mark_non_differentiable(mean, variance)
        return batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, *others: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, mean, scale, *weights = ctx.saved_tensors  # type: ignore[attr-defined]
        across, shape = _all_but_channels(x), (1, -1, *[1] * (x.ndim - 2))
        wide, centred = _widened(gradient), _widened(x) - mean.view(shape)
        own = torch.stack([wide.sum(across), (wide * centred).sum(across)])
        whole = own.clone()
        distributed.all_reduce(whole)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        factor = scale * weights[0] if weights else scale
        level = (whole[0] / count).view(shape)
        slope = (whole[1] * scale.square() / count).view(shape)
        towards_x = (wide - level - centred * slope) * factor.view(shape)
        return towards_x.to(x.dtype), own[1] * scale if weights else None, own[0] if weights else None, None


def _widened(x: Tensor) -> Tensor:
    """``x`` in float32 at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
