"""Settings and checks that make floating point exact for fixed-point weights.

An exact sum may be reordered freely, but TF32 truncates its factors, and Winograd and FFT convolutions compute different sums.
Therefore TF32 is switched off, and every weighted layer is compared with float64 on the CPU in its real shape before use. On a
GPU cuDNN, whose choice of algorithm depends on the batch size, is not used: convolutions are computed as matrix products.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.graph.bounds import Range, binary_places, in_one_step
from dynconf_core.graph.graph import WEIGHTED, Node
from dynconf_core.graph.operations import evaluate, per_channel
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
    tensors, graph = network.tensors(), network.graph
    spikes = graph.spikes()
    bounds, places = in_one_step(graph, network.image_limit or 0.0, network.neurons), binary_places(graph)
    remedy = "" if network.device.type == "cpu" else ", or use --device cpu"
    for node in graph.of_kind(*WEIGHTED):
        source = graph.by_name[node.inputs[0]]
        x = torch.rand(samples, *source.shape, generator=generator)
        if source.name in spikes:
            x = (x < 0.2).to(tensors[node.name]["weight"].dtype)
        else:
            x = _fine(x, bounds[source.name], places[source.name]).to(tensors[node.name]["weight"].dtype)
        x = x.to(network.device)
        if x.ndim > 2:  # channels last, as the values are
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        if not _same(node, x, tensors[node.name]):
            raise InputError(
                f"{node.name} is not computed exactly on {network.device} (the algorithm does more than multiply and "
                f"add): convert with fixed_point=False (--no-fixed-point){remedy}."
            )
    network.tried_for.add(samples)


def _fine(shares: Tensor, within: Range, places: int) -> Tensor:
    """Values on the grid of ``places`` and ``within`` bounds per channel, for ``shares`` of them in [0, 1]; float64."""
    low, high = (per_channel(limit, shares) for limit in (within.low, within.high))
    scale = 2.0**places
    return torch.trunc((low + shares.double() * (high - low)) * scale) / scale


def _same(node: Node, x: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Whether the device and float64 on the CPU agree on the first two samples of the batch."""
    found = evaluate(node, [x], tensors)[:2].cpu()
    wide = {key: value.double().cpu() for key, value in tensors.items()}
    expected = evaluate(node, [x[:2].double().cpu()], wide)
    return torch.equal(found.double(), expected)
