"""Epochs of a training, resumable after any saved one with the same result.

Shuffling and augmentation use generators seeded by (seed, epoch), and the learning rate is a function of the step. The saved
state therefore consists of the weights, the optimiser's state and the record so far.

On a GPU an epoch has no synchronisation points: images are on the device or decoded ahead, losses are summed on the device, and
the state is written in the background, at most every ``KEPT_EVERY`` seconds.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from dynconf_core.errors import InputError
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.progress import Progress
from dynconf_core.training.keeper import Keeper

KEPT_EVERY = {"cpu": 0.0, "cuda": 15.0}
"""Least seconds between two saved states: fetching one from a GPU takes as long as a dozen batches."""


class TrainingRecord(TypedDict):
    """What a training did: mean loss of each epoch, seconds, and speed-ups by name."""

    losses: list[float]
    seconds: float
    speed_ups: dict[str, bool]


class Diverged(RuntimeError):
    """The loss or a weight is no longer finite."""


@dataclass(frozen=True)
class Epochs:
    """What happens in each epoch.

    Attributes:
        count: the number of epochs.
        steps: the number of steps in each.
        feed: gives the batches of an epoch (from 0) and their labels.
        step: trains on a batch and its labels, and gives the loss ``()``.
        rate: the learning rate at a step, counted from 0 over all epochs.
        state: what is saved, beside the record.
        diverged: the error for a loss in an epoch that is no longer finite.
    """

    count: int
    steps: int
    feed: Callable[[int], Generator[tuple[Tensor, Tensor]]]
    step: Callable[[Tensor, Tensor], Tensor]
    rate: Callable[[int], float]
    state: Callable[[], dict[str, Any]]
    diverged: Callable[[int], Diverged]

    def run(
        self,
        record: TrainingRecord,
        optimiser: Optimizer,
        device: torch.device,
        *,
        resume: Path | None,
        stop_after: int | None,
        progress: Progress,
    ) -> int:
        """Run the epochs that ``record`` does not hold yet, which it then holds.

        Args:
            record: of the epochs so far.
            optimiser: whose learning rate is set.
            device: of the loss.
            resume: the file of the state; None: none is kept.
            stop_after: number of epochs after which to stop.
            progress: called after every batch.

        Returns:
            the number of epochs that have been run in all.
        """
        on_gpu, total = device.type == "cuda", self.count * self.steps
        last, kept = min(self.count, stop_after or self.count), time.perf_counter()
        with nullcontext() if resume is None else Keeper(resume) as keeper:
            for epoch in range(len(record["losses"]), last):
                start = time.perf_counter()
                losses = torch.zeros((), device=device)
                done = f"epoch {epoch + 1}/{self.count}" + (f", loss {record['losses'][-1]:.3f}" if record["losses"] else "")
                with closing(self.feed(epoch)) as feed:
                    for step, (batch, labels) in enumerate(feed, epoch * self.steps):
                        for group in optimiser.param_groups:
                            group["lr"] = self.rate(step)
                        losses += self.step(batch, labels)
                        if not on_gpu and not math.isfinite(float(losses)):  # on a GPU, reading it would wait for the step
                            raise self.diverged(epoch)
                        progress(step + 1, total, done)
                if not math.isfinite(float(losses)):
                    raise self.diverged(epoch)
                record["losses"].append(float(losses) / self.steps)
                record["seconds"] += time.perf_counter() - start
                now = time.perf_counter()
                if keeper is not None and (epoch + 1 == last or now - kept >= KEPT_EVERY[device.type]):
                    kept = now
                    keeper.keep({**self.state(), "record": record})
        return last


def steps_an_epoch(images: int, recipe: Recipe) -> int:
    """The number of whole batches; raises ``InputError`` if there is none."""
    steps = images // recipe.batch_size
    if steps == 0:
        raise InputError(f"batch_size={recipe.batch_size} exceeds the {images} training images: choose fewer.")
    return steps


def sgd(groups: list[dict[str, Any]], recipe: Recipe, rate: float, device: torch.device, nesterov: bool = False) -> SGD:
    """The optimiser of a recipe."""
    on_gpu = device.type == "cuda"
    return SGD(
        groups,
        lr=rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=nesterov,
        # Few calls from Python, for which parallel threads would have to wait; gives the same numbers on a CPU.
        foreach=not on_gpu,
        fused=on_gpu,
    )


def seed_of(seed: int, epoch: int, purpose: int) -> int:
    """A separate 32-bit seed for each use; torch's generator on the CPU accepts no more bits."""
    return (seed * 0x9E3779B1 + (epoch << 4) + purpose) % 2**32


def generator_of(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """A generator with such a seed."""
    return torch.Generator().manual_seed(seed_of(seed, epoch, purpose))
