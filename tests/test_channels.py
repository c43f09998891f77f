"""Inputs of any number of channels: normalisation, conversion, traces, live exit, served images, augmentation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynconf_core import Classifier, ExitAgent, ImageFacts, InputError, Rule, Smoothing, collect, convert, run_until_confident
from dynconf_core.data.augment import augmented
from dynconf_core.data.digits import raw
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.simulation.network import SpikingNetwork

T = 12
RULE = Rule("max_softmax", Smoothing("sum", 1.0), 0.9)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_mean_for_all_channels(channels: int) -> None:
    normalisation = Normalisation((0.5,), (0.25,))
    dark, bright = (torch.full((2, channels, 4, 4), value, dtype=torch.uint8) for value in (0, 255))
    assert bool((normalisation(dark) == -2).all()) and bool((normalisation(bright) == 2).all())
    assert normalisation(dark).shape == dark.shape
    assert 2 <= normalisation.limit() < 2.001


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_mean_for_each_channel(channels: int) -> None:
    mean, std = [0.1 * (c + 1) for c in range(channels)], [0.5 / (c + 1) for c in range(channels)]
    normalisation = Normalisation(tuple(mean), tuple(std))
    found = normalisation(torch.full((3, channels, 2, 2), 255, dtype=torch.uint8))
    for c in range(channels):
        assert torch.allclose(found[:, c], torch.tensor((1 - mean[c]) / std[c]))
    assert normalisation.limit() >= float(found.abs().max())
    by_time_step = torch.full((3, 5, channels, 2, 2), 255, dtype=torch.uint8)
    assert torch.equal(normalisation(by_time_step)[:, 4], found)


def test_decimals_are_taken_as_they_are_and_not_changed() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    kept = vectors.clone()
    assert torch.equal(Normalisation((1.0,), (2.0,))(vectors), (kept - 1) / 2)
    assert torch.equal(Normalisation((1.0, 2.0), (2.0, 4.0))(vectors), torch.tensor([[0.0, 0.0], [1.0, -1.5]]))
    assert torch.equal(vectors, kept)
    assert Normalisation((1.0,), (2.0,)).limit(torch.tensor([[-4.0], [3.0]])) >= 2.5
    grey = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    one = Normalisation((0.3,), (0.2,))
    assert torch.allclose(one(grey), one(grey.double() / 255), atol=1e-6)


def test_numbers_in_other_forms() -> None:
    plain = Normalisation((0.5,), (0.25,))
    assert Normalisation(0.5, 0.25) == plain  # type: ignore[arg-type]
    assert Normalisation([0.5], np.array([0.25])) == plain  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), (0.5, 0.5), "1 mean and 2 deviations"),
        ((0.5,), (0.0,), "above 0"),
        ((float("nan"),), (1.0,), "finite"),
        ((), (), "one finite number"),
        ("grey", (1.0,), "one finite number"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(mean: tuple[float, ...], std: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Normalisation(mean, std)


def test_other_numbers_of_channels_are_named_with_the_remedy() -> None:
    grey, colour = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), Normalisation((0.5,) * 3, (0.5,) * 3)
    for refused in (lambda: colour(grey), lambda: TensorImages(grey, torch.zeros(2).long(), 10, colour)):
        with pytest.raises(InputError, match=r"have 1 channel .* has 3 means .* give one of each"):
            refused()
    with pytest.raises(InputError, match=r"torch.int64: give uint8"):
        colour(torch.zeros(2, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(InputError, match=r"labels are torch.float32: give whole numbers"):
        TensorImages(grey, torch.zeros(2), 10, Normalisation((0.5,), (0.5,)))
    with pytest.raises(InputError, match=r"the shape \(3,\): .* each of the 2 images"):
        TensorImages(grey, torch.zeros(3).long(), 10, Normalisation((0.5,), (0.5,)))


# Digits as a newcomer has them: one channel, 8 x 8


def small(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
    ).eval()


def digits(channels: int, count: int = 40) -> TensorImages:
    """Digits, in each further channel turned by 90 degrees more."""
    values, labels = raw()
    grey = torch.from_numpy(values[:count] * (255 / 16)).round().to(torch.uint8)
    pixels = torch.stack([grey.rot90(turn, (1, 2)) for turn in range(channels)], dim=1)
    return TensorImages(pixels, torch.from_numpy(labels[:count]), 10, Normalisation((0.305,), (0.376,)))


def converted(network: nn.Module, images: TensorImages) -> SpikingNetwork:
    pixels = images.normalisation(images.pixels)
    limit = images.normalisation.limit() if images.pixels.dtype == torch.uint8 else None
    options = {"thresholds": "max", "neurons": "signed", "levels": 7, "correct": False}
    return convert(network, pixels, time_steps=T, image_limit=limit, **options)


def exits_as_on_traces(snn: SpikingNetwork, network: nn.Module, images: TensorImages) -> list[int]:
    """The exit steps, live and on the traces, which are the same."""
    traces = collect(snn, network, images, T)
    scores = Rule("max_softmax", Smoothing("sum", 1.0), math.inf).scores(traces)
    rule = Rule("max_softmax", Smoothing("sum", 1.0), float(np.quantile(scores, 0.7)))
    live = run_until_confident(snn, ExitAgent(rule), images, T)
    steps: list[int] = rule.exit_steps(traces).tolist()
    assert live.steps.tolist() == steps
    predictions = traces.logits.astype(np.float64).cumsum(axis=1).argmax(axis=2)
    assert live.predictions.tolist() == predictions[np.arange(len(steps)), live.steps - 1].tolist()
    return steps


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_live_exit_steps_are_those_of_the_traces(channels: int) -> None:
    torch.manual_seed(channels)
    network, images = small(channels), digits(channels)
    steps = exits_as_on_traces(converted(network, images), network, images)
    assert len(set(steps)) > 2


@pytest.mark.parametrize("pixels", [True, False])
def test_vectors(pixels: bool) -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval(), digits(1)
    flat = images.pixels.flatten(1)
    vectors = TensorImages(flat if pixels else flat / 16, images.labels, 10, Normalisation((0.3,), (0.4,)))
    snn = converted(network, vectors)
    steps = exits_as_on_traces(snn, network, vectors)
    assert len(set(steps)) > 1
    with pytest.raises(InputError, match=r"vectors \(F,\) of the shape \(64,\), and a server is for images \(C, H, W\) alone"):
        Classifier(snn, RULE, ImageFacts(T, vectors.normalisation))


def test_a_network_for_colours_says_so_for_grey_images() -> None:
    network = small(3)
    snn = converted(network, digits(3))
    for refused in (
        lambda: collect(snn, network, digits(1), T),
        lambda: run_until_confident(snn, ExitAgent(RULE), digits(1), T),
    ):
        with pytest.raises(InputError, match=r"shape \(1, 8, 8\), but the network was converted for \(3, 8, 8\)"):
            refused()


def test_a_served_network_takes_grey_images(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network, images = small(1), digits(1)
    snn = converted(network, images)
    Classifier(snn, RULE, ImageFacts(T, images.normalisation)).save(tmp_path)
    classifier = Classifier.load(tmp_path)
    assert classifier.shape == (1, 8, 8)
    expected = run_until_confident(snn, ExitAgent(RULE), images, T).logits
    grey = images.pixels.numpy()
    for form in (grey, grey[:, 0], grey.transpose(0, 2, 3, 1), grey[:, 0].tolist()):
        assert np.array_equal(classifier(form).logits, expected)
    for wrong, hint in ((grey[0, 0], "a batch of one"), (grey.repeat(3, 1), "takes grey images")):
        with pytest.raises(InputError, match=hint):
            classifier(wrong)
    with pytest.raises(InputError, match=r"have 1 channel .* has 3 means"):
        Classifier(snn, RULE, ImageFacts(T, Normalisation((0.5,) * 3, (0.5,) * 3)))


# Augmentation

PLAIN = Normalisation((0.0,), (1.0,))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("decimals", [False, True])
def test_places_are_augmented_alike_in_any_number_of_channels(channels: int, decimals: bool) -> None:
    """Every channel as it would be alone, with the same random numbers."""
    pixels = digits(channels).pixels
    pixels = pixels / 255 if decimals else pixels
    names = ("crop", "flip", "cutout")
    found = augmented(pixels, names, PLAIN, generator())
    for c in range(channels):
        assert torch.equal(found[:, c : c + 1], augmented(pixels[:, c : c + 1], names, PLAIN, generator()))
    assert not torch.equal(found, PLAIN(pixels))


def test_a_grey_image_is_jittered_as_one_of_three_equal_channels() -> None:
    grey = digits(1).pixels
    found = augmented(grey, ("jitter",), PLAIN, generator())
    assert torch.allclose(found, augmented(grey.expand(-1, 3, -1, -1), ("jitter",), PLAIN, generator())[:, :1], atol=1.01 / 255)
    assert not torch.equal(found, PLAIN(grey))


@pytest.mark.parametrize(
    ("pixels", "name", "words"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "autoaugment", "uint8 images of 3 channels; .* have 1: leave it out"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), "jitter", "uint8 images of 1 or 3 channels; .* have 2"),
        (torch.zeros(2, 3, 8, 8), "jitter", "these are torch.float32"),
        (torch.zeros(2, 64), "flip", r"the shape of these data is \(2, 64\)"),
    ],
)
def test_what_does_not_apply_is_refused(pixels: Tensor, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        augmented(pixels, (name,), PLAIN, generator())
