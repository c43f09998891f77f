"""Only arithmetic that multiplies and adds: what fixed-point weights need to be exact, set for a block and checked first.

Reordering a sum changes no bit of an exact one; TF32 drops bits of the factors, and Winograd and FFT convolutions compute
other sums. So TF32 is switched off, and every weighted layer is tried, in its real shape, against float64. On a GPU
cuDNN is left out, whose algorithm depends on the size of the batch: convolutions are matrix products there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import WEIGHTED, Node
from dynconf_core.graph.operations import evaluate
from dynconf_core.simulation.network import SpikingNetwork

_lock = threading.Lock()
_inside: list[tuple[bool, ...]] = []
"""What the settings were when the first of the blocks that are now open began; they belong to the whole process."""


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Without TF32 and without the search for the fastest algorithm; when the last thread leaves such a block, the settings
    are put back."""
    with _lock:
        _inside.append(_settings())
        _set((False, False, True, False, torch.backends.cudnn.enabled))
    try:
        yield
    finally:
        with _lock:
            before = _inside[0] if len(_inside) == 1 else None
            _inside.pop()
            if before is not None:
                _set(before)


def _settings() -> tuple[bool, ...]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cudnn.enabled)


def _set(values: tuple[bool, ...]) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cudnn.enabled = values


@torch.no_grad()
def check_exactness(network: SpikingNetwork, samples: int) -> None:
    """Try every weighted layer on the network's device, for batches of ``samples``, against float64, where weights are in fixed
    point.

    To be called in a block of ``plain_arithmetic``: for the rest of it, such weights on a GPU are computed without cuDNN.

    Raises:
        InputError: naming the layer whose arithmetic is not exact here, with the plain form as the remedy.
    """
    if not network.exact:
        return
    if network.device.type == "cuda":
        torch.backends.cudnn.enabled = False
    if samples in network.tried_for:
        return
    generator = torch.Generator().manual_seed(0)
    tensors = network.tensors()
    for node in network.graph.of_kind(*WEIGHTED):
        source = network.graph.by_name[node.inputs[0]]
        x = (torch.rand(samples, *source.shape, generator=generator) < 0.2).float().to(network.device)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if not _same(node, x, tensors[node.name]):
            raise InputError(
                f"{node.name} is not computed exactly on {network.device} (an algorithm that does not merely multiply and "
                "add): convert with fixed_point=False (--no-fixed-point), or use --device cpu."
            )
    network.tried_for.add(samples)


def _same(node: Node, x: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Whether float32 gives what float64 gives, for the first two samples of the batch."""
    found = evaluate(node, [x], tensors)[:2].cpu()
    wide = {key: value.double().cpu() for key, value in tensors.items()}
    expected = evaluate(node, [x[:2].double().cpu()], wide)
    return torch.equal(found.double(), expected)
