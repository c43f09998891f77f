"""The traces of a converted network on calibration and test images, for ``dynconf convert --traces``."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.data.images import Images, Normalisation, Split
from dynconf_core.progress import Progress
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.traces.schema import Traces

SPLITS: tuple[Split, ...] = ("calibration", "test")
SEED = 0
"""Of the choice of images under a limit."""


@dataclass(frozen=True)
class Drawn:
    """Some of the images of a split; see ``dynconf_core.data.images.Images``."""

    images: Images
    indices: Tensor

    @classmethod
    def of(cls, images: Images, count: int) -> "Drawn":
        """A fixed random choice of ``count`` images, in their order."""
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))[:count]
        return cls(images, chosen.sort().values)

    @property
    def labels(self) -> Tensor:
        """The classes ``(count,)``."""
        return self.images.labels[self.indices]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.images.classes

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of the network's input."""
        return self.images.normalisation

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor, crops: torch.Generator | None = None) -> Tensor:
        """The pixels of ``indices`` among the chosen."""
        return self.images.batch(self.indices[indices], crops)

    def to(self, device: torch.device) -> "Drawn":
        """The same images, with the pixels on ``device`` if they are held in memory."""
        return Drawn(self.images.to(device), self.indices)


@dataclass(frozen=True, kw_only=True)
class WrittenTraces:
    """A file of traces and its accuracies, fractions.

    Attributes:
        file: the path of the file.
        samples: the number of samples N.
        ann_accuracy, reference_accuracy: None if the traces hold no such logits.
        accuracy_at_t: accuracy of the SNN after each time step, ``(T,)``.
    """

    file: str
    samples: int
    ann_accuracy: float | None = None
    reference_accuracy: float | None = None
    accuracy_at_t: tuple[float, ...]

    def summary(self, split: str) -> str:
        """One line: the accuracies of the ANN, and of the SNN after some numbers of time steps."""
        time_steps = len(self.accuracy_at_t)
        marks = sorted({max(1, time_steps // part) for part in (8, 4, 2, 1)})
        curve = ", ".join(f"{100 * self.accuracy_at_t[mark - 1]:.2f} @ {mark}" for mark in marks)
        ann = "" if self.ann_accuracy is None else f"ANN {100 * self.ann_accuracy:.2f} %, "
        return f"{self.file}: {self.samples} {split} images, {ann}SNN {curve}"


def write_traces(
    snn: SpikingNetwork,
    ann: nn.Module,
    load: Callable[[Split], Images],
    out: Path,
    time_steps: int,
    *,
    limit: int | None = None,
    memory: int | None,
    facts: Mapping[str, Any],
    progress: Callable[[str], Progress],
) -> dict[str, WrittenTraces]:
    """Simulate both splits and write ``out/calibration.npz`` and ``out/test.npz``.

    It is unknown whether the network was trained on the calibration images, so ``meta`` does not say.

    Args:
        snn: the converted network, on the device to simulate on.
        ann: the network from which it was converted.
        load: loads a split, normalised as the network expects.
        out: the folder, created if missing.
        time_steps: T.
        limit: the most images of a split, drawn by a fixed seed and kept in their order; None: all.
        memory: bytes that the simulation may use on a CPU; None sets no limit.
        facts: entries for ``meta``.
        progress: gives the progress callback of a split.

    Returns:
        the written traces by split.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for split in SPLITS:
        images, entries = load(split), dict[str, Any]()
        if limit is not None and limit < len(images):
            entries = {"drawn": {"images": limit, "of": len(images), "seed": SEED}}
            images = Drawn.of(images, limit)
        with tempfile.TemporaryDirectory(dir=out, prefix=".traces-") as folder:
            traces = collect(
                snn,
                ann,
                images,
                time_steps,
                Path(folder),
                device=snn.device,
                memory=memory,
                facts={**facts, **entries, "split": split},
                progress=progress(split),
            )
            written[split] = WrittenTraces(
                file=str(traces.save(out / f"{split}.npz")),
                samples=traces.samples,
                ann_accuracy=_accuracy(traces, traces.ann_logits),
                reference_accuracy=_accuracy(traces, traces.reference_logits),
                accuracy_at_t=tuple(traces.correct().mean(axis=0).tolist()),
            )
    return dict(written)


def _accuracy(traces: Traces, logits: Any) -> float | None:
    return None if logits is None else float((logits.argmax(axis=1) == traces.labels).mean())
