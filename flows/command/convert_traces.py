"""The traces of a converted network on the calibration and test images of a data set, for ``dynconf convert --traces``."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynconf_core.data.images import Normalisation
from dynconf_core.progress import Progress
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.traces.schema import Traces

SPLITS = ("calibration", "test")


def write_traces(
    snn: SpikingNetwork,
    network: Any,
    load: Callable[[str], Any],
    normalisation: Normalisation,
    out: Path,
    time_steps: int,
    *,
    device: Any,
    memory: int | None,
    facts: dict[str, Any],
    progress: Callable[[str], Progress],
) -> dict[str, dict[str, Any]]:
    """Simulate both splits and write ``out/calibration.npz`` and ``out/test.npz``.

    Whether the network was trained on the calibration images is not known, so that ``meta`` does not say it.

    Args:
        snn: the converted network.
        network: that it was made of.
        load: gives the images of a split.
        normalisation: what the network expects.
        out: a folder, made where missing.
        time_steps: T.
        device: where to simulate.
        memory: bytes that the simulation may take on a CPU, None for no bound.
        facts: for ``meta``.
        progress: gives, for a split, what is told of every batch.

    Returns:
        by split: ``file``, ``samples``, ``ann_accuracy``, ``reference_accuracy``, ``accuracy_at_t``.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for split in SPLITS:
        images = replace(load(split), normalisation=normalisation)
        with tempfile.TemporaryDirectory(dir=out, prefix=".traces-") as folder:
            meta = {**facts, "split": split}
            traces = collect(
                snn,
                network,
                images,
                time_steps,
                Path(folder),
                device=device,
                memory=memory,
                facts=meta,
                progress=progress(split),
            )
            target = traces.save(out / f"{split}.npz")
            written[split] = {"file": str(target), "samples": traces.samples, **accuracies(traces)}
    return written


def accuracies(traces: Traces) -> dict[str, Any]:
    """``ann_accuracy`` and ``reference_accuracy`` where the traces hold them, and ``accuracy_at_t``; fractions."""
    found: dict[str, Any] = {}
    for name, logits in (("ann_accuracy", traces.ann_logits), ("reference_accuracy", traces.reference_logits)):
        if logits is not None:
            found[name] = float((logits.argmax(axis=1) == traces.labels).mean())
    return {**found, "accuracy_at_t": traces.correct().mean(axis=0).tolist()}
