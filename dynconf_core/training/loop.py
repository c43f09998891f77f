"""The training loop: every epoch a checkpoint, and a resumed run equal to an uninterrupted one.

Shuffling and augmentation are drawn from generators seeded by (seed, epoch), and the learning rate is a function of the
step, so what a resume needs besides the weights is the optimiser's momentum and the number of the epoch.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.activations.lsq import LSQ
from dynconf_core.data.augment import augmented
from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.progress import Progress, silent
from dynconf_core.training.checkpoint import read, write_atomically
from dynconf_core.training.recipe import Recipe, learning_rate
from dynconf_core.training.speed import SpeedUps, probe


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
) -> dict[str, Any]:
    """Train ``network`` in place.

    Args:
        network: logits ``(N, C)`` of images ``(N, 3, H, W)``.
        images: the training split.
        recipe: epochs, batch size, learning rate and the like.
        seed: of shuffling and augmentation.
        device: where to train; the network is left there.
        resume: file that holds the state after the last finished epoch; read if there, written after every epoch.
        progress: told of every batch.
        stop_after: end after this many epochs of the recipe (an interrupted run, for tests and short leases).

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
        foreach=True,  # the same numbers; fewer calls from Python, for which threads wait on each other
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
        first, labels = _batch(images, _order(images, seed, 0)[: recipe.batch_size], recipe, seed, device)
        _initialise_steps(network, first)
        progress(0, total, "probing speed-ups")
        speed_ups = probe(network, first, labels, total)
        record["speed_ups"] = speed_ups.as_dict()
    forward = speed_ups.prepared(network)

    for epoch in range(len(record["losses"]), min(recipe.epochs, stop_after or recipe.epochs)):
        start = time.perf_counter()
        network.train()
        order = _order(images, seed, epoch)
        generator = torch.Generator().manual_seed(_seed(seed, epoch, 1))
        losses = torch.zeros((), device=device)
        for index in range(steps_an_epoch):
            step = epoch * steps_an_epoch + index
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, total, recipe)
            chosen = order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
            batch, labels = _batch(images, chosen, recipe, generator, device)
            with speed_ups.precision(device):
                loss = cross_entropy(forward(speed_ups.images(batch)), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses += loss.detach()
            done = f"epoch {epoch + 1}/{recipe.epochs}"
            if record["losses"]:
                done += f", loss {record['losses'][-1]:.3f}"
            progress(step + 1, total, done)
        record["losses"].append(float(losses) / steps_an_epoch)
        record["seconds"] += time.perf_counter() - start
        if resume is not None:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "record": record, "of": identity}
            write_atomically(state, resume)
    network.eval()
    return record


def _seed(seed: int, epoch: int, purpose: int) -> int:
    """One seed for each use, in 32 bits, since torch's generator on the CPU takes no more; seeds are spread over them all."""
    return (seed * 0x9E3779B1 + (epoch << 4) + purpose) % 2**32


def _order(images: Images, seed: int, epoch: int) -> Tensor:
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(_seed(seed, epoch, 0)))


def _batch(
    images: Images, indices: Tensor, recipe: Recipe, source: torch.Generator | int, device: torch.device
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(source) if isinstance(source, int) else source
    pixels = images.batch(indices, generator).to(device, non_blocking=True)
    batch = augmented(pixels, recipe.augmentation, images.normalisation, generator)
    return batch, images.labels[indices].to(device, non_blocking=True)


@torch.no_grad()
def _initialise_steps(network: nn.Module, batch: Tensor) -> None:
    """Let one batch set the step of every LSQ layer, each from the input it sees once those before it are set."""

    def initialise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, LSQ)
        module.initialise(inputs[0])

    fresh = [module for module in network.modules() if isinstance(module, LSQ) and not bool(module.initialised)]
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
