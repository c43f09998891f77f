"""How many images and time steps a network computes at a time.

A layer that computes several time steps together reads its weights and membrane potentials only once. Its intermediate values
should still fit into the cache, which limits how many.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from dynconf_core.graph.graph import Graph

STEPS, IMAGES = 4, 64
"""The most time steps and images at a time on a CPU (measured on ResNet-18 and VGG-16, 1 to 16 steps and 4 to 64 images)."""
VALUES = 4 << 20
"""The most values of the largest layer at a time: 64 rows of a CIFAR network at full width."""


class Pace(NamedTuple):
    """Images and time steps at a time."""

    images: int
    steps: int

    @property
    def rows(self) -> int:
        """Rows that a layer computes at a time."""
        return self.images * self.steps


def pace(graph: Graph, device: str, images: int, time_steps: int) -> Pace:
    """The pace for ``images`` that fit into memory and ``time_steps``; on a GPU, one time step of all images."""
    if device != "cpu":
        return Pace(max(1, images), 1)
    room = max(1, VALUES // largest(graph))
    steps = max(1, min(STEPS, time_steps, room))
    return Pace(max(1, min(images, IMAGES, room // steps)), steps)


def largest(graph: Graph) -> int:
    """The number of values of one sample in the largest layer."""
    return max(math.prod(node.shape) for node in graph.nodes)


def chunks(time_steps: int, longest: int, active_steps: int | None) -> Iterator[range]:
    """The time steps from 1 in ranges of at most ``longest``; the image acts in all or none of a range's steps."""
    first = 1
    while first <= time_steps:
        last = min(first + longest - 1, time_steps)
        if active_steps is not None and first <= active_steps < last:
            last = active_steps
        yield range(first, last + 1)
        first = last + 1
