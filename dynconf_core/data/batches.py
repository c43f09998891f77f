"""The augmented batches of an epoch on the training device, prepared so that the device never waits for them.

Images held in memory are gathered and augmented on the device that holds them, several batches at a time, because launching an
operation on a few small images costs more than executing it. Images that have to be decoded are decoded in advance by threads,
a limited number of batches ahead. In both cases the random numbers are drawn in the order of the batches, so that they do not
depend on any of this.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch
from torch import Tensor

from dynconf_core.data.augment import applied, drawn, together
from dynconf_core.data.images import Images, TensorImages

AHEAD = 3
"""Batches decoded in advance."""
BLOCK = 12 << 20
"""Bytes of images, as float32, augmented at a time: more than a batch of small images, less than a processor's cache."""
BLOCK_ON_A_GPU = 48 << 20
"""The same on a GPU, where launching operations dominates the cost; no other sizes have been measured."""

T = TypeVar("T")
S = TypeVar("S")


def batches(
    images: Images,
    order: Tensor,
    size: int,
    names: Sequence[str],
    generator: torch.Generator,
    device: torch.device,
    block: int | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Every full batch of an epoch.

    Args:
        images: the training split, already moved ``to(device)``.
        order: indices ``(N,)`` on the CPU; the last ``N % size`` are left out.
        size: images per batch.
        names: of the augmentations.
        generator: on the CPU; the source of all random numbers.
        device: where the batches are needed.
        block: batches augmented at a time if the images are held in memory; None: as many as suit the device.

    Yields:
        images ``(size, 3, H, W)``, float32, normalised, and labels ``(size,)``, both on ``device``.
    """
    order = order[: len(order) // size * size]
    there = order.to(device)
    labels = images.labels.to(device)[there].split(size)
    if isinstance(images, TensorImages):
        made = _in_memory(images, there, size, names, generator, block or _block(images, size, device))
    else:
        made = _decoded(images, order, size, names, generator, device)
    with closing(made):
        yield from zip(made, labels, strict=True)


def _in_memory(
    images: TensorImages, order: Tensor, size: int, names: Sequence[str], generator: torch.Generator, block: int
) -> Generator[Tensor, None, None]:
    for part in order.split(size * block):
        pixels = images.batch(part)
        draws = [drawn(names, size, pixels.shape[-2], generator) for _ in range(len(part) // size)]
        yield from applied(pixels, together(draws), images.normalisation).split(size)


def _decoded(
    images: Images, order: Tensor, size: int, names: Sequence[str], generator: torch.Generator, device: torch.device
) -> Generator[Tensor, None, None]:
    def decode(chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = images.batch(chosen, generator)
        return pixels, drawn(names, size, pixels.shape[-2], generator)

    with closing(ahead(decode, order.split(size), AHEAD)) as coming:
        for pixels, draws in coming:
            yield applied(pixels.to(device, non_blocking=True), draws, images.normalisation)


def _block(images: TensorImages, size: int, device: torch.device) -> int:
    room = BLOCK_ON_A_GPU if device.type == "cuda" else BLOCK
    return max(1, room // (size * images.pixels[0].numel() * 4))


def ahead(make: Callable[[T], S], items: Iterable[T], depth: int) -> Generator[S, None, None]:
    """``make(item)`` for every item, in order, computed by one thread up to ``depth`` items in advance.

    An exception in ``make`` is raised where its result would have been yielded. Closing the iterator ends the thread.
    """
    waiting: deque[Future[S]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        try:
            for item in items:
                waiting.append(worker.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()
