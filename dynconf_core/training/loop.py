"""Training a network by a recipe, resumable after any saved epoch with the same result; see ``epochs``."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.activations.course import Course, check_guided, guide
from dynconf_core.activations.quantisation import Quantised
from dynconf_core.data.augment import augmented
from dynconf_core.data.batches import batches
from dynconf_core.data.images import Images
from dynconf_core.experiment.recipe import Recipe, fineness, learning_rate
from dynconf_core.progress import Progress, silent
from dynconf_core.training.average import BATCHES, Average
from dynconf_core.training.epochs import Diverged, Epochs, TrainingRecord, generator_of, seed_of, sgd, steps_an_epoch
from dynconf_core.training.keeper import kept_state
from dynconf_core.training.parallel import NORMS, parallel, settle
from dynconf_core.training.processes import ALONE, Agreed, Processes
from dynconf_core.training.speed import SpeedUps, chosen


class TrainingDiverged(Diverged):
    """The loss or a weight is no longer finite."""

    def __init__(self, epoch: int, recipe: Recipe) -> None:
        rate, warm_up = recipe.learning_rate, recipe.warm_up
        super().__init__(
            f"training diverged in epoch {epoch + 1} of {recipe.epochs} with learning_rate={rate:g}: the loss or a weight is "
            f"no longer finite. Choose a lower one, such as learning_rate={rate / 4:g}, or a longer warm-up than "
            f"warm_up={warm_up:g}."
        )


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
    processes: Processes = ALONE,
) -> TrainingRecord:
    """Train ``network`` in place.

    Of several processes, each computes its share of every batch, with the images and random numbers that one process would give
    to it. The network is the same in all of them, bit for bit, and that of one process up to the order of sums.

    Args:
        network: a module from images ``(N, 3, H, W)`` to logits ``(N, C)``.
        images: the training split.
        recipe: epochs, batch size, learning rate and so on.
        seed: seed of shuffling and augmentation.
        device: the device to train on, where the network remains.
        resume: file of the state after a finished epoch; read if it exists, written after every epoch (on a GPU at most every
            ``KEPT_EVERY`` seconds) and at the end. A damaged file, or one of another run, is set aside. Of several processes,
            only the first reads and writes it.
        progress: called after every batch.
        stop_after: number of epochs after which to stop, for a run in several parts.
        speed_ups: the speed-ups to use; None means ``speed.chosen``. A resumed run keeps those it started with.
        processes: those that train the network, each of which calls this with the same arguments.

    Returns:
        the record: mean training loss of each epoch, seconds, and speed-ups.

    Raises:
        InputError: if there are fewer images than a batch, if a batch cannot be shared out evenly, or if ``resume`` belongs to
            the same training by another number of processes.
        TrainingDiverged: if the loss or a weight is no longer finite.
    """
    share = processes.share(recipe.batch_size)
    an_epoch = steps_an_epoch(len(images), recipe)
    total = an_epoch * recipe.epochs
    network.to(device)
    images = images.to(device)
    optimiser = sgd(decayed(network, recipe), recipe, recipe.learning_rate, device, recipe.nesterov)
    record = TrainingRecord(losses=[], seconds=0.0, speed_ups={})
    identity = {
        "recipe": recipe.as_dict(),
        "seed": seed,
        "images": len(images),
        "network": {name: list(value.shape) for name, value in network.state_dict().items()},
    }
    if speed_ups is not None and speed_ups.compiled and processes.count > 1:
        raise Agreed("speed-ups=compiled is for one process: with several, give channels_last,autocast or auto.")
    if recipe.rcs and processes.count > 1:
        raise Agreed(f"rcs={recipe.rcs:g} is for one process, since its terms are of the whole batch: leave it out.")
    state = processes.said(
        processes.checked(lambda: kept_state(resume, identity, processes.count) if resume and processes.first else None)
    )
    if state is None or processes.count > 1:
        first, labels = _first_batch(images, recipe, seed, device)
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        record = state["record"]
        speed_ups = SpeedUps(**record["speed_ups"])
    else:
        initialise_steps(network, first, trained=bool(recipe.initial_weights))
        if speed_ups is None:
            progress(0, total, "choosing speed-ups")
            speed_ups = processes.said(chosen(network, first, labels, total, share if processes.count > 1 else None))
        record["speed_ups"] = speed_ups.as_dict()
    course = _course(network, recipe, share)
    forward = speed_ups.prepared(network, lambda laid_out: parallel(laid_out, processes, device))
    if processes.count > 1:
        with speed_ups.precision(device):
            settle(network, forward, speed_ups.images(first[share]), labels[share])

    average = Average(network, recipe.averaging) if recipe.averaging else None
    if average is not None and state is not None:
        average.load(state["average"])

    def feed(epoch: int) -> Generator[tuple[Tensor, Tensor]]:
        network.train()
        if course is not None:
            course.fineness = fineness(epoch, recipe)
            course.seed(seed_of(seed, epoch, 2), device, speed_ups.compiled)
        generator, order = generator_of(seed, epoch, 1), _order(images, seed, epoch)
        return batches(images, order, recipe.batch_size, recipe.augmentation, generator, device, share=share)

    def step(batch: Tensor, labels: Tensor) -> Tensor:
        with speed_ups.precision(device):
            logits = forward(speed_ups.images(batch))
            loss = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if course is not None and (penalty := course.taken()) is not None:
            loss = loss + recipe.rcs * penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if average is not None:
            average.update()
        return processes.mean(loss.detach())

    def kept() -> dict[str, Any]:
        return {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            **({} if average is None else {"average": average.state()}),
            "of": identity,
            "processes": processes.count,
        }

    last = Epochs(
        recipe.epochs,
        an_epoch,
        feed,
        step,
        lambda number: learning_rate(number, total, recipe),
        kept,
        lambda epoch: TrainingDiverged(epoch, recipe),
    ).run(
        record,
        optimiser,
        device,
        resume=resume if processes.first else None,
        stop_after=stop_after,
        progress=progress,
    )
    if course is not None:
        course.end()
        guide(network, None)
    if average is not None and last == recipe.epochs:
        average.into_network()
        network.train()
        for batch, _ in _further_batches(images, recipe, seed, device, share, BATCHES):
            with torch.no_grad(), speed_ups.precision(device):
                forward(speed_ups.images(batch))
    # The last step may have overflowed after its loss was computed.
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise TrainingDiverged(last - 1, recipe)
    network.eval()
    return record


def _order(images: Images, seed: int, epoch: int) -> Tensor:
    return torch.randperm(len(images), generator=generator_of(seed, epoch, 0))


def _further_batches(
    images: Images, recipe: Recipe, seed: int, device: torch.device, share: slice, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` batches beyond those of the recipe's epochs."""
    epoch = recipe.epochs
    while count > 0:
        generator = generator_of(seed, epoch, 1)
        order = _order(images, seed, epoch)[: count * recipe.batch_size]
        yield from batches(images, order, recipe.batch_size, recipe.augmentation, generator, device, share=share)
        count -= len(order) // recipe.batch_size
        epoch += 1


def _course(network: nn.Module, recipe: Recipe, share: slice) -> Course | None:
    """What the activations follow; None for a recipe that asks nothing of them."""
    if not recipe.guides_activations:
        return None
    check_guided(network, noise=recipe.noise, rcs=recipe.rcs, finer_start=recipe.finer_start)
    course = Course(recipe.batch_size, share)
    course.noise = recipe.noise
    course.penalties = [] if recipe.rcs else None
    guide(network, course)
    return course


def decayed(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters in groups for the optimiser, those without weight decay in the second."""
    if recipe.decay_thresholds and recipe.decay_norms:
        return [{"params": list(network.parameters())}]
    spared: list[nn.Parameter] = []
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        if not recipe.decay_thresholds and isinstance(module, Quantised):
            spared += own.values()
        if not recipe.decay_norms:
            spared += own.values() if isinstance(module, NORMS) else [one for name, one in own.items() if name == "bias"]
    without = {id(one) for one in spared}
    groups = [[one for one in network.parameters() if (id(one) in without) is chosen] for chosen in (False, True)]
    return [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]


def _first_batch(images: Images, recipe: Recipe, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The batch used for initialisation and trials."""
    generator = torch.Generator().manual_seed(seed)
    indices = _order(images, seed, 0)[: recipe.batch_size]
    pixels = images.batch(indices, generator).to(device)
    batch = augmented(pixels, recipe.augmentation, images.normalisation, generator)
    # The layout affects the last bits of the step sizes initialised from this batch; keep it, so that seeds stay reproducible.
    if "cutout" in recipe.augmentation:
        batch = batch.contiguous()
    elif "crop" in recipe.augmentation:
        batch = batch.contiguous(memory_format=torch.channels_last)
    return batch, images.labels[indices].to(device)


@runtime_checkable
class StartsFromABatch(Protocol):
    """A layer, such as ``LSQ``, that is initialised from the first batch it sees.

    Attributes:
        initialised: whether this has happened; a buffer, so that a resumed or loaded network is not initialised again.
    """

    initialised: Tensor | bool

    def initialise(self, x: Tensor) -> None:
        """Initialise the layer from its input ``x (N, ...)``."""


@torch.no_grad()
def initialise_steps(network: nn.Module, batch: Tensor, trained: bool = False) -> None:
    """Initialise all layers that start from a batch and are not initialised yet, each after those before it.

    The running statistics of batch normalisation are then reset, and the network is in training mode. Of a network that is
    ``trained`` they are used instead, and remain.

    Args:
        network: the network.
        batch: augmented, normalised images ``(N, ...)``.
        trained: whether the weights come from a training.
    """

    def initialise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, StartsFromABatch)
        module.initialise(inputs[0])

    fresh = [one for one in network.modules() if isinstance(one, StartsFromABatch) and not bool(one.initialised)]
    if not fresh:
        return
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [module.register_forward_pre_hook(initialise) for module in fresh]
    network.train(not trained)
    network(batch)
    network.train()
    for hook in hooks:
        hook.remove()
    for norm in norms if not trained else ():
        norm.reset_running_stats()
