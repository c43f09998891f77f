"""Rounding to fixed point: how much it may change what a network tells apart, what is measured of it, and what is said."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.report import conversion_report
from dynconf_core.errors import InputError
from dynconf_core.simulation.exactness import check_exactness, plain_arithmetic
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_logits

OPTIONS: dict[str, Any] = {"thresholds": "error", "time_steps": 32, "neurons": "signed", "levels": 20}


class Averaged(nn.Module):
    """Two convolutions, and their mean before the last layer: of the second, of both added, or behind a third convolution."""

    def __init__(self, form: str, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.fire, self.fire_too = form, activation(), activation()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Linear(16, 10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        a = self.fire(self.first(x))
        b = self.fire_too(self.second(a))
        if self.form == "convolution":
            b = self.second(a + b).relu()
        found: Tensor = self.last((a + b if self.form == "sum" else b).mean((2, 3)))
        return found


def noise(side: int, count: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def change(network: nn.Module, images: Tensor, **options: Any) -> tuple[float, SpikingNetwork]:
    """By how much rounding changes the settled logits, as a share of their spread over the images; and the rounded SNN."""
    snn = convert(network, images, **{**OPTIONS, **options})
    plain = reference_logits(convert(network, images, **{**OPTIONS, **options}, fixed_point=False), images)
    return float((reference_logits(snn, images) - plain).norm() / (plain - plain.mean(0)).norm()), snn


@pytest.mark.parametrize(
    ("form", "side", "wide", "most"),
    [
        ("last", 32, "last", 0.02),
        ("sum", 8, "last", 0.02),
        ("convolution", 32, "second#2", 0.1),
        ("convolution", 8, "second#2", 0.02),
    ],
)
def test_equal_errors_do_not_add_up_in_a_mean(form: str, side: int, wide: str, most: float) -> None:
    """Weights on float32's grid changed the logits of these networks by 8 to 96 % of their spread: float64 sums hold finer
    ones, exactly."""
    found, snn = change(Averaged(form), noise(side))
    assert found < 0.12
    assert wide in snn.facts["wide"]
    assert snn.facts["rounding"]["logits"] < most and "warning" not in snn.facts["rounding"]
    with plain_arithmetic():
        check_exactness(snn, 2)
    batch = noise(side, 3)
    assert torch.equal(torch.cat([snn(one, 4) for one in batch.split([1, 2])]), snn(batch, 4))


def test_what_float32_represents_finely_keeps_it() -> None:
    found, snn = change(Averaged("last"), noise(8))
    assert "wide" not in snn.facts and found < 0.1
    assert snn.facts["rounding"]["logits"] < 0.02


def test_the_weights_alone_say_it_of_learned_thresholds() -> None:
    """A single image, or many, give the same network."""
    one, many = (
        convert(Averaged("last", lambda: QCFS(4, 1.0)), noise(64, count), image_limit=1.0, time_steps=32)  # type: ignore[arg-type]
        for count in (1, 8)
    )
    assert one.facts["wide"] == many.facts["wide"] == ["last"]
    assert "rounding" not in one.facts and many.facts["rounding"]["logits"] < 0.02
    assert all(torch.equal(value, many.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_measured_errors_are_those_of_the_weights() -> None:
    """Of the last layer, whose inputs are the same with and without its own rounding; the images are not tried one by one."""
    images, network = noise(8, 40), Averaged("last")
    snn, plain = convert(network, images, **OPTIONS), convert(network, images, **OPTIONS, fixed_point=False)
    wrong = snn.tensors()["last"]["weight"].double() - plain.tensors()["last"]["weight"].double()
    bias = snn.tensors()["last"]["bias"].double() - plain.tensors()["last"]["bias"].double()
    theta = {name: plain.tensors()[name]["threshold"].double().view(1, -1, 1, 1) for name in ("fire", "fire_too")}
    with torch.no_grad():
        network.double()
        a = torch.minimum(network.first(images[:32].double()).relu(), theta["fire"])
        b = torch.minimum(network.second(a).relu(), theta["fire_too"])
        counts = (b / theta["fire_too"] * 20).sum((2, 3))
        errors = counts @ wrong.T + 20 * bias
        logits = 20 * network.last(b.mean((2, 3)))
    expected = errors.square().mean().sqrt() / logits.var(0, unbiased=False).mean().sqrt()
    found = snn.facts["rounding"]
    assert found["images"] == 32
    assert found["layers"]["last"] == pytest.approx(float(expected), rel=2e-2)


def test_few_bits_are_no_reason_for_float64_but_for_a_warning() -> None:
    """Where the bits of a weight limit its fineness, wider sums would not help."""
    images = noise(8)
    snn = convert(Averaged("last"), images, **OPTIONS, weight_bits=4)
    found = snn.facts["rounding"]
    assert "wide" not in snn.facts and found["logits"] > 0.1
    assert found["warning"].startswith(f"rounding the weights to fixed point changes the logits by {found['logits']:.0%} of")
    assert found["worst"] in found["warning"] and "--no-fixed-point" in found["warning"]
    report = conversion_report(snn, Averaged("last"), images, 8)
    assert report.rounding == found
    assert f"Rounding the weights changes the logits by {found['logits']:.1%} of their standard deviation" in str(report)
    unrounded = convert(Averaged("last"), images, **OPTIONS, fixed_point=False)
    assert conversion_report(unrounded, Averaged("last"), images, 8).rounding is None


def test_images_that_rounding_changes_call_for_a_warning() -> None:
    """Images far smaller than a normalised one lose their digits, and no place for weights helps."""
    snn = convert(Averaged("last"), noise(8) / 64, **OPTIONS)
    found = snn.facts["rounding"]
    assert found["worst"] == "input.round" and "input.round most" in found["warning"]


def test_images_without_differences_say_nothing() -> None:
    snn = convert(Averaged("last"), noise(8)[:1].expand(16, -1, -1, -1).clone(), **OPTIONS)
    found = snn.facts["rounding"]
    assert found["logits"] == 0.0 and math.isfinite(max(found["layers"].values())) and "warning" not in found


def test_weights_that_float64_cannot_represent_finely_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are places enough for the proof, but the weights are small beside the bounds."""

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("calibrated")

    monkeypatch.setattr("dynconf_core.conversion.convert.corrected", never)
    torch.manual_seed(0)
    chain = [nn.Linear(64, 64) for _ in range(5)]
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), *chain, nn.ReLU(), nn.Linear(64, 3)).eval()
    with pytest.raises(InputError, match=r"binary places that .* by \d+\.\d%, and at most (5|25)% .* Convert with fixed_p"):
        convert(network, torch.randn(16, 8), **{**OPTIONS, "correct": True, "time_steps": 32})
