"""A full disk: whatever is written is named, nothing is left half written, and what was there before stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from result_cases import run_result, setting_result
from spiking_cases import RandomNetwork, gaussian_images

from dynconf_core.confidence.smoothing import PLAIN
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import save_snn
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.exit.front import exact_front, write_front
from dynconf_core.exit.rule import Rule
from dynconf_core.failing import failing
from dynconf_core.files import NotWritten
from dynconf_core.networks.checkpoint import save_checkpoint
from dynconf_core.results.files import write_over_seeds, write_results
from dynconf_core.simulation.collect import collect
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import stage_key
from dynconf_core.traces.schema import Traces

RUN = run_result(setting_result("one"))


def full(name: str) -> None:
    if name == "file.written":
        raise OSError(errno.ENOSPC, "No space left on device")


def some_traces() -> Traces:
    chance = np.random.default_rng(0)
    return Traces(chance.normal(size=(40, 4, 3)).astype(np.float32), chance.integers(0, 3, 40))


def front(path: Path) -> None:
    traces = some_traces()
    write_front(exact_front(Rule("gap", PLAIN, 1.0).scores(traces), traces.correct()), path)


def snn() -> Any:
    return convert(RandomNetwork(2, "qcfs", dyadic=False), gaussian_images(2, 0), time_steps=4)


WRITERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "results": (lambda folder: write_results(folder, RUN), "results.json"),
    "over seeds": (lambda folder: write_over_seeds(folder, [RUN, RUN]), "over_seeds.json"),
    "rule": (lambda folder: Rule("gap", PLAIN, 1.0).save(folder / "rule.json"), "rule.json"),
    "front": (lambda folder: front(folder / "front.csv"), "front.csv"),
    "traces": (lambda folder: some_traces().save(folder / "a.npz"), "a.npz"),
    "traces as a folder": (lambda folder: some_traces().save(folder / "a"), "a"),
    "checkpoint": (lambda folder: save_checkpoint(RandomNetwork(2, "qcfs"), {}, folder / "a.pt"), "a.pt"),
    "SNN": (lambda folder: save_snn(snn(), folder / "snn.pt"), "snn.pt"),
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_named_and_not_half_written(tmp_path: Path, name: str) -> None:
    write, file = WRITERS[name]
    with failing(full), pytest.raises(NotWritten, match=rf"{file} cannot be written \(no space left on device\): free some"):
        write(tmp_path)
    assert not files(tmp_path)
    write(tmp_path)
    assert any(found.endswith(file) or f"{file}/" in found for found in files(tmp_path))
    if name != "traces as a folder":  # which is not overwritten anyway
        before = files(tmp_path)
        with failing(full), pytest.raises(NotWritten):
            write(tmp_path)
        assert files(tmp_path) == before


@pytest.mark.parametrize("error", [OSError("2000000 requested and 262128 written"), RuntimeError("unexpected pos 576 vs 534")])
def test_an_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """numpy and torch do not say that the disk is full; it has room again as soon as the artefact is removed."""
    store, key = Store(tmp_path / "artefacts"), stage_key("collect", {}, {}, "code")

    def usage(path: Any) -> os.statvfs_result:
        taken = sum(len(content) for content in files(tmp_path).values())
        free = 10 if taken > 10_000 else 10**6
        return os.statvfs_result((4096, 4096, 10**6, free, free, 10, 10, 10, 0, 255))

    monkeypatch.setattr(os, "statvfs", usage)
    full_disk = pytest.raises(NotWritten, match=r"artefacts/collect cannot be written \(no space left on device\)")
    with full_disk, store.create(key, {}) as folder:
        (folder / "logits.npy").write_bytes(bytes(20_000))
        raise error
    assert store.get(key) is None and not files(tmp_path)
    with pytest.raises(ZeroDivisionError), store.create(key, {}):
        raise ZeroDivisionError
    with (made := store.create(key, {})) as folder:
        (folder / "logits.npy").write_bytes(bytes(20_000))
    assert store.get(key) == made.created


def test_collected_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is taken before the first image: a write to a map on a full disk would end the process."""

    def refuse(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    pixels, half = (gaussian_images(4, 0).clamp(-1, 1) * 127 + 128).to(torch.uint8), (0.5, 0.5, 0.5)
    images = TensorImages(pixels, torch.zeros(4, dtype=torch.int64), 5, Normalisation(half, half))
    with pytest.raises(NotWritten, match=r"logits\.npy cannot be written \(no space left on device\)"):
        collect(snn(), None, images, 4, out=tmp_path)
