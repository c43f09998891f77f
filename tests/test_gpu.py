"""A GPU gives the traces of the CPU, bit for bit, and trains; skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from spiking_cases import lively
from training_cases import RECIPE, activation, network, pictures

from dynconf_core.conversion.convert import convert
from dynconf_core.networks.architecture import build
from dynconf_core.simulation.collect import collect
from dynconf_core.training.loop import train
from dynconf_core.training.speed import SpeedUps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("architecture", ["resnet18", "vgg16"])
@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_traces_are_those_of_the_cpu(architecture: str, method: str, tmp_path: Path) -> None:
    """With a last batch of another size, for which another algorithm may be chosen."""
    make = activation(method, levels=4, bits=2, initial_threshold=1.0)
    ann = lively(build(architecture, "cifar", classes=10, resolution=32, width=1 / 2, activation=make, seed=0), 32)
    images = pictures(count=40, side=32)
    example = images.normalisation(images.batch(torch.arange(1)))
    snn = convert(ann, example, time_steps=8, image_limit=images.normalisation.limit())
    for device in ("cuda", "cpu"):
        (tmp_path / device).mkdir()
        collect(snn, ann, images, 8, tmp_path / device, device=device, batch=32)
    for name in ("logits", "spikes", "synaptic_operations", "reference_logits"):
        here, there = (np.load(tmp_path / device / f"{name}.npy") for device in ("cpu", "cuda"))
        assert here.any() and np.array_equal(here, there), name


@pytest.mark.parametrize(
    ("method", "more"),
    [("qcfs", {}), ("qffs", {}), ("qcfs", {"compiled": True, "cuda_graphs": True})],
    ids=["qcfs", "qffs", "qcfs, graphs"],
)
def test_training(method: str, more: dict[str, bool], tmp_path: Path) -> None:
    """With channels-last and bf16; images and augmentation are those of the CPU, so the losses are about the same."""
    recipe, ups = replace(RECIPE, epochs=4), SpeedUps(channels_last=True, autocast=True, **more)
    there = train(
        network(method), pictures(), recipe, seed=0, device=torch.device("cuda"), resume=tmp_path / "r", speed_ups=ups
    )
    here = train(network(method), pictures(), recipe, seed=0, device=torch.device("cpu"), speed_ups=SpeedUps())
    assert there["losses"][0] == pytest.approx(here["losses"][0], rel=0.1)
    assert there["losses"][-1] < there["losses"][0]
