"""Networks given by a function, and what every converted one has to fulfil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from second_simulation import exact_run
from torch import Tensor, nn

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_counts


class Applied(nn.Module):
    """``function(modules, x)``."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Any:
        return self.function(self.parts, x)


def kinds(snn: SpikingNetwork) -> list[str]:
    return [node.kind for node in snn.graph.nodes]


def settles_exactly(network: nn.Module, images: Tensor, time_steps: int, folder: Path, **options: Any) -> SpikingNetwork:
    """Converts with signed neurons; the SNN is the same in float64, in several steps at once and from a file, and its sum of
    logits that of the quantised network, all to the bit."""
    options = {"thresholds": "error", "neurons": "signed", "levels": 7, **options}
    snn = convert(network, images, time_steps=time_steps, **options)
    logits = snn(images, time_steps)
    assert torch.equal(exact_run(snn, images, time_steps), logits.double().mean(1))
    assert torch.equal(logits.double().sum(1), reference_counts(snn, images).double())
    save_snn(snn, folder / "snn.pt")
    assert torch.equal(load_snn(folder / "snn.pt")(images, time_steps), logits)
    return snn
