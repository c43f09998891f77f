"""The augmented batches of an epoch on the training device, prepared so that the device never waits for them.

Images held in memory are gathered and augmented on the device that holds them, several batches at a time, because launching an
operation on a few small images costs more than executing it. Images that have to be decoded are decoded in advance by threads,
a limited number of batches ahead. In both cases the random numbers are drawn in the order of the batches, so that they do not
depend on any of this, nor on how many processes share the batches.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch
from torch import Tensor

from dynconf_core.data.augment import Draws, applied, drawn, together
from dynconf_core.data.images import Images, ReadInParts, TensorImages

AHEAD = 3
"""Batches decoded in advance."""
BLOCK = 12 << 20
"""Bytes of images, as float32, augmented at a time: more than a batch of small images, less than a processor's cache."""
BLOCK_ON_A_GPU = 48 << 20
"""The same on a GPU, where launching operations dominates the cost; no other sizes have been measured."""
WHOLE = slice(None)

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
    share: slice = WHOLE,
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
        share: the part of every batch that is wanted: those images, as they are in the whole batch.

    Yields:
        images ``(n, 3, H, W)``, float32, normalised, and labels ``(n,)``, both on ``device``; n is ``size`` without ``share``.
    """
    order = order[: len(order) // size * size]
    wanted = order.view(-1, size)[:, share].to(device)
    labels = images.labels.to(device)[wanted]
    if isinstance(images, TensorImages):
        block = block or _block(images, wanted.shape[1], device)
        made = _in_memory(images, wanted, size, share, names, generator, block)
    else:
        made = _decoded(images, order, size, share, names, generator, device)
    with closing(made):
        yield from zip(made, labels, strict=True)


def _in_memory(
    images: TensorImages,
    wanted: Tensor,
    size: int,
    share: slice,
    names: Sequence[str],
    generator: torch.Generator,
    block: int,
) -> Generator[Tensor, None, None]:
    """``wanted (batches, n)`` are the indices of the share of each batch of ``size`` images."""
    for part in wanted.split(block):
        pixels = images.batch(part.flatten())
        draws = [_of_share(drawn(names, size, pixels.shape[-2], generator), share) for _ in part]
        yield from applied(pixels, together(draws), images.normalisation).split(wanted.shape[1])


def _decoded(
    images: Images,
    order: Tensor,
    size: int,
    share: slice,
    names: Sequence[str],
    generator: torch.Generator,
    device: torch.device,
) -> Generator[Tensor, None, None]:
    def decode(chosen: Tensor) -> tuple[Tensor, Draws]:
        if isinstance(images, ReadInParts):
            pixels = images.part(chosen, share, generator)
        else:  # the random numbers of the rest are known to its own code alone
            pixels = images.batch(chosen, generator)[share]
        return pixels, _of_share(drawn(names, size, pixels.shape[-2], generator), share)

    with closing(ahead(decode, order.split(size), AHEAD)) as coming:
        for pixels, draws in coming:
            yield applied(pixels.to(device, non_blocking=True), draws, images.normalisation)


def _of_share(draws: Draws, share: slice) -> Draws:
    return draws if share == WHOLE else {name: numbers[:, share] for name, numbers in draws.items()}


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
