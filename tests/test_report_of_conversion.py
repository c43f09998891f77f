"""The conversion report: its figures by a second, plain simulation, and that it finds the layer that was spoilt."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from spiking_cases import gaussian_images
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.conversion import report
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.conversion.report import conversion_report, images_for_report
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Node
from dynconf_core.simulation.network import SpikingNetwork

IMAGES = gaussian_images(24, 3)
TIME_STEPS = 8


class Small(nn.Module):
    """Three layers of ReLU, a way round the second, and a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.hidden, self.round, self.head = nn.Linear(8 * 16, 12), nn.Linear(6 * 64, 12), nn.Linear(12, 5)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        one = self.relu1(self.first(x))
        two = self.relu2(self.second(one))
        result: Tensor = self.head(self.relu3(self.hidden(two.flatten(1)) + self.round(one.flatten(1))))
        return result

    def activations(self, x: Tensor, replaced: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All three, after those in whose place others are put."""
        given = replaced or {}
        one = given.get("relu1", self.first(x).relu())
        two = given.get("relu2", self.second(one).relu())
        return {"relu1": one, "relu2": two, "relu3": (self.hidden(two.flatten(1)) + self.round(one.flatten(1))).relu()}


@pytest.fixture
def ann() -> Small:
    return Small().eval()


def converted(ann: nn.Module, neurons: str = "integrate-and-fire", fixed_point: bool = True) -> SpikingNetwork:
    levels = 7 if neurons == "signed" else None
    options = ConversionOptions("max", TIME_STEPS, neurons, levels, fixed_point=fixed_point)
    return convert(ann, IMAGES, options)


@pytest.mark.parametrize("neurons", ["integrate-and-fire", "signed"])
@torch.no_grad()
def test_every_figure_by_a_plain_simulation(ann: Small, neurons: str) -> None:
    snn = converted(ann, neurons)
    predictions = ann(IMAGES).argmax(1)
    labels = predictions.clone()
    labels[::3] = (labels[::3] + 1) % 5
    report = conversion_report(snn, ann, IMAGES, TIME_STEPS, labels)
    assert (report.time_steps, report.images, report.marks) == (8, 24, [2, 4, 8])
    assert report.ann_accuracy == pytest.approx(float((predictions == labels).float().mean()))

    counts = {name: 0 for name in ("relu1", "relu2", "relu3")}
    emitted = dict.fromkeys(counts, 0.0)
    errors: dict[str, list[float]] = {name: [] for name in counts}
    input_current, state, total = snn.input_current(IMAGES), None, 0
    means: dict[str, Tensor] = {}
    for step in range(1, TIME_STEPS + 1):

        def look(node: Node, spikes: Tensor) -> None:
            if node.kind == "neurons":
                counts[node.name] = counts[node.name] + spikes.double()
                emitted[node.name] += float(spikes.abs().double().mean())

        taken = snn.step(input_current, state, step, look)
        state, total = taken.state, total + taken.logits
        if step in report.marks:
            acting = min(step, 7) if neurons == "signed" else step
            for name, activation in ann.activations(IMAGES).items():
                theta = snn.tensors()[name]["threshold"].double()
                theta = theta.view(-1, 1, 1) if activation.ndim == 4 and theta.ndim else theta
                means[name] = theta * counts[name] / acting
                errors[name].append(float((means[name] - activation).norm() / activation.norm()))

    assert [layer.name for layer in report.layers] == list(counts)
    for layer in report.layers:
        name = layer.name
        assert layer.neurons == {"relu1": 6 * 64, "relu2": 8 * 16, "relu3": 12}[name]
        assert layer.rate == pytest.approx(emitted[name] / TIME_STEPS, rel=1e-5)
        assert layer.error == pytest.approx(errors[name], rel=1e-4)
        assert layer.error[-1] < layer.error[0]
        replaced = {earlier: means[earlier].float() for earlier in list(counts)[: list(counts).index(name) + 1]}
        last = replaced.get("relu3", ann.activations(IMAGES, replaced)["relu3"])
        kept = ann.head(last).argmax(1)
        assert layer.agreement == pytest.approx(float((kept == predictions).float().mean()))
        assert layer.accuracy == pytest.approx(float((kept == labels).float().mean()))
        theta = snn.tensors()[name]["threshold"]
        expected = {"least": float(theta.min()), "mean": float(theta.mean()), "most": float(theta.max())}
        assert layer.threshold == pytest.approx(expected)
    assert report.agreement == pytest.approx(float((total.argmax(1) == predictions).float().mean()))
    assert report.snn_accuracy == pytest.approx(float((total.argmax(1) == labels).float().mean()))
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == report.to_json()


def test_a_settled_network_has_no_error() -> None:
    """Signed neurons after LSQ, given time, send exactly the quantised activations."""
    torch.manual_seed(1)
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), LSQ(2), nn.Flatten(), nn.Linear(4 * 36, 8), LSQ(2), nn.Linear(8, 5)).eval()
    with torch.no_grad():
        for module in (ann[1], ann[4]):
            module.step.fill_(0.3)
    snn = convert(ann, IMAGES, time_steps=16, fixed_point=False)
    report = conversion_report(snn, ann, IMAGES, 16)
    assert [layer.error[-1] for layer in report.layers] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert all(layer.rate > 0.01 for layer in report.layers)
    assert report.agreement == 1.0 and report.worst_layer is None and report.first_layer is None
    assert report.ann_accuracy is report.snn_accuracy is report.layers[0].accuracy is None
    assert not any("*" in line for line in str(report).splitlines())


@pytest.mark.parametrize("spoilt", ["first", "second", "hidden"])
def test_the_layer_that_was_spoilt_is_named(ann: Small, spoilt: str) -> None:
    snn = converted(ann, "signed", fixed_point=False)
    with torch.no_grad():
        for name in ("weight", "bias"):
            snn.tensors()[spoilt][name].neg_()
    report = conversion_report(snn, ann, IMAGES, TIME_STEPS)
    broken = {"first": "relu1", "second": "relu2", "hidden": "relu3"}[spoilt]
    assert report.worst_layer == broken
    first = next(layer.name for layer in report.layers if layer.agreement < 1)
    assert report.first_layer == first and f"falls first at {first}, and most at {broken}." in str(report)
    (line,) = (line for line in str(report).splitlines() if line.endswith("%*"))
    assert line.startswith(broken)
    assert any("* the largest drop" in line for line in str(report).splitlines())


def test_lines_fit_a_terminal(ann: Small) -> None:
    report = conversion_report(converted(ann), ann, IMAGES, TIME_STEPS, torch.zeros(24, dtype=torch.long))
    lines = str(report).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0].split() == ["layer", "neurons", "threshold", "rate", "err@2", "err@4", "err@8", "agrees"]
    assert "24 images" in lines[-1] and "T = 8" in lines[-1] and "(ANN)" in lines[-1]
    first = replace(report.layers[0], name="backbone." * 8 + "activation")
    long = str(replace(report, layers=[first, *report.layers[1:]])).splitlines()
    assert max(map(len, long[1:4])) <= 90
    assert any(line.startswith("...") and "activation" in line for line in long)


def test_columns_stand_apart_whatever_is_in_them(ann: Small) -> None:
    """Errors of many thousand per cent, millions of neurons, thresholds of any size, long names: every line has its cells."""
    found = conversion_report(converted(ann), ann, IMAGES, TIME_STEPS)
    span = {"least": 1.234e-30, "mean": 1.0, "most": 9.87e29}
    huge = replace(
        found.layers[0], neurons=123_456_789, threshold=span, rate=12345.678, error=[1e9, 123.45, 0.5], agreement=1.0
    )
    one = {"least": 2.0, "mean": 2.0, "most": 2.0}
    plain = replace(found.layers[1], name="x" * 60, threshold=one, levels=1023)
    many = replace(found, marks=[64, 128, 1000000], layers=[huge, plain])
    heading, first, second = (line.split() for line in str(many).splitlines()[:3])
    assert heading == ["layer", "neurons", "levels", "threshold", "rate", "err@64", "err@128", "err@1000000", "agrees"]
    assert first[1:7] == ["123456789", "-", "1.2e-30", "to", "9.9e+29", "12345.68"] and first[7:9] == [
        "100000000000.0%",
        "12345.0%",
    ]
    assert second[:4] == ["..." + "x" * 25, str(plain.neurons), "1023", "2"] and len(first) == 11 and len(second) == 9
    ends = {line.rstrip("*").rindex("%") for line in str(many).splitlines()[1:3]}
    assert len(ends) == 1, "aligned"


@pytest.mark.parametrize("images", [70, 24])
def test_batches_make_no_difference(ann: Small, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images at a time as all at once; and a large network's report has 64 images all the same."""
    snn, pictures = converted(ann, "signed"), gaussian_images(images, 4)
    labels = torch.arange(images) % 5
    at_once = conversion_report(snn, ann, pictures, TIME_STEPS, labels)
    neurons = sum(layer.neurons for layer in at_once.layers)
    monkeypatch.setattr(report, "AT_A_TIME", 2 * neurons)
    seen: list[tuple[int, int]] = []
    in_twos = conversion_report(snn, ann, pictures, TIME_STEPS, labels, progress=lambda done, of, _: seen.append((done, of)))
    assert seen == [(done, images // 2) for done in range(1, images // 2 + 1)]
    assert (in_twos.agreement, in_twos.snn_accuracy, in_twos.worst_layer, in_twos.images) == (
        at_once.agreement, at_once.snn_accuracy, at_once.worst_layer, images
    )  # fmt: skip
    for one, other in zip(in_twos.layers, at_once.layers, strict=True):
        assert (one.agreement, one.accuracy, one.rate) == (other.agreement, other.accuracy, other.rate)
        assert one.error == pytest.approx(other.error, rel=1e-6)
    monkeypatch.setattr(report, "NEURONS", 1)
    assert (images_for_report(snn, 256), images_for_report(snn, 10)) == (64, 10)


def test_what_does_not_fit_is_said(ann: Small) -> None:
    snn = converted(ann)
    with pytest.raises(InputError, match="labels=3 for 24 images"):
        conversion_report(snn, ann, IMAGES, TIME_STEPS, torch.zeros(3, dtype=torch.long))
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    with pytest.raises(InputError, match="another network"):
        conversion_report(snn, other, IMAGES, TIME_STEPS)
