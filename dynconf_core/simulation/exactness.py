"""Settings and checks that make float32 exact for fixed-point weights.

An exact sum may be reordered freely, but TF32 truncates its factors, and Winograd and FFT convolutions compute different sums.
Therefore TF32 is switched off, and every weighted layer is compared with float64 in its real shape before use. On a GPU cuDNN,
whose choice of algorithm depends on the batch size, is not used: convolutions are computed as matrix products.
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
"""The process-wide settings before each block that is still open, the outermost first."""


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """A block without TF32 and without cuDNN's search for the fastest algorithm.

    The settings are restored when the last thread exits such a block."""
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
    """Compare every weighted layer with float64, on the network's device and for batches of ``samples``.

    Does nothing without fixed-point weights. Call it within ``plain_arithmetic``: on a GPU it disables cuDNN for the rest of
    that block.

    Raises:
        InputError: naming the layer that is not computed exactly on this device, and the remedies.
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
        if x.ndim > 2:  # channels last, as the values are
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        if not _same(node, x, tensors[node.name]):
            raise InputError(
                f"{node.name} is not computed exactly on {network.device} (the algorithm does more than multiply and "
                "add): convert with fixed_point=False (--no-fixed-point), or use --device cpu."
            )
    network.tried_for.add(samples)


def _same(node: Node, x: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Whether float32 and float64 agree on the first two samples of the batch."""
    found = evaluate(node, [x], tensors)[:2].cpu()
    wide = {key: value.double().cpu() for key, value in tensors.items()}
    expected = evaluate(node, [x[:2].double().cpu()], wide)
    return torch.equal(found.double(), expected)
