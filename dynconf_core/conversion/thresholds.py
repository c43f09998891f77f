"""The sources of the firing thresholds: learned in training, known from the activation, or found from calibration images.

    learned     QCFS (theta = lambda) and LSQ (theta = n s) hold theirs; a clip activation such as ReLU6 has a known maximum
    max         the largest activation seen                          (Diehl et al., IJCNN 2015)
    percentile  the 99.9th percentile of the activations             (Rueckauer et al., Front. Neurosci. 2017)
    error       least squared error of the layer after T steps, over the calibration activations:
                E[(x - theta / T clip(floor(x T / theta + 1/2), 0, T))^2]   (in the spirit of Li et al., ICML 2021)

Thresholds are per layer or per channel, and are computed from histograms of each channel's activations.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from dynconf_core.arguments import one_of
from dynconf_core.conversion.positions import at, spread
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import prepared, run
from dynconf_core.progress import Progress, silent

BINS = 2048
BATCH = 64
ELEMENTS = 2**23
"""The most values of one layer that are computed at a time, unless a single image has more."""
COUNTED = 2**18
"""The most values of each channel that are counted, from positions spread over every image; the largest is that of all."""
LEAST = 0.05
"""The lowest threshold of a channel, as a fraction of its layer's median; a channel that never fires gets the median."""
FRACTIONS = torch.linspace(0.02, 1.0, 99, dtype=torch.float64)
"""Candidate thresholds of ``error``, as fractions of the largest activation."""


@dataclass(frozen=True)
class Histogram:
    """Counts ``(C, BINS)`` of a layer's positive activations in equal bins from 0 to ``top (C,)``, and of ``zeros (C,)``."""

    counts: Tensor
    top: Tensor
    zeros: Tensor

    def centres(self) -> Tensor:
        """The centres of the bins, ``(C, BINS)``."""
        middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
        return self.top[:, None] * middle

    def merged(self) -> "Histogram":
        """The histogram of all channels together, in common bins."""
        top = self.top.max()
        if top <= 0:
            return Histogram(self.counts.sum(0, keepdim=True), top[None], self.zeros.sum()[None])
        index = (self.centres() / top * BINS).long().clamp_(max=BINS - 1)
        counts = torch.zeros(BINS, dtype=torch.float64).index_add_(0, index.flatten(), self.counts.flatten())
        return Histogram(counts[None], top[None], self.zeros.sum()[None])


@dataclass(frozen=True)
class Search:
    """Parameters of a search for thresholds: T for ``error``, and the fraction for ``percentile``."""

    time_steps: int
    share: float


def find_thresholds(
    graph: Graph,
    source: str,
    images: Tensor | None,
    *,
    time_steps: int,
    percentile: float = 99.9,
    per_channel: bool = True,
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """The threshold theta of every activation, by node name: float64, ``()`` or, per channel, ``(C,)``.

    Args:
        graph: the ANN's graph.
        source: "learned", or one of ``FROM_DATA``. All sources keep learned and known thresholds, except that those of ReLU6
            and other clips may be lowered by the sources that use data.
        images: normalised calibration images ``(N, ...)``; needed by all sources but "learned".
        time_steps: T, for "error".
        percentile: in per cent, for "percentile".
        per_channel: whether thresholds found from data are per channel.
        progress: called after every batch.

    Raises:
        InputError: for a source that the network or the arguments do not allow.
    """
    check_source(source, percentile)
    found = {node.name: node.tensors["threshold"] for node in graph.of_kind("activation") if "threshold" in node.tensors}
    seek = [
        node
        for node in graph.of_kind("activation")
        if node.settings["function"] == "relu" or (node.settings["function"] == "clip" and source != LEARNED)
    ]
    if source == LEARNED and seek:
        raise InputError(
            f"{seek[0].name} is a ReLU, which has no learned threshold: give calibration images and thresholds='error' "
            "(or 'percentile' or 'max'), or train with QCFS or LSQ activations."
        )
    if not seek:
        return found
    if images is None or len(images) == 0:
        raise InputError(f"thresholds={source!r} needs calibration images: give some.")
    wanted = Search(time_steps, percentile / 100)
    for name, histogram in _histograms(graph, images, seek, progress):
        histogram = histogram if per_channel else histogram.merged()
        theta = FROM_DATA[source](histogram, wanted)
        theta = theta if per_channel else theta[0]
        # Almost any threshold works for a channel that hardly fires, but a tiny one makes weights huge and rounding coarse.
        alive = theta[theta > 0]
        usual = float(alive.median()) if alive.numel() else float(histogram.top.max()) or 1.0
        theta = torch.where(theta > 0, theta.clamp_min(LEAST * usual), torch.full_like(theta, usual))
        found[name] = torch.minimum(theta, found[name]) if name in found else theta
    return found


def check_source(source: str, percentile: float) -> None:
    """Raise ``InputError`` for an unknown source of thresholds, or a percentile out of range."""
    one_of("thresholds", source, SOURCES)
    if not 50 <= percentile <= 100:
        raise InputError(f"percentile={percentile}: give a number from 50 to 100, in per cent, such as 99.9.")


def _histograms(graph: Graph, images: Tensor, seek: list[Node], progress: Progress) -> Iterator[tuple[str, Histogram]]:
    """Histograms from two passes over the images: one for the largest activations, one for the counts.

    Counts are whole numbers, so that the batches make no difference to the sums.
    """
    plain = prepared(graph, torch.float32, images.device)
    names = {node.name for node in seek}
    chosen = {node.name: spread(prod(node.shape[1:]), COUNTED // len(images)) for node in seek}
    top: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    zeros: dict[str, Tensor] = {}

    def largest(node: Node, value: Tensor) -> None:
        if node.name in names:
            seen = value.transpose(0, 1).flatten(1).amax(1).double().cpu()
            top[node.name] = torch.maximum(top[node.name], seen) if node.name in top else seen

    def count(node: Node, value: Tensor) -> None:
        if node.name not in names:
            return
        channels = at(value, chosen[node.name]).transpose(0, 1).flatten(1)
        scale = BINS / top[node.name].clamp_min(1e-30).to(value.device, torch.float32)
        index = (channels * scale[:, None]).long().clamp_(max=BINS - 1)
        index += torch.arange(len(channels), device=value.device)[:, None] * BINS
        seen = torch.bincount(index[channels > 0], minlength=len(channels) * BINS).to("cpu", torch.int32).view(-1, BINS)
        counts[node.name] = counts[node.name].add_(seen) if node.name in counts else seen
        zeros[node.name] = zeros.get(node.name, 0) + (channels <= 0).sum(1).double().cpu()

    at_a_time = max(1, min(BATCH, ELEMENTS // max(prod(node.shape) for node in graph.nodes)))
    batches = images.split(at_a_time)
    done = 0
    for look in (largest, count):
        for batch in batches:
            run(plain, batch.float(), look)
            done += 1
            progress(done, 2 * len(batches), "finding thresholds")
    for name in top:
        yield name, Histogram(counts.pop(name).double(), top[name], zeros[name])


def _largest(histogram: Histogram, wanted: Search) -> Tensor:
    return histogram.top


def _percentile(histogram: Histogram, wanted: Search) -> Tensor:
    """The percentile of all activations, zeros included, interpolated linearly within a bin."""
    rank = wanted.share * (histogram.counts.sum(1) + histogram.zeros)
    reached = histogram.counts.cumsum(1) + histogram.zeros[:, None]
    first = (reached >= rank[:, None]).to(torch.int8).argmax(1)[:, None]
    inside = histogram.counts.gather(1, first)
    part = 1 - (reached.gather(1, first) - rank[:, None]) / inside.clamp_min(1)
    theta: Tensor = histogram.top * (first + part.clamp(0, 1))[:, 0] / BINS
    return theta


def _least_error(histogram: Histogram, wanted: Search) -> Tensor:
    """The candidate with the least squared error after quantisation to T levels."""
    # In units of the largest activation the bins of all channels are the same, so their errors are too.
    x = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    step = FRACTIONS[:, None] / wanted.time_steps
    errors = (x - step * torch.floor(x / step + 0.5).clamp(0, wanted.time_steps)).square_()
    best = (histogram.counts @ errors.T).argmin(1)
    return histogram.top.clamp_min(0) * FRACTIONS[best]


LEARNED = "learned"
FROM_DATA: Mapping[str, Callable[[Histogram, Search], Tensor]] = {
    "max": _largest,
    "percentile": _percentile,
    "error": _least_error,
}
"""Sources that use calibration images: functions from a histogram to the threshold of each channel, ``(C,)`` float64."""
SOURCES = (LEARNED, *FROM_DATA)
