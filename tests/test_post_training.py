"""The setting of a network that somebody has trained: its conversion on real weights and images, where they are here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynconf_core.conversion.convert import convert
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.request import Request, check_checkpoints
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described

ROOT = Path(__file__).resolve().parent.parent
NAME = "cifar10-resnet20-post-training"
WEIGHTS = "resnet20-12fca82f.th"


def places(name: str) -> list[Path]:
    """Where ``name`` may lie beside the checkout."""
    named = [Path(os.environ["DYNCONF_DATA"])] if os.environ.get("DYNCONF_DATA") else []
    folders = (*named, *ROOT.glob(".dynconf/data"), *ROOT.parent.glob("*/data"), *ROOT.parent.glob("*/weights"))
    return [folder for folder in folders if (folder / name).exists()]


def test_the_setting_takes_such_weights_and_no_others(tmp_path: Path) -> None:
    """Made at random: whether names and shapes fit is seen before anything is started."""
    asked = Request(profile="quick", settings=(NAME,), checkpoints={NAME: str(tmp_path / "net.th")})
    torch.save({"state_dict": described(resolve(NAME, "quick").network(), 3).state_dict()}, tmp_path / "net.th")
    (plan,) = asked.plans()
    check_checkpoints([plan], asked.checkpoints)
    narrow = replace(plan, width=0.5)
    with pytest.raises(ValueError, match="does not fit the network"):
        check_checkpoints([narrow], {NAME: str(tmp_path / "net.th")})


def test_published_weights_keep_their_accuracy() -> None:
    """He et al.'s ResNet-20 has 91.25 % of CIFAR-10 (table 6); of 200 test images the SNN at T = 32 loses few.

    256 images choose its thresholds, a quarter of what the setting takes.
    """
    weights, data = places(WEIGHTS), places("cifar-10-batches-bin")
    if not weights or not data:
        pytest.skip(f"{WEIGHTS} or CIFAR-10 is not here: name the data with DYNCONF_DATA")
    plan = resolve(NAME, "paper")
    ann = described(plan.network(), 0)
    load_checkpoint(ann, weights[0] / WEIGHTS)
    ann.eval()
    held, test = (images_of(plan.data, split, data[0]) for split in ("calibration", "test"))
    seen = torch.arange(256)
    snn = convert(
        ann,
        held.normalisation(held.batch(seen)),
        **plan.scheme.conversion(plan.time_steps),
        time_steps=plan.time_steps,
        image_limit=held.normalisation.limit(),
    )
    some = torch.arange(200)
    pixels, labels = test.normalisation(test.batch(some)), test.labels[some]
    with torch.inference_mode():
        as_trained = float((ann(pixels).argmax(1) == labels).float().mean())
        spiking = float((snn(pixels, plan.time_steps).sum(1).argmax(1) == labels).float().mean())
    assert as_trained > 0.89 and spiking > as_trained - 0.03
