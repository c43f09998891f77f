"""Speed-ups of training: channels-last, bf16 autocast, torch.compile, CUDA graphs. They change the last digits of the weights.

On a CPU the choice is a function of the run alone, so that the same training gives the same weights: channels-last if the run
is long, which measured 6 to 17 % faster. What helps one CPU and hurts another is used only if it is asked for: autocast was
three times slower without bf16 instructions, and compiled code six times slower on one of two machines.

On a GPU, whose sums depend on the order of its threads anyway, each is timed on a copy of the network, if the run is long
enough to make up for the trial. A speed-up that fails is not used. Autocast uses bf16, whose range equals that of float32, so
that unlike with fp16 gradients need no scaling. A GPU without bf16 arithmetic trains in float32. CUDA graphs replay the kernels
of compiled code without launching each from Python, for which a fast GPU otherwise waits.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.errors import InputError

logger = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss ``()`` of what the network returns and the labels ``(n,)``."""
LONG = 1e9
"""Pixel values that a run on a CPU reads, from which on it uses channels-last: the profiles quick and paper, not smoke."""
WORTH_TRYING = 20.0
"""Seconds that a run must take for channels-last and autocast to be tried."""
WORTH_COMPILING = 120.0
"""Seconds that a run must take for torch.compile to be tried; compiling took 35 on an H100 that ran three other trainings."""
MARGIN = 0.95
"""A speed-up is used if a step takes at most this fraction of the time without it."""


@dataclass(frozen=True)
class SpeedUps:
    """The speed-ups of a run, recorded with its provenance."""

    channels_last: bool = False
    autocast: bool = False
    compiled: bool = False
    cuda_graphs: bool = False

    @classmethod
    def named(cls, text: str) -> "SpeedUps | None":
        """The speed-ups named in ``text``, separated by commas, or "none"; None for "auto", which means ``chosen``.

        Raises:
            InputError: for another name.
        """
        if text == "auto":
            return None
        names = [] if text == "none" else text.split(",")
        if "cuda_graphs" in names:  # they are made of compiled code
            names.append("compiled")
        known = [field.name for field in fields(cls)]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"speed-ups={text!r}: {unknown[0]!r} is unknown: give auto, none, or some of {','.join(known)}.")
        return cls(**dict.fromkeys(names, True))

    def prepared(
        self, network: nn.Module, around: Callable[[nn.Module], nn.Module] = lambda network: network
    ) -> Callable[[Tensor], Tensor]:
        """The network's forward pass with these speed-ups; it shares the parameters of ``network``.

        ``around`` makes what is called instead of the network, once its weights have their memory layout.
        """
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        called = around(network)
        return torch.compile(called, mode="reduce-overhead" if self.cuda_graphs else None) if self.compiled else called

    def images(self, images: Tensor) -> Tensor:
        """The batch in the memory layout of the network."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images.contiguous()

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass: bf16 autocast, or none."""
        return torch.autocast(device.type, torch.bfloat16) if self.autocast else nullcontext()

    def as_dict(self) -> dict[str, bool]:
        """The speed-ups by name, for provenance."""
        return asdict(self)


def allow_fast_arithmetic() -> None:
    """Enable TF32 and cuDNN's search for its fastest algorithm in this process.

    Only for a process that does nothing but train: exact simulation rules out both, and all threads share these settings.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def chosen(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    share: slice | None = None,
    compiling: float | None = None,
    loss: Loss = cross_entropy,
) -> SpeedUps:
    """The speed-ups for a run of ``steps`` steps, on batches like ``images (n, 3, H, W)``, ``labels (n,)``.

    ``share`` is the part of each that this process computes, if there are others; then torch.compile is not tried, since code
    would end at every batch normalisation, whose statistics are of all processes. For the rest see ``probe``.
    """
    if images.device.type == "cuda":
        own = share or slice(None)
        return probe(network, images[own], labels[own], steps, compiling if share is None else math.inf, loss)
    return SpeedUps(channels_last=steps * images.numel() >= LONG)


def probe(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    compiling: float | None = None,
    loss: Loss = cross_entropy,
) -> SpeedUps:
    """The speed-ups worth using in a run of ``steps`` steps, timed on a batch ``images (n, 3, H, W)``, ``labels (n,)``.

    ``compiling`` is how many seconds a run must take for torch.compile to be tried, by default ``WORTH_COMPILING``. ``loss`` is
    that of a step, of what the network returns and the labels.
    """
    compiling = WORTH_COMPILING if compiling is None else compiling
    best = SpeedUps()
    seconds = seconds_a_step(network, images, labels, best, loss)
    candidates = [("channels_last", WORTH_TRYING), ("autocast", WORTH_TRYING)]
    candidates += [("compiled", compiling), ("cuda_graphs", compiling)]
    for name, worth in candidates:
        if seconds * steps < worth or (name == "cuda_graphs" and not (best.compiled and images.device.type == "cuda")):
            continue
        candidate = replace(best, **{name: True})
        try:
            tried = seconds_a_step(network, images, labels, candidate, loss)
        except Exception as error:  # a missing compiler, an unsupported operation, ...
            logger.info("%s is not used: %s", name, str(error).strip().splitlines()[0] if str(error) else type(error))
            continue
        logger.info("%s: %.3f s per step, %.3f s without", name, tried, seconds)
        if tried < MARGIN * seconds:
            best, seconds = candidate, tried
    return best


def seconds_a_step(
    network: nn.Module, images: Tensor, labels: Tensor, speed_ups: SpeedUps, loss: Loss = cross_entropy
) -> float:
    """Seconds of a training step on a batch ``images (n, 3, H, W)``, ``labels (n,)``.

    The best of three steps after a first one (of CUDA graphs, the second is recorded), on a copy of the network.
    """
    trial = copy.deepcopy(network).train()
    forward = speed_ups.prepared(trial)
    batch = speed_ups.images(images)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with speed_ups.precision(images.device):
            found = loss(forward(batch), labels)
        trial.zero_grad(set_to_none=True)  # a recorded graph writes new gradients where the last ones are
        found.backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])
