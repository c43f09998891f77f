"""The training loop: every epoch a checkpoint, and a resumed run equal to an uninterrupted one.

Shuffling and augmentation are drawn from generators seeded by (seed, epoch), and the learning rate is a function of the
step, so what a resume needs besides the weights is the optimiser's momentum and the number of the epoch.

On a GPU nothing is waited for within an epoch: the images lie there or are decoded ahead, the random numbers of a batch
travel together, losses are summed there, and the state between two epochs is written while the next one is under way, but
not of every epoch where these take a second or two.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.data.augment import augmented
from dynconf_core.data.batches import batches
from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.experiment.recipe import Recipe, learning_rate
from dynconf_core.networks.checkpoint import read
from dynconf_core.progress import Progress, silent
from dynconf_core.training.keeper import Keeper
from dynconf_core.training.speed import SpeedUps, probe

KEPT_EVERY = {"cpu": 0.0, "cuda": 15.0}
"""Seconds at least between two states that are written: fetching one from a GPU takes as long as a dozen batches."""


def train(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    resume: Path | None = None,
    progress: Progress = silent,
    stop_after: int | None = None,
    speed_ups: SpeedUps | None = None,
) -> dict[str, Any]:
    """Train ``network`` in place.

    Args:
        network: logits ``(N, C)`` of images ``(N, 3, H, W)``.
        images: the training split.
        recipe: epochs, batch size, learning rate and the like.
        seed: of shuffling and augmentation.
        device: where to train; the network is left there.
        resume: file that holds the state after a finished epoch; read if there, written after every epoch (on a GPU at most
            every ``KEPT_EVERY`` seconds) and at the end.
        progress: told of every batch.
        stop_after: end after this many epochs of the recipe (an interrupted run, for tests and short leases).
        speed_ups: those to use; None: those that a trial shows to pay. A resumed run goes on with those that it began with.

    Returns:
        the record: mean training loss of each epoch, seconds, speed-ups, versions of what it ran on.

    Raises:
        InputError: where there are fewer images than a batch, or ``resume`` cannot be read.
    """
    steps_an_epoch = len(images) // recipe.batch_size
    if steps_an_epoch == 0:
        raise InputError(f"batch_size={recipe.batch_size} exceeds the {len(images)} training images: choose fewer.")
    total = steps_an_epoch * recipe.epochs
    network.to(device)
    images = images.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        # All parameters in few calls from Python, for which threads wait on each other; the same numbers on a CPU.
        foreach=device.type == "cpu",
        fused=device.type == "cuda",
    )
    record: dict[str, Any] = {"losses": [], "seconds": 0.0, "speed_ups": None}
    identity = {"recipe": {**asdict(recipe), "augmentation": list(recipe.augmentation)}, "seed": seed}
    if resume is not None and resume.is_file():
        state = read(resume)
        if state.get("of") != identity:
            raise InputError(f"{resume} is of a run with another recipe or seed: remove it to begin anew.")
        try:
            network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise InputError(f"{resume} is of another network: remove it to begin anew.") from error
        optimiser.load_state_dict(state["optimiser"])
        record = state["record"]
        speed_ups = SpeedUps(**record["speed_ups"])
    else:
        first, labels = _first_batch(images, recipe, seed, device)
        initialise_steps(network, first)
        if speed_ups is None:
            progress(0, total, "probing speed-ups")
            speed_ups = probe(network, first, labels, total)
        record["speed_ups"] = speed_ups.as_dict()
    forward = speed_ups.prepared(network)

    last, kept = min(recipe.epochs, stop_after or recipe.epochs), time.perf_counter()
    with nullcontext() if resume is None else Keeper(resume) as keeper:
        for epoch in range(len(record["losses"]), last):
            start = time.perf_counter()
            network.train()
            generator = torch.Generator().manual_seed(_seed(seed, epoch, 1))
            order = _order(images, seed, epoch)
            losses = torch.zeros((), device=device)
            done = f"epoch {epoch + 1}/{recipe.epochs}" + (f", loss {record['losses'][-1]:.3f}" if record["losses"] else "")
            feed = batches(images, order, recipe.batch_size, recipe.augmentation, generator, device)
            with closing(feed):
                for step, (batch, labels) in enumerate(feed, epoch * steps_an_epoch):
                    for group in optimiser.param_groups:
                        group["lr"] = learning_rate(step, total, recipe)
                    with speed_ups.precision(device):
                        loss = cross_entropy(forward(speed_ups.images(batch)), labels)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    losses += loss.detach()
                    progress(step + 1, total, done)
            record["losses"].append(float(losses) / steps_an_epoch)
            record["seconds"] += time.perf_counter() - start
            now = time.perf_counter()
            if keeper is not None and (epoch + 1 == last or now - kept >= KEPT_EVERY[device.type]):
                kept = now
                state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "record": record, "of": identity}
                keeper.keep(state)
    network.eval()
    return record


def _seed(seed: int, epoch: int, purpose: int) -> int:
    """One seed for each use, in 32 bits, since torch's generator on the CPU takes no more; seeds are spread over them all."""
    return (seed * 0x9E3779B1 + (epoch << 4) + purpose) % 2**32


def _order(images: Images, seed: int, epoch: int) -> Tensor:
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _first_batch(images: Images, recipe: Recipe, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch to try things on, whatever is trained on later."""
    generator = torch.Generator().manual_seed(seed)
    indices = _order(images, seed, 0)[: recipe.batch_size]
    pixels = images.batch(indices, generator).to(device)
    batch = augmented(pixels, recipe.augmentation, images.normalisation, generator)
    # The layout decides the last bits of the steps that this batch sets: with these, seeds give what they always gave.
    if "cutout" in recipe.augmentation:
        batch = batch.contiguous()
    elif "crop" in recipe.augmentation:
        batch = batch.contiguous(memory_format=torch.channels_last)
    return batch, images.labels[indices].to(device)


@runtime_checkable
class StartsFromABatch(Protocol):
    """A layer, such as ``LSQ``, that sets itself from the first batch it sees.

    Attributes:
        initialised: whether it has; a buffer, so that a resumed or loaded network does not start over.
    """

    initialised: Tensor

    def initialise(self, x: Tensor) -> None:
        """Set it from a batch ``x (N, ...)``."""


@torch.no_grad()
def initialise_steps(network: nn.Module, batch: Tensor) -> None:
    """Let one ``batch (N, ...)`` set every layer that starts from one and is not set yet, each from the input it sees once
    those before it are set. Running statistics of batch normalisation are reset; the network is left in training mode if any
    layer was set."""

    def initialise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, StartsFromABatch)
        module.initialise(inputs[0])

    fresh = [one for one in network.modules() if isinstance(one, StartsFromABatch) and not bool(one.initialised)]
    if not fresh:
        return
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [module.register_forward_pre_hook(initialise) for module in fresh]
    network.train()
    network(batch)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.reset_running_stats()
