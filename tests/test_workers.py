"""How a run's worker processes share the GPUs."""

from __future__ import annotations

import pytest
import torch

from dynconf_flows.workers.pool import visible_gpus


@pytest.mark.parametrize(
    ("found", "said", "device", "count", "expected"),
    [
        (4, None, "auto", 4, ["0", "1", "2", "3"]),
        (2, "5,7", "cuda", 3, ["5", "7"]),
        (2, "GPU-a,GPU-b", "auto", 2, ["GPU-a", "GPU-b"]),
        (1, None, "auto", 2, []),
        (4, None, "cuda:1", 2, []),
        (4, None, "auto", 1, []),
        (0, None, "auto", 2, []),
    ],
)
def test_processes_share_the_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, found: int, said: str | None, device: str, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus(device, count) == expected
