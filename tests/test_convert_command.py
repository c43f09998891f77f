"""``dynconf convert``: somebody's checkpoint into an SNN file, its report, its traces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, command
from rich.status import Status

from dynconf_core.conversion.file import load_snn
from dynconf_core.data import digits
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.evaluation.analysis import analyse
from dynconf_core.networks.resnet_cifar import CifarResNet
from dynconf_core.results.records import to_json
from dynconf_core.traces.schema import Traces
from dynconf_flows.command.converted_images import normalisation_called

TEST_IMAGES = 30
OWN = "0.4,0.4,0.4/0.3,0.3,0.3"


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process; the digits are fewer."""
    for name in ("DYNCONF_HOME", "DYNCONF_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def load(root: Path, split: str, *, resolution: int, calibration: int) -> TensorImages:
        images = digits.load(root, split, resolution=resolution, calibration=calibration)
        return images.subset(torch.arange(TEST_IMAGES)) if split == "test" else images

    monkeypatch.setattr(digits, "DIGITS", replace(digits.DIGITS, load=load, calibration=40))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    return command(monkeypatch, capsys, "convert")


@pytest.fixture(scope="module")
def network() -> CifarResNet:
    """A network with the keys of the published ResNet-20, drawn at random; a quick first training keeps no layer silent."""
    torch.manual_seed(0)
    net = CifarResNet(20)
    with torch.no_grad():
        net.train()(torch.randn(64, 3, 32, 32))
    return net.eval()


@pytest.fixture(scope="module")
def checkpoint(network: CifarResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published: the names behind `module.`, under `state_dict`."""
    path = tmp_path_factory.mktemp("weights") / "resnet20.th"
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}, "best": 91.7}, path)
    return path


def asked(checkpoint: Path, *more: str | Path) -> tuple[str | Path, ...]:
    common = ("--architecture", "resnet20", "--checkpoint", checkpoint, "--dataset", "digits", "--out", "snn.pt")
    return (*common, "--time-steps", "3", "--images", "8", "--no-correct", *more)


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))


def test_a_checkpoint_becomes_an_snn_and_traces(dynconf: Command, checkpoint: Path, network: CifarResNet) -> None:
    answer = dynconf(*asked(checkpoint, "--traces", "traces/here"))
    assert (answer.code, answer.error) == (0, ""), answer
    assert {path.name for path in Path("traces/here").iterdir()} == {"calibration.npz", "test.npz"}
    snn = load_snn(Path("snn.pt"))
    assert (snn.active_steps, snn.time_steps_limit, snn.exact) == (3, 3, True)
    facts = snn.facts
    assert (facts["architecture"], facts["data"], facts["images"], facts["checkpoint"]) == (
        "resnet20",
        "digits",
        8,
        "resnet20.th",
    )
    assert facts["report"]["images"] == 8 and len(facts["report"]["layers"]) == 19

    # The file gives what the traces say, on images that this test prepares itself.
    normalisation = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # that of the published weights
    for split, count in (("calibration", 40), ("test", TEST_IMAGES)):
        traces = Traces.load(Path("traces/here") / f"{split}.npz")
        assert (traces.samples, traces.time_steps, traces.classes) == (count, 3, 10)
        assert traces.trained_on_calibration is None and "trained_on_calibration" not in traces.meta
        assert traces.meta["split"] == split and traces.meta["source"] == "dynconf convert, resnet20, resnet20.th"
        images = digits.DIGITS.load(Path("."), split, resolution=32, calibration=40)
        pixels = normalisation(images.pixels[:10])
        assert torch.equal(snn(pixels, 3), torch.from_numpy(traces.logits[:10]))
        assert traces.ann_logits is not None and traces.reference_logits is not None
        with torch.no_grad():
            assert torch.allclose(network(pixels), torch.from_numpy(traces.ann_logits[:10]), atol=1e-4)
        assert traces.labels.tolist() == images.labels.tolist()
        right = traces.correct().mean(axis=0)
        ann = float((traces.ann_logits.argmax(1) == traces.labels).mean())
        words = f"{split}.npz: {count} {split} images, ANN {100 * ann:.2f} %, SNN "
        assert words + f"{100 * right[0]:.2f} @ 1, {100 * right[2]:.2f} @ 3" in answer.out


def test_what_is_said_of_the_images_is_honest(dynconf: Command, checkpoint: Path) -> None:
    text = " ".join(dynconf(*asked(checkpoint)).out.split())
    assert "held-out" not in text
    assert "training images of digits: if resnet20.th was trained on them, both accuracies are too high" in text
    assert "layer1.0.activation1" in text and "On 8 images: after T = 3 time steps" in text


def test_json_is_all_that_is_printed_and_a_study_reads_the_traces(dynconf: Command, checkpoint: Path) -> None:
    """Under a limit, of so many images of each split, drawn by a fixed seed and in their order."""
    answer = dynconf(*asked(checkpoint, "--json", "--normalisation", OWN, "--traces", "t", "--limit", "35"))
    assert answer.code == 0
    told = strictly(answer.out)
    assert (told["schema"], told["snn"], told["thresholds"], told["neurons"]) == (2, "snn.pt", "error", "signed")
    assert told["normalisation"] == {"mean": [0.4] * 3, "std": [0.3] * 3}
    assert told["report"]["time_steps"] == 3 and len(told["traces"]["test"]["accuracy_at_t"]) == 3
    assert told["traces"]["calibration"]["samples"] == 35
    calibration, test = (Traces.load(told["traces"][split]["file"]) for split in ("calibration", "test"))
    images = digits.DIGITS.load(Path("."), "calibration", resolution=32, calibration=40)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:35].sort().values
    assert calibration.labels.tolist() == images.labels[rows].tolist()
    pixels = Normalisation((0.4,) * 3, (0.3,) * 3)(images.pixels[rows[-4:]])
    assert torch.equal(load_snn(Path("snn.pt"))(pixels, 3), torch.from_numpy(calibration.logits[-4:]))
    assert calibration.meta["drawn"] == {"images": 35, "of": 40, "seed": 0} and "drawn" not in test.meta
    record = to_json(analyse(calibration, test).record)
    assert (record["calibration"], record["test"], record["time_steps"]) == (35, TEST_IMAGES, 3)
    assert record["accuracy_at_t"]["test"] == told["traces"]["test"]["accuracy_at_t"]
    assert {"ann_accuracy", "reference_accuracy", "energy"} <= record.keys()
    assert not any("trained on" in text for text in record["warnings"])
    answer = dynconf(*asked(checkpoint, "--json"))
    assert strictly(answer.out)["traces"] is None
    answer = dynconf(*asked(checkpoint, "--limit", "5"))
    assert answer.code == 2 and "--limit 5 is of the traces: give --traces DIR" in " ".join(answer.error.split())


def test_progress_is_shown_and_memory_is_obeyed(dynconf: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While converting and while comparing; too little memory for the correction ends the command and writes nothing."""
    told: list[str] = []
    monkeypatch.setattr(Status, "update", lambda status, text: told.append(text))
    correcting = [word for word in asked(checkpoint) if word != "--no-correct"]
    assert dynconf(*correcting).code == 0
    assert sum(text.startswith("corrected layer") for text in told) == 18
    assert "corrected layer1.0.activation1 (2 of 19)" in told and any(
        "comparing with the ANN (1 of 1)" in text for text in told
    )
    Path("snn.pt").unlink()
    answer = dynconf(*correcting, "--memory", "300MiB")
    assert answer.code == 2 and "too little" in answer.error
    assert not list(Path.cwd().iterdir())


def test_without_fixed_point_weights(dynconf: Command, checkpoint: Path) -> None:
    answer = dynconf(*asked(checkpoint, "--no-fixed-point", "--neurons", "integrate-and-fire", "--thresholds", "percentile"))
    assert answer.code == 0, answer
    snn = load_snn(Path("snn.pt"))
    assert (snn.exact, snn.time_steps_limit, snn.image_limit, snn.active_steps) == (False, None, None, None)
    assert snn.facts["fixed_point"] is False and snn.facts["levels"] is None and snn.facts["thresholds"] == "percentile"


@pytest.mark.parametrize(
    ("given", "mean"),
    [("cifar10", 0.4914), ("imagenet", 0.485), (OWN, 0.4), ("0.5,0,-1/1,0.5,2e-1", 0.5)],
)
def test_normalisations(given: str, mean: float) -> None:
    found = normalisation_called(given)
    assert isinstance(found, Normalisation) and found.mean[0] == mean


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkpoint of another network."""
    torch.save(CifarResNet(32).state_dict(), tmp_path / "resnet32.pt")
    return tmp_path / "resnet32.pt"


BAD: dict[str, tuple[list[str], list[str]]] = {
    "architecture": (["--architecture", "resnet21"], ["'resnet21' is unknown", "resnet20"]),
    "torchvision's, without its name": (["--architecture", "resnet18"], ["'resnet18' is unknown", "torchvision/resnet18"]),
    "missing": (["--checkpoint", "none.pt"], ["none.pt does not exist"]),
    "no checkpoint": (["--checkpoint", "here.txt"], ["here.txt cannot be read", "damaged"]),
    "of another network": (["--checkpoint", "OTHER"], ["does not fit", "it holds 72 keys", "layer1.3.conv1.weight"]),
    "into a larger one": (["--architecture", "resnet32"], ["does not fit", "it lacks", "layer1.3.conv1.weight"]),
    "no published weights": (["--checkpoint", "default"], ["none are published with resnet20"]),
    "thresholds": (["--thresholds", "best"], ["'best'", "percentile"]),
    "neurons": (["--neurons", "leaky"], ["'leaky'", "signed"]),
    "levels": (["--levels", "9"], ["levels=9", "time_steps=3"]),
    "levels without signed neurons": (["--neurons", "auto", "--levels", "2"], ["levels=2", "signed"]),
    "time steps": (["--time-steps", "0"], ["--time-steps"]),
    "images": (["--images", "0"], ["--images"]),
    "percentile": (["--thresholds", "percentile", "--percentile", "200"], ["percentile=200"]),
    "data set": (["--dataset", "mnist"], ["'mnist' is unknown", "digits"]),
    "no data": (["--dataset", "cifar10", "--data", "nowhere"], ["cifar", "dynconf data fetch cifar10"]),
    "normalisation": (["--normalisation", "mnist"], ["--normalisation mnist", "cifar10"]),
    "two means": (["--normalisation", "0.5,0.5/0.5,0.5"], ["have 3 channels", "2 means", "give 3 of each"]),
    "no deviation": (["--normalisation", "0,0,0/0,1,1"], ["--normalisation"]),
    "not a number": (["--normalisation", "nan,0,0/1,1,1"], ["--normalisation"]),
    "endless": (["--normalisation", "0,0,0/inf,1,1"], ["--normalisation"]),
    "device": (["--device", "tpu"], ["tpu", "cuda"]),
    "memory": (["--memory", "much"], ["--memory much", "8GiB"]),
    "out is a folder": (["--out", "."], ["--out", "is a folder"]),
    "out below a file": (["--out", "here.txt/snn.pt"], ["--out", "is a file"]),
    "traces below a file": (["--traces", "here.txt/t"], ["--traces", "is a file"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_and_nothing_is_written(dynconf: Command, checkpoint: Path, other: Path, case: str) -> None:
    options, words = BAD[case]
    Path("here.txt").write_text("text")
    answer = dynconf(*asked(checkpoint, *(str(other) if option == "OTHER" else option for option in options)))
    assert (answer.code, answer.out) == (2, ""), answer
    told = " ".join(answer.error.split())
    assert all(word in told for word in words), told
    assert "Traceback" not in told and [path.name for path in Path.cwd().iterdir()] == ["here.txt"]


def test_data_of_other_classes_are_refused(dynconf: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = digits.DIGITS

    def load(*given: Any, **how: Any) -> Any:
        return replace(entry.load(*given, **how), classes=12)  # type: ignore[type-var]

    twelve = replace(entry, classes=12, load=load)
    monkeypatch.setattr(digits, "DIGITS", twelve)
    answer = dynconf(*asked(checkpoint))
    assert answer.code == 2 and "digits has 12 classes, but resnet20 10" in " ".join(answer.error.split())


def test_too_little_memory_is_said(dynconf: Command, checkpoint: Path) -> None:
    answer = dynconf(*asked(checkpoint, "--traces", "t", "--memory", "1MiB"))
    assert answer.code == 2 and "too little" in answer.error
    assert not list(Path.cwd().iterdir())
