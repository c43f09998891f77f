"""Every sample through all T time steps: the SNN's traces, written as they come."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import nn

from dynconf_core.data.images import Images
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.network import SpikingNetwork, State


@torch.inference_mode()
def collect(
    snn: SpikingNetwork,
    ann: nn.Module,
    images: Images,
    time_steps: int,
    out: Path,
    *,
    device: torch.device,
    batch_size: int,
    facts: Mapping[str, Any],
    progress: Progress = silent,
) -> None:
    """Write the traces of ``images`` into the folder ``out``, in the format that ``Traces.load`` reads.

    Args:
        snn: the converted network.
        ann: the trained network, for ``ann_logits``.
        images: a split.
        time_steps: T.
        out: an empty folder; its arrays are written piece by piece, so memory holds one batch.
        device: where to simulate.
        batch_size: images at a time.
        facts: go into ``meta``, beside the layers and the number of neurons.
        progress: told of every batch.
    """
    snn.to(device).eval()
    ann.to(device).eval()
    count, classes = len(images), images.classes
    logits = open_memmap(out / "logits.npy", "w+", np.float32, (count, time_steps, classes))
    ann_logits = open_memmap(out / "ann_logits.npy", "w+", np.float32, (count, classes))
    spikes = open_memmap(out / "spikes.npy", "w+", np.int64, (count, time_steps))
    np.save(out / "labels.npy", images.labels.numpy())
    layers: dict[str, int] = {}
    batches = torch.arange(count).split(batch_size)
    for number, indices in enumerate(batches):
        batch = images.normalisation(images.batch(indices).to(device))
        rows = slice(int(indices[0]), int(indices[-1]) + 1)
        ann_logits[rows] = ann(batch).float().cpu().numpy()
        drive = snn.drive(batch)
        state: State | None = None
        for time_step in range(1, time_steps + 1):
            step = snn.step(drive, state, time_step)
            state = step.state
            logits[rows, time_step - 1] = step.logits.float().cpu().numpy()
            spikes[rows, time_step - 1] = step.spikes.cpu().numpy()
        assert state is not None
        layers = {name: layer.potential[0].numel() for name, layer in state.items()}
        progress(number + 1, len(batches), f"{rows.stop} of {count} images")
    for array in (logits, ann_logits, spikes):
        array.flush()
    meta = {
        **facts,
        "layers": layers,
        "neurons": sum(layers.values()),
        "units": "logits of the trained network",
    }
    np.save(out / "meta.npy", np.array(json.dumps(meta, sort_keys=True)))
