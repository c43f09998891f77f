"""Which speed-ups pay on this machine: channels-last, autocast, torch.compile. Tried on the real step, never assumed.

bf16 autocast is three times slower on a CPU without bf16 instructions; torch.compile needs a compiler on the CPU and
costs the better part of a minute. So each is timed on a copy of the network, and only where the run is long enough to
win the trial back. A speed-up that fails is left out.

Autocast is to bf16, which has the range of float32, so that gradients need no scaling as fp16's do; a GPU without bf16
arithmetic trains in float32.
"""

import copy
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.errors import InputError

logger = logging.getLogger(__name__)

WORTH_TRYING = 300.0
"""Seconds that a run on a CPU must take before layouts and autocast are tried."""
WORTH_TRYING_ON_A_GPU = 20.0
WORTH_COMPILING = 600.0
"""Seconds that a run on a CPU must take before torch.compile is tried."""
WORTH_COMPILING_ON_A_GPU = 120.0
"""Compiling took some 35 seconds on an H100, beside three other trainings."""
MARGIN = 0.95
"""A speed-up is taken if the step takes at most this share of the time without it."""


@dataclass(frozen=True)
class SpeedUps:
    """Which speed-ups a run uses; stands in the checkpoint's provenance, since figures differ in the last digits."""

    channels_last: bool = False
    autocast: bool = False
    compiled: bool = False

    @classmethod
    def named(cls, text: str) -> "SpeedUps | None":
        """Those that ``text`` names, with commas between; none for "none", None for "auto", that is for a trial.

        Raises:
            InputError: for another name.
        """
        if text == "auto":
            return None
        names = [] if text == "none" else text.split(",")
        known = [field.name for field in fields(cls)]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"speed-ups={text!r}: {unknown[0]!r} is unknown; give auto, none, or some of {','.join(known)}.")
        return cls(**dict.fromkeys(names, True))

    def prepared(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network's forward with these speed-ups; its parameters stay those of ``network``."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(network) if self.compiled else network

    def images(self, images: Tensor) -> Tensor:
        """The batch in the layout of the network."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images.contiguous()

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """bf16 autocast, or nothing."""
        return torch.autocast(device.type, torch.bfloat16) if self.autocast else nullcontext()

    def as_dict(self) -> dict[str, bool]:
        """For provenance."""
        return asdict(self)


def allow_fast_arithmetic() -> None:
    """TF32 products, and cuDNN's search for its fastest algorithm, in this whole process.

    For a process that trains and does nothing else: exact simulation needs neither, and settings are shared by all threads.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def probe(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> SpeedUps:
    """The speed-ups that pay for a run of ``steps`` steps of a batch ``images (n, 3, H, W)``, ``labels (n,)``."""
    best = SpeedUps()
    seconds = seconds_a_step(network, images, labels, best)
    on_gpu = images.device.type == "cuda"
    trying = WORTH_TRYING_ON_A_GPU if on_gpu else WORTH_TRYING
    compiling = WORTH_COMPILING_ON_A_GPU if on_gpu else WORTH_COMPILING
    candidates = [("channels_last", trying), ("autocast", trying), ("compiled", compiling)]
    for name, worth in candidates:
        if seconds * steps < worth:
            continue
        candidate = replace(best, **{name: True})
        try:
            tried = seconds_a_step(network, images, labels, candidate)
        except Exception as error:  # a missing compiler, an unsupported operation: each its own exception
            logger.info("%s is left out: %s", name, str(error).strip().splitlines()[0] if str(error) else type(error))
            continue
        logger.info("%s: %.3f s a step against %.3f", name, tried, seconds)
        if tried < MARGIN * seconds:
            best, seconds = candidate, tried
    return best


def seconds_a_step(network: nn.Module, images: Tensor, labels: Tensor, speed_ups: SpeedUps) -> float:
    """Seconds of a training step of a batch ``images (n, 3, H, W)``, ``labels (n,)``: the best of three, on a copy of the
    network, the first step left out."""
    trial = copy.deepcopy(network).train()
    forward = speed_ups.prepared(trial)
    batch = speed_ups.images(images)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with speed_ups.precision(images.device):
            loss = cross_entropy(forward(batch), labels)
        loss.backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])
