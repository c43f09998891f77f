"""Simulating a split for all T time steps and recording the traces."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from dynconf_core.arguments import callback, file_path, mapping, memory_limit, one_of, tensor
from dynconf_core.data.frames import FrameSplit, checked_lengths
from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.files import naming, reserve, written
from dynconf_core.machine import device as device_called
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.counts import Counter, multiply_accumulates
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.footprint import batch_size
from dynconf_core.simulation.given import at_a_time, check_network, check_network_to_compare, check_split, first_of
from dynconf_core.simulation.input_checks import check_time_steps
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_logits
from dynconf_core.traces.schema import Traces

DTYPES = {"float16": np.float16, "float32": np.float32}


@torch.inference_mode()
def collect(
    snn: SpikingNetwork,
    ann: nn.Module | None,
    images: Images | FrameSplit,
    time_steps: int,
    out: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    memory: int | None = None,
    batch: int | None = None,
    dtype: str = "float32",
    facts: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Traces:
    """Run all ``images`` for T time steps and record their traces, in memory or in the folder ``out``.

    Args:
        snn: the converted network.
        ann: the trained network, for ``ann_logits``; with None the traces hold no such array. It sees the mean frame.
        images: the images of a split, or its frames, one for each time step (``data.frames``). A sample of frames that ends
            before T is recorded up to its end.
        time_steps: T.
        out: an empty folder to which the arrays are written batch by batch, so that memory holds one batch; None keeps
            them in memory.
        device: the device to simulate on.
        memory: bytes the process may use on a CPU, which limits the batch size; None sets no limit.
        batch: images simulated at a time; None chooses a size that suits device and memory. With fixed-point weights the
            traces do not depend on it.
        dtype: the type of the recorded logits, "float32" or "float16".
        facts: entries added to ``meta``, beside the layers, their mean spikes per time step and the multiply-accumulates.
        progress: called after every batch.

    Returns:
        the traces; traces in a folder are memory-mapped.

    Raises:
        InputError: if network, images and options do not fit together.
    """
    one_of("dtype", dtype, DTYPES)
    batch, memory = at_a_time(batch), memory_limit(memory)
    check_network(snn)
    if ann is not None:
        check_network_to_compare(ann)
    check_split(images)
    check_time_steps(time_steps, snn.time_steps_limit)
    out = None if out is None else file_path("out", out)
    facts = mapping("facts", facts)
    callback("progress", progress)
    if not len(images):
        raise InputError("the split has no images: give at least one.")
    device = device_called(device)
    snn.to(device).eval()
    if ann is not None:
        ann.to(device).eval()
    count, classes = len(images), snn.graph.output.channels
    labels = tensor("images.labels", images.labels, "give the classes (N,)")
    first = first_of(images)
    frames = first.shape[1] if snn.by_time_step(first) else 0
    lengths = checked_lengths(getattr(images, "lengths", None), count, time_steps)
    size = min(count, batch or batch_size(snn, memory, frames))
    with plain_arithmetic():
        rows_at_once = snn.pace(size, time_steps).rows
        check_exactness(snn, rows_at_once)
        snn.accelerate(rows_at_once)
        counter = Counter(snn)
        rows = _Rows(out, count, time_steps, classes, DTYPES[dtype], ann is not None, lengths)
        by_layer = {name: np.zeros((time_steps, 2)) for name in counter.weights}
        for start in range(0, count, size):
            indices = torch.arange(start, min(start + size, count))
            pixels = images.normalisation(images.batch(indices).cpu()).to(snn.device)  # a GPU divides differently
            snn.check(pixels, time_steps)
            here = slice(start, start + len(indices))
            ends = None if lengths is None else torch.from_numpy(lengths[here]).to(snn.device)
            rows.reference[here] = reference_logits(snn, pixels, time_steps, ends).float().cpu().numpy()
            if ann is not None and rows.ann is not None:
                rows.ann[here] = ann(snn.mean_frame(pixels, time_steps, ends)).float().cpu().numpy()
            _simulated(snn, pixels, time_steps, rows, here, counter, by_layer)
            progress(start // size + 1, -(-count // size), f"{here.stop} of {count} images")
    layers = {name: int(np.prod(node.shape)) for name, node in snn.layers().items()}
    meta: dict[str, Any] = {
        **facts,
        "layers": layers,
        "neurons": sum(layers.values()),
        "multiply_accumulates": multiply_accumulates(snn.graph, frames > 0),
        "mean_by_layer": {
            name: {"spikes": (sums[:, 0] / count).tolist(), "synaptic_operations": (sums[:, 1] / count).tolist()}
            for name, sums in by_layer.items()
        },
        "exact": snn.exact,
        "units": "logits of the trained network",
    }
    return rows.traces(labels.cpu().numpy(), meta)


class _Rows:
    """The arrays of the traces, in memory or memory-mapped from files in a folder."""

    def __init__(
        self,
        out: Path | None,
        count: int,
        time_steps: int,
        classes: int,
        dtype: Any,
        with_ann: bool,
        lengths: NDArray[np.int64] | None,
    ) -> None:
        def made(name: str, kind: Any, *shape: int) -> Any:
            if out is None:
                return np.empty((count, *shape), kind)
            path = out / f"{name}.npy"
            with naming(path):
                mapped = open_memmap(path, "w+", kind, (count, *shape))
            reserve(path)  # a write to a map on a full disk ends the process
            return mapped

        self.out, self.lengths = out, lengths
        self.logits = made("logits", dtype, time_steps, classes)
        self.spikes = made("spikes", np.int64, time_steps)
        self.operations = made("synaptic_operations", np.int64, time_steps)
        self.reference = made("reference_logits", np.float32, classes)
        self.ann = made("ann_logits", np.float32, classes) if with_ann else None

    def traces(self, labels: Any, meta: dict[str, Any]) -> Traces:
        """The recorded traces, checked."""
        if self.out is None:
            known = (self.ann, self.spikes, self.operations, meta, self.reference)
            return Traces(self.logits, labels, *known, lengths=self.lengths)
        for array in (self.logits, self.spikes, self.operations, self.reference, self.ann):
            if array is not None:
                array.flush()
        small = {"labels": labels, "meta": np.array(json.dumps(meta, sort_keys=True))}
        for name, array in (small if self.lengths is None else {**small, "lengths": self.lengths}).items():
            with written(self.out / f"{name}.npy") as stream:
                np.save(stream, array)
        return Traces.load(self.out)


def _simulated(
    snn: SpikingNetwork,
    pixels: Tensor,
    time_steps: int,
    rows: _Rows,
    here: slice,
    counter: Counter,
    by_layer: Mapping[str, Any],
) -> None:
    """Simulate one batch for all time steps and write its rows."""
    for images, steps, logits in snn.run(pixels, time_steps, counter):
        taken = counter.taken()
        there = slice(here.start + images.start, here.start + images.stop), slice(steps.start - 1, steps.stop - 1)

        shape = logits.shape[:2]
        ended = None if rows.lengths is None else np.arange(steps.start, steps.stop) > rows.lengths[there[0], None]
        spikes, operations = counter.totals(taken)
        rows.logits[there] = _by_sample(logits.float().flatten(0, 1), shape, ended)
        rows.spikes[there], rows.operations[there] = _by_sample(spikes, shape, ended), _by_sample(operations, shape, ended)
        for name, counts in taken.items():
            by_layer[name][there[1]] += _by_sample(counts, shape, ended).sum(0)


def _by_sample(values: Tensor, shape: tuple[int, ...], ended: NDArray[np.bool_] | None) -> Any:
    """``values (k * n, ...)`` as an array ``(n, k, ...)``; 0 where a sample has ``ended (n, k)``."""
    found = values.unflatten(0, shape).transpose(0, 1).cpu().numpy()
    if ended is not None and ended.any():
        found = found.copy()
        found[ended] = 0
    return found
