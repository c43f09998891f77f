"""Wrong arguments of the public functions: an ``InputError`` names the field, the value and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dynconf_core import (
    Classifier,
    ConversionOptions,
    ExitAgent,
    Frames,
    ImageFacts,
    InputError,
    Normalisation,
    Rule,
    Smoothing,
    SpikingNetwork,
    TensorImages,
    Traces,
    analyse,
    collect,
    compare,
    conversion_report,
    convert,
    load_snn,
    own_data,
    run_until_confident,
    save_snn,
)
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.wording import an, counted, told

STEPS = 4
PLAIN = Normalisation((0.0,), (1.0,))
RULE = Rule("gap", Smoothing("sum", 1.0), 0.5)


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


IMAGES = torch.linspace(0, 1, 5 * 16).view(5, 1, 4, 4)
LABELS = torch.arange(5) % 3
FRAMES = IMAGES[:, None].repeat(1, STEPS, 1, 1, 1)
SPLIT = TensorImages(IMAGES, LABELS, 3, PLAIN)
TRACES = Traces(np.random.default_rng(0).normal(size=(30, STEPS, 3)), np.arange(30) % 3)


@pytest.fixture(scope="module")
def snn(ann: nn.Module) -> SpikingNetwork:
    return convert(ann, IMAGES, thresholds="max", time_steps=STEPS, neurons="integrate-and-fire")


def refused(words: str, call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=words):
        call()


NOT_CONVERTED = "snn is a Sequential, which is not converted: give what convert"


def test_a_network_that_is_not_converted(ann: nn.Module, tmp_path: Path) -> None:
    from dynconf_core import neurobench_model, to_nir, to_spikingjelly

    given: Any = ann
    for call in (
        lambda: to_nir(given),
        lambda: to_spikingjelly(given),
        lambda: neurobench_model(given, STEPS),
        lambda: collect(given, None, SPLIT, STEPS),
        lambda: conversion_report(given, ann, IMAGES, STEPS),
        lambda: run_until_confident(given, ExitAgent(RULE), IMAGES, STEPS),
        lambda: save_snn(given, tmp_path / "snn.pt"),
        lambda: Classifier(given, RULE, ImageFacts(STEPS, PLAIN)),
    ):
        refused(NOT_CONVERTED, call)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": IMAGES}, r"images is a Tensor \(5, 1, 4, 4\): give a split with its labels: TensorImages"),
        ({"images": None}, "images=None: give a split"),
        ({"images": TensorImages}, "images is the class TensorImages: give a split"),
        ({"time_steps": "4"}, "time_steps='4': give the number of time steps"),
        ({"time_steps": 2.5}, "time_steps=2.5: give the number"),
        ({"time_steps": -1}, "time_steps=-1: an SNN needs at least one"),
        ({"time_steps": 10**30}, "time_steps=1000.*: give the number"),
        ({"batch": 2.0}, "batch=2.0: give the number of images at a time"),
        ({"memory": "8GiB"}, "memory='8GiB': give bytes"),
        ({"device": "tpu"}, "device='tpu' is unknown"),
        ({"device": "meta"}, "device='meta' is not supported"),
        ({"dtype": ["float32"]}, "dtype is a list is unknown: choose one of float16, float32"),
        ({"out": 3}, "out=3: give the path"),
        ({"ann": RULE}, "ann is a Rule: give the trained network"),
        ({"facts": [1]}, "facts is a list: give a dictionary"),
        ({"progress": None}, "progress=None: give a function of the steps done, all steps and a text"),
    ],
)
def test_collect(change: dict[str, Any], words: str, snn: SpikingNetwork, ann: nn.Module) -> None:
    refused(words, lambda: collect(**{"snn": snn, "ann": ann, "images": SPLIT, "time_steps": STEPS, **change}))
    assert snn.device.type == "cpu"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agent": RULE}, r"agent is a Rule: give an agent that follows it, ExitAgent\(rule\)"),
        ({"agent": None}, "agent=None: give ExitAgent"),
        ({"images": None}, "images=None: give normalised images"),
        ({"images": "digits"}, "images='digits': give normalised images"),
        ({"images": IMAGES.to_sparse()}, r"images is sparse: give its to_dense\(\)"),
        ({"images": IMAGES.to("meta")}, r"images has no values \(device meta\)"),
        ({"images": np.array(["a", "b"])}, r"images is an ndarray \(2,\) of the type <U1"),
        ({"time_steps": "4"}, "time_steps='4'"),
        ({"lengths": [1, 2, 3, 4, 5]}, "lengths are up to 5, with time_steps=4: a sample ends at T or before"),
        ({"lengths": [0, 1, 2, 3, 4]}, "lengths are from 0"),
        ({"lengths": [1.0] * 5}, "lengths are torch.float64: give whole numbers from 1, one a sample"),
        ({"lengths": [[1], [1, 2]]}, "lengths is a list that is no array of numbers"),
        ({"images": SPLIT, "lengths": [1] * 5}, "a split such as Frames.frames, labels, lengths. has its own"),
    ],
)
def test_run_until_confident(change: dict[str, Any], words: str, snn: SpikingNetwork) -> None:
    given = {"snn": snn, "agent": ExitAgent(RULE), "images": IMAGES, "time_steps": STEPS, **change}
    refused(words, lambda: run_until_confident(**given))


def test_arrays_and_lists_are_taken(snn: SpikingNetwork) -> None:
    agent = ExitAgent(Rule("gap", Smoothing("sum", 1.0), float("inf")))
    lengths = [1, 2, 3, 4, 4]
    expected = run_until_confident(snn, agent, FRAMES, STEPS, lengths=torch.tensor(lengths))
    backwards = FRAMES.flip(0).numpy()[::-1]  # of negative strides
    read_only = FRAMES.numpy().copy()
    read_only.flags.writeable = False
    for exits in (
        run_until_confident(snn, agent, backwards, np.int64(STEPS), lengths=np.array(lengths)),
        run_until_confident(snn, agent, Frames(read_only, LABELS.tolist(), lengths), STEPS),  # type: ignore[arg-type]
    ):
        assert exits.steps.tolist() == lengths
        np.testing.assert_array_equal(exits.logits, expected.logits)
    pixels = TensorImages(IMAGES.numpy(), LABELS.numpy(), 3, PLAIN)  # type: ignore[arg-type]
    np.testing.assert_array_equal(collect(snn, None, pixels, STEPS).logits, collect(snn, None, SPLIT, STEPS).logits)
    assert Frames(FRAMES, LABELS, torch.full((5,), STEPS)).lengths is not None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Frames(FRAMES, None), "labels=None: give the class numbers"),
        (lambda: Frames(FRAMES, LABELS.float()), r"labels are torch.float32: .* labels.long\(\)"),
        (lambda: Frames(FRAMES, LABELS[:, None]), r"labels has the shape \(5, 1\): .* labels.ravel\(\)"),
        (lambda: Frames(None, LABELS), r"frames=None: give frames \(N, T, ...\)"),
        (lambda: Frames(FRAMES, LABELS, "abc"), "lengths='abc': give whole numbers"),
        (lambda: Frames(FRAMES, LABELS, [9] * 5), "lengths are up to 9, with frames for 4 time steps"),
        (lambda: Frames(FRAMES, LABELS, None, 3), "each=3: give a function"),
        (lambda: TensorImages(None, LABELS, 3, PLAIN), "pixels=None: give pixels"),
        (lambda: TensorImages(IMAGES, LABELS, "3", PLAIN), "classes='3': give the number of classes"),
        (lambda: TensorImages(IMAGES, LABELS, 3, None), r"normalisation=None: give a Normalisation\(mean, std\)"),
        (lambda: TensorImages(IMAGES, torch.eye(5).long(), 5, PLAIN), r"labels.argmax\(1\) of one-hot rows"),
        (lambda: PLAIN(IMAGES.numpy()), r"data is an ndarray \(5, 1, 4, 4\): give a tensor"),
        (lambda: Traces(np.zeros((5, 2, 3)), np.zeros((5, 1), int)), r"give one class a sample, \(5,\): labels.ravel\(\)"),
        (lambda: ExitAgent("rule.json"), "rule='rule.json': give a Rule"),
        (lambda: Rule("gap", None, 1.0), "smoothing=None: give a Smoothing"),
        (lambda: RULE.exit_steps(IMAGES), "traces is a Tensor .*: give Traces"),
        (lambda: analyse(TRACES, None), "test=None: give Traces"),
        (lambda: analyse(TRACES, TRACES, max_drop="0.1"), "max_drop='0.1': give a fraction"),
        (lambda: compare(TRACES, TRACES, drops=0.1), "drops=0.1: give a list"),
        (lambda: compare(TRACES, TRACES, measures="gap"), "measures='gap': give a list"),
        (lambda: compare(TRACES, TRACES, measures=[]), r"measures=\[\]: give at least one"),
        (lambda: compare(TRACES, TRACES, seed="0"), "seed='0': give a whole number"),
        (lambda: TRACES.cut("2"), "time_steps='2': give a whole number"),
        (lambda: Traces.load(3), "path=3: give the path as text"),
        (lambda: load_snn("x" * 300 + ".pt"), "has a part of 303 bytes"),
        (lambda: load_snn("a\0b"), "holds a zero byte"),
        (lambda: own_data(None), "path=None: give the path"),
        (lambda: own_data("images", size=0), "size=0: give the side of an image"),
        (lambda: ConversionOptions(time_steps="8"), "time_steps='8': give the number of time steps"),
        (lambda: ConversionOptions(correct="yes"), "correct='yes': give True or False"),
        (lambda: ConversionOptions(neurons=None), "neurons=None: give a neuron model"),
        (lambda: ConversionOptions(percentile=float("nan")), "percentile=nan: give a number"),
        (lambda: ConversionOptions(weight_bits=8.5), "weight_bits=8.5: give 3 to 20"),
    ],
)
def test_made_of_wrong_arguments(make: Callable[[], object], words: str) -> None:
    refused(words, make)


def test_the_network_itself(snn: SpikingNetwork, ann: nn.Module) -> None:
    refused("images is an ndarray .*: give a tensor, as torch.from_numpy makes", lambda: snn(IMAGES.numpy(), STEPS))
    refused("the images are torch.bool: give floating-point", lambda: snn(IMAGES > 0.5, STEPS))
    refused("time_steps=3.5: give the number of time steps", lambda: snn(IMAGES, 3.5))
    refused("labels='abc': give the class numbers", lambda: conversion_report(snn, ann, IMAGES, STEPS, "abc"))  # type: ignore[arg-type]
    refused("there are no images", lambda: conversion_report(snn, ann, IMAGES[:0], STEPS))
    nothing: Any = None
    refused("progress=None: give a function", lambda: conversion_report(snn, ann, IMAGES, STEPS, progress=nothing))
    refused("options is a dict: give ConversionOptions", lambda: convert(ann, IMAGES, {}))  # type: ignore[arg-type]
    refused("memory='8GiB': give bytes", lambda: convert(ann, IMAGES, memory="8GiB"))  # type: ignore[arg-type]


def test_indices_of_a_max_pool_over_signals_are_refused_where_they_are_used() -> None:
    class Pooled(nn.Module):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.conv, self.head, self.place = nn.Conv1d(1, 2, 3), nn.Linear(8, 3), place

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = functional.max_pool1d(self.conv(x).relu(), 2, return_indices=True)[self.place]
            return self.head(found.flatten(1).float())

    torch.manual_seed(0)
    signals, network = torch.rand(4, 1, 10), Pooled(0).eval()
    snn = convert(network, signals, thresholds="max", time_steps=128, neurons="signed", levels=63)
    assert (snn(signals, 128).cumsum(1)[:, -1] / 63 - network(signals)).abs().max() < 0.05
    refused("indices of the maximum at .*use the values alone", lambda: convert(Pooled(1).eval(), signals, thresholds="max"))


ARRAY = "an ndarray (2,)"


def test_wording() -> None:
    assert [an(one) for one in (3, [], None, np.zeros(2), int)] == [
        "an int",
        "a list",
        "None",
        "an ndarray (2,)",
        "the class int",
    ]
    assert [an(one) for one in (nn.LSTM(1, 1), nn.ReLU(), nn.Identity())] == ["an LSTM", "a ReLU", "an Identity"]
    assert counted(1, "channel") == "1 channel" and counted(2, "class", "classes") == "2 classes"
    assert counted(1.0, "point", form=".4g") == "1 point" and counted(0.5, "point", form=".4g") == "0.5 points"
    assert told("x", "y" * 100).endswith("...") and "bits" in told("x", 10**5000)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("script.pt", r"is TorchScript: save the state_dict\(\)"),
        ("weights.npz", "is an .npz of arrays: save the arrays as a state dict"),
        ("weights.npy", "is an array of numpy: save the arrays as a state dict"),
        ("network.nir", r"is an HDF5 file: read a network of NIR by from_nir\(PATH\)"),
        ("weights.pt", "holds weights, and no converted network: name a file that `dynconf convert` or save_snn wrote"),
        ("folder", "is a folder: name the file"),
    ],
)
def test_files_that_hold_a_network_in_another_form(name: str, words: str, ann: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "script.pt":
        torch.jit.save(torch.jit.trace(ann, IMAGES), path)
    elif name.startswith("weights.np"):
        arrays = {key.replace(".", "_"): value.numpy() for key, value in ann.state_dict().items()}
        np.savez(path, **arrays) if name.endswith("z") else np.save(path, arrays["0_weight"])
    elif name == "network.nir":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    elif name == "weights.pt":
        torch.save(ann.state_dict(), path)
    else:
        path.mkdir()
    refused(words, lambda: load_snn(path))


def test_a_converted_network_is_no_checkpoint(snn: SpikingNetwork, ann: nn.Module, tmp_path: Path) -> None:
    save_snn(snn, tmp_path / "snn.pt")
    refused(r"holds a converted network: load_snn\(PATH\) loads it", lambda: load_checkpoint(ann, tmp_path / "snn.pt"))
