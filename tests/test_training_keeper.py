"""The state between two epochs, written while the next one is under way."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import CPU, RECIPE, network, pictures

from dynconf_core.networks.checkpoint import read, write_atomically
from dynconf_core.training import keeper as module
from dynconf_core.training.keeper import Keeper
from dynconf_core.training.loop import train


def test_what_is_kept_is_the_state_of_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that the next epoch changes, and losses that it adds, while the writing has not begun."""
    go = threading.Event()

    def later(content: dict[str, Any], path: Path) -> None:
        assert go.wait(10)
        write_atomically(content, path)

    monkeypatch.setattr(module, "write_atomically", later)
    state = {"network": {"weight": torch.ones(3)}, "record": {"losses": [1.0]}, "of": {"recipe": {"flags": ("a",)}}}
    with Keeper(tmp_path / "resume") as keeper:
        keeper.keep(state)
        state["network"]["weight"].add_(1)
        state["record"]["losses"].append(2.0)  # type: ignore[attr-defined]
        assert not (tmp_path / "resume").exists()
        go.set()
    found = read(tmp_path / "resume")
    assert found["network"]["weight"].tolist() == [1, 1, 1] and found["record"] == {"losses": [1.0]}
    assert found["of"] == {"recipe": {"flags": ("a",)}}


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_disk_that_is_full_is_told(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next epoch's end, or at the run's."""

    def full(content: dict[str, Any], path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError, match="no space left"):
        train(network(), pictures(), RECIPE, seed=0, device=CPU, resume=tmp_path / "resume", stop_after=epochs)


def test_the_last_state_is_on_disk_when_training_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(content: dict[str, Any], path: Path) -> None:
        threading.Event().wait(0.2)
        write_atomically(content, path)

    monkeypatch.setattr(module, "write_atomically", slow)
    record = train(network(), pictures(), RECIPE, seed=0, device=CPU, resume=tmp_path / "resume")
    assert read(tmp_path / "resume")["record"] == record
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("keeper")] == []
