"""Fine-tuning a trained network as an SNN over its first time steps, resumable after any saved epoch with the same result.

A converted SNN approaches its ANN after many time steps; its first steps are what nobody trained. Here the first T steps are
simulated with surrogate gradients (see ``spiking``), and the loss is taken at every one of them.
"""

import copy
import math
from collections.abc import Callable, Generator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from dynconf_core.activations.potential import keep_potentials, learn_potentials
from dynconf_core.activations.quantisation import Quantised
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.data.augment import augmented
from dynconf_core.data.batches import batches
from dynconf_core.data.images import Images
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.progress import Progress, silent
from dynconf_core.training.epochs import Diverged, Epochs, TrainingRecord, generator_of, sgd, steps_an_epoch
from dynconf_core.training.keeper import kept_state
from dynconf_core.training.loop import decayed
from dynconf_core.training.speed import SpeedUps, chosen
from dynconf_core.training.spiking import Spiking

GRADIENT_NORM = 1.0
"""The norm to which a longer gradient is shortened. Surrogate gradients add up over steps and layers: those of a ResNet-18 of
full width, trained to 96 %, had norms of 2 to 16, and without a limit it fell to the level of chance within five steps."""
WORSE = 2.0
"""By what factor an epoch's loss may exceed that of the first batch."""
WORTH_COMPILING = 600.0
"""Seconds that a run on a GPU must take for torch.compile to be tried: code for all time steps took minutes to compile."""
ORDER, AUGMENTATION = 8, 9
"""What random numbers are for, beside the uses of a training; see ``seed_of``."""


class FineTuningDiverged(Diverged):
    """The loss is no longer finite or has doubled, a weight is no longer finite, or a threshold no longer above 0."""

    def __init__(self, epoch: int, how: FineTuning) -> None:
        super().__init__(
            f"fine-tuning diverged in epoch {epoch + 1} of {how.epochs} with fine_tune_rate={how.learning_rate:g}: the loss "
            "has doubled, or it or a weight is no longer finite, or a threshold is no longer above 0. Choose a lower rate: "
            f"fine_tune_rate={how.learning_rate / 4:g}.",
        )


def loss_of(rows: Tensor, labels: Tensor, trained: Tensor, how: FineTuning) -> Tensor:
    """The loss of a batch, ``()``.

    Args:
        rows: the SNN's logits after every step, then those of the network itself, ``(T + 1, N, C)``; see ``Spiking``.
        labels: ``(N,)``.
        trained: logits ``(N, C)`` of the network as it was trained.
        how: the weights of the terms.
    """
    steps = len(rows) - 1
    flat = rows.float().flatten(0, 1)
    losses = cross_entropy(flat, labels.repeat(len(rows)), reduction="none")
    if how.distilled > 0:
        known = trained.float().softmax(1).repeat(len(rows), 1)
        losses = (1 - how.distilled) * losses + how.distilled * cross_entropy(flat, known, reduction="none")
    means = losses.unflatten(0, (len(rows), -1)).mean(1)
    loss: Tensor = (means[:steps].mean() + how.settled * means[steps]) / (1 + how.settled)
    return loss


def fine_tune(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    how: FineTuning,
    options: ConversionOptions,
    *,
    seed: int,
    device: torch.device,
    resume: Path | None = None,
    progress: Progress = silent,
    stop_after: int | None = None,
    speed_ups: SpeedUps | None = None,
) -> TrainingRecord:
    """Fine-tune ``network``, which has been trained, in place.

    Args:
        network: from images ``(N, C, H, W)`` to logits ``(N, C)``, with activations that declare their quantisation.
        images: the training split.
        recipe: the recipe of the training, for the batch size, augmentation, momentum and weight decay.
        how: epochs, steps, learning rate and the terms of the loss.
        options: of the conversion that follows.
        seed: seed of shuffling and augmentation.
        device: the device to train on, where the network remains.
        resume: file of the state after a finished epoch, as for ``loop.train``.
        progress: called after every batch.
        stop_after: number of epochs after which to stop, for a run in several parts.
        speed_ups: the speed-ups to use; None means ``speed.chosen``. A resumed run keeps its own.

    Returns:
        the record: mean loss of each epoch, seconds, and speed-ups.

    Raises:
        InputError: for a network that cannot be fine-tuned (see ``Spiking``) or cannot learn potentials that are asked for, or
            fewer images than a batch.
        FineTuningDiverged: if the loss or a weight is no longer finite, the mean loss of an epoch exceeds ``WORSE`` times that
            of the first batch, or a threshold is no longer above 0.
    """
    an_epoch = steps_an_epoch(len(images), recipe)
    total, names = an_epoch * how.epochs, how.augmentation(recipe)
    if how.potentials:
        learn_potentials(network)
    spiking = Spiking(network, images.normalisation(images.batch(torch.arange(1))), options, how.steps).to(device)
    trained = copy.deepcopy(network).eval().requires_grad_(False)
    images = images.to(device)
    optimiser = sgd(decayed(network, recipe), recipe, how.learning_rate, device)
    record = TrainingRecord(losses=[], seconds=0.0, speed_ups={})
    identity = {
        "fine_tuning": how.as_dict(recipe),
        "neurons": spiking.neurons.to_json(),
        "initial_potential": options.initial_potential,
        "seed": seed,
        "images": len(images),
        "network": {name: list(value.shape) for name, value in network.state_dict().items()},
    }
    state = kept_state(resume, identity) if resume else None
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        record, first = state["record"], state["first"]
        speed_ups = SpeedUps(**record["speed_ups"])
    else:
        first = math.inf
        if speed_ups is None:
            progress(0, total, "choosing speed-ups")
            speed_ups = _chosen(spiking, images, recipe.batch_size, names, seed, device, total, _loss_alone(how))
        record["speed_ups"] = speed_ups.as_dict()
    forward, before = speed_ups.prepared(spiking), speed_ups.prepared(trained)

    def check() -> None:
        if record["losses"] and record["losses"][-1] > WORSE * first:
            raise FineTuningDiverged(len(record["losses"]) - 1, how)

    def feed(epoch: int) -> Generator[tuple[Tensor, Tensor]]:
        check()
        order = torch.randperm(len(images), generator=generator_of(seed, epoch, ORDER))
        return batches(images, order, recipe.batch_size, names, generator_of(seed, epoch, AUGMENTATION), device)

    def step(batch: Tensor, labels: Tensor) -> Tensor:
        nonlocal first
        batch = speed_ups.images(batch)
        with speed_ups.precision(device):
            with torch.no_grad():
                known = before(batch).clone()  # a CUDA graph's result is overwritten by the next one
            loss = loss_of(forward(batch), labels, known, how)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        if math.isinf(first):
            first = float(loss.detach())
        optimiser.step()
        keep_potentials(network)
        return loss.detach()

    last = Epochs(
        how.epochs,
        an_epoch,
        feed,
        step,
        lambda number: how.learning_rate * 0.5 * (1 + math.cos(math.pi * number / total)),
        lambda: {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "first": first, "of": identity},
        lambda epoch: FineTuningDiverged(epoch, how),
    ).run(record, optimiser, device, resume=resume, stop_after=stop_after, progress=progress)
    check()
    if not _sound(network):
        raise FineTuningDiverged(last - 1, how)
    network.eval()
    return record


def _loss_alone(how: FineTuning) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a trial step, for its time alone: the trained network's logits cost the same with every speed-up."""
    return lambda rows, labels: loss_of(rows, labels, rows[-1].detach(), how)


def _chosen(
    spiking: Spiking,
    images: Images,
    size: int,
    names: tuple[str, ...],
    seed: int,
    device: torch.device,
    total: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> SpeedUps:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.arange(size)
    batch = augmented(images.batch(indices, generator).to(device), names, images.normalisation, generator)
    return chosen(spiking, batch, images.labels[indices].to(device), total, compiling=WORTH_COMPILING, loss=loss)


def _sound(network: nn.Module) -> bool:
    """Whether all weights are finite and all thresholds above 0."""
    activations = [module for module in network.modules() if isinstance(module, Quantised)]
    return all(bool(value.isfinite().all()) for value in network.state_dict().values()) and all(
        bool((module.quantisation().threshold > 0).all()) for module in activations
    )
