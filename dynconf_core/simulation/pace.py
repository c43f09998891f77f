"""How many images and how many time steps a network computes at a time, layer by layer.

A layer that takes several steps at once reads its weights, and moves its membrane potentials through the cache, once for all of
them. What bounds it is the memory of the values in between: they should stay in the cache too.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from dynconf_core.graph.graph import Graph

STEPS, IMAGES = 4, 64
"""At once on a CPU at most (measured for 1 to 16 steps and 4 to 64 images, ResNet-18 and VGG-16)."""
VALUES = 4 << 20
"""Values of the largest layer at once: 64 rows of a CIFAR network at full width."""


class Pace(NamedTuple):
    """Images and time steps at a time."""

    images: int
    steps: int

    @property
    def rows(self) -> int:
        """What a layer computes at once."""
        return self.images * self.steps


def pace(graph: Graph, device: str, images: int, time_steps: int) -> Pace:
    """For ``images`` of which memory holds all, ``time_steps`` steps, and the kind of device: on a GPU one step of all."""
    if device != "cpu":
        return Pace(max(1, images), 1)
    room = max(1, VALUES // largest(graph))
    steps = max(1, min(STEPS, time_steps, room))
    return Pace(max(1, min(images, IMAGES, room // steps)), steps)


def largest(graph: Graph) -> int:
    """Values of one sample in the largest layer."""
    return max(math.prod(node.shape) for node in graph.nodes)


def chunks(time_steps: int, longest: int, active_steps: int | None) -> Iterator[range]:
    """The time steps from 1 in ranges up to ``longest``; none holds both steps in which the image acts and others."""
    first = 1
    while first <= time_steps:
        last = min(first + longest - 1, time_steps)
        if active_steps is not None and first <= active_steps < last:
            last = active_steps
        yield range(first, last + 1)
        first = last + 1
