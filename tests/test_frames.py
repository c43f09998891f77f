"""Input that changes with the time step: what a second simulation computes, exact on the grid, live as on traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from second_simulation import in_float64, plain_simulation, simulated
from spiking_cases import BLOCKS, RandomNetwork, dyadic_images
from torch import Tensor, nn

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.data.frames import Frames
from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.counts import multiply_accumulates
from dynconf_core.simulation.footprint import bytes_a_sample
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_counts, reference_logits
from dynconf_core.traces.schema import Traces

SAMPLES, TIME_STEPS, SIDE = 40, 10, 6
LIMIT = 4.0
KINDS: dict[str, dict[str, Any]] = {"integrate-and-fire": {}, "signed": {"levels": 5}}
AGENT = ExitAgent(Rule("gap", Smoothing("sum", 1.0), 1.0))


def network(shape: tuple[int, ...] = (2, SIDE, SIDE)) -> nn.Module:
    """Of events of two polarities, of a signal, or of features."""
    torch.manual_seed(3)
    layers: list[nn.Module]
    if len(shape) == 1:
        layers = [nn.Linear(shape[0], 12), nn.ReLU(), nn.Linear(12, 3)]
    elif len(shape) == 2:
        layers = [nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 3)]
    else:
        layers = [nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(4, 3)]
    made = nn.Sequential(*layers)
    for _ in range(3):
        made(2 * torch.randn(16, *shape))
    return made.eval()


def frames(kind: str, shape: tuple[int, ...] = (2, SIDE, SIDE), time_steps: int = TIME_STEPS) -> Tensor:
    """Sparse events, in the steps in which the input of such a network acts."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(SAMPLES, time_steps, *shape, generator=generator) * torch.linspace(0.3, 2, SAMPLES)[
        torch.randperm(SAMPLES, generator=generator)
    ].view(-1, *[1] * (len(shape) + 1))
    drawn = drawn.clamp(-LIMIT, LIMIT) * (torch.rand(drawn.shape, generator=generator) < 0.5)
    drawn[:, KINDS[kind].get("levels", time_steps) :] = 0
    return drawn


def converted(kind: str, shape: tuple[int, ...] = (2, SIDE, SIDE), **options: Any) -> SpikingNetwork:
    images = frames(kind, shape).mean(1) * 2
    chosen = {"thresholds": "max", "time_steps": TIME_STEPS, "image_limit": LIMIT, **KINDS[kind], **options}
    return convert(network(shape), images, neurons=kind, **chosen)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(("qcfs", "qffs")), st.integers(1, 10))
def test_the_network_with_neurons_receives_a_frame_in_each_step(seed: int, method: str, time_steps: int) -> None:
    """Spikes and logits of every step against the module itself, its activations replaced by neurons, in float64."""
    given, images = RandomNetwork(seed, method, blocks=BLOCKS), [dyadic_images(2, seed + t) for t in range(time_steps)]
    snn = convert(given, images[0], time_steps=time_steps, fixed_point=False)
    logits, spikes, _ = simulated(snn, images, time_steps)
    expected, neurons = plain_simulation(given, images, time_steps)
    assert torch.equal(logits.double(), expected)
    for name, layer in neurons.items():
        assert torch.equal(spikes[name].double(), torch.stack(layer.spikes, 1)), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, SIDE, SIDE), (2, 10), (9,)], ids=["events", "signal", "features"])
def test_an_image_is_the_same_frame_in_all_steps(kind: str, shape: tuple[int, ...]) -> None:
    snn, given = converted(kind, shape), frames(kind, shape)
    image = given[:, :3].mean(1)
    same = torch.zeros_like(given)
    same[:, : snn.input_steps(TIME_STEPS)] = image[:, None]
    assert torch.equal(snn(image, TIME_STEPS), snn(same, TIME_STEPS))
    assert torch.equal(reference_counts(snn, image), reference_counts(snn, same, TIME_STEPS)) or kind != "signed"
    assert not torch.equal(snn(given, TIME_STEPS), snn(same, TIME_STEPS))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_exact_at_the_limits(kind: str) -> None:
    """All bits of float64, at frames that are as large as the proof allows and always of the same sign."""
    snn = converted(kind, thresholds="percentile", percentile=60.0)
    steps = snn.input_steps(TIME_STEPS)
    extreme = torch.zeros(SAMPLES, TIME_STEPS, 2, SIDE, SIDE)
    extreme[:, :steps] = LIMIT * torch.sign(torch.randn(SAMPLES, 1, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    for images in (frames(kind), extreme):
        by_step = list(images.unbind(1))
        logits, _, _ = simulated(snn, by_step, TIME_STEPS)
        assert torch.equal(logits.double(), in_float64(snn, by_step, TIME_STEPS)[0])
        assert torch.equal(snn(images, TIME_STEPS), logits), "in pieces of several time steps"
        for batch in (1, 7):
            assert torch.equal(torch.cat([snn(part, TIME_STEPS) for part in images.split(batch)]), logits)


def test_a_settled_network_is_the_quantised_one_of_the_mean_frame() -> None:
    snn, given = converted("signed", time_steps=40), frames("signed", time_steps=40)
    assert torch.equal(snn(given, 40).sum(1), reference_counts(snn, given, 40)), "to the bit"
    plain = converted("signed", time_steps=40, fixed_point=False)
    mean = plain.mean_frame(given, 40)
    torch.testing.assert_close(mean, given[:, :5].mean(1))
    torch.testing.assert_close(reference_logits(plain, given, 40), reference_logits(plain, mean), rtol=0, atol=1e-4)


@pytest.fixture(scope="module", params=KINDS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Traces]:
    """The traces of samples that end before T, in a folder."""
    return request.param, collect(
        converted(request.param), network(), split(request.param), TIME_STEPS, folder(tmp_path_factory)
    )


def folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("traces")


def split(kind: str) -> Frames:
    generator = torch.Generator().manual_seed(8)
    labels, lengths = (torch.randint(low, high, (SAMPLES,), generator=generator) for low, high in ((0, 3), (1, TIME_STEPS + 1)))
    return Frames(frames(kind), labels, lengths)


def test_traces_end_where_their_samples_end(recorded: tuple[str, Traces]) -> None:
    kind, traces = recorded
    snn, given = converted(kind), split(kind)
    assert given.lengths is not None and traces.ends.tolist() == given.lengths.tolist()
    logits, whole = snn(given.frames, TIME_STEPS).numpy(), collect(snn, None, Frames(given.frames, given.labels), TIME_STEPS)
    ended = np.arange(TIME_STEPS) >= traces.ends[:, None]
    assert not traces.logits[ended].any() and traces.spikes is not None and not traces.spikes[ended].any()
    np.testing.assert_array_equal(traces.logits[~ended], logits[~ended])
    assert whole.spikes is not None and whole.lengths is None
    np.testing.assert_array_equal(traces.spikes[~ended], whole.spikes[~ended])
    by_layer = np.sum([layer["spikes"] for name, layer in traces.meta["mean_by_layer"].items() if name != "5"], axis=0)
    np.testing.assert_allclose(by_layer, traces.spikes.mean(axis=0))


def test_the_ann_sees_the_mean_of_a_samples_own_frames(recorded: tuple[str, Traces]) -> None:
    kind, traces = recorded
    assert traces.ann_logits is not None and traces.reference_logits is not None
    for place in range(6):
        own = frames(kind)[place, : traces.ends[place]]
        mean = own.sum(0) / 5 if kind == "signed" else own.mean(0)
        with torch.no_grad():
            expected = network()(mean[None])[0]
        np.testing.assert_allclose(traces.ann_logits[place], expected, rtol=1e-4, atol=1e-5)
        mean_of_all = converted(kind, fixed_point=False)
        reference = reference_logits(
            mean_of_all, frames(kind)[place : place + 1], TIME_STEPS, torch.tensor([traces.ends[place]])
        )
        np.testing.assert_allclose(reference[0], reference_logits(mean_of_all, mean[None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 7, None])
def test_live_runs_exit_as_on_traces(recorded: tuple[str, Traces], batch: int | None) -> None:
    """Samples of a batch are at different time steps, and each receives the frame of its own."""
    kind, traces = recorded
    rule = Rule("gap", Smoothing("sum", 1.0), 0.0)
    rule = Rule("gap", rule.smoothing, float(np.quantile(rule.scores(traces), 0.6)))
    steps, rows = rule.exit_steps(traces), np.arange(SAMPLES)
    assert len({*steps.tolist()}) > 4 and (steps == traces.ends).any() and (steps < traces.ends).any()
    given = split(kind)
    for images, lengths in ((given, None), (given.frames, given.lengths)):
        found = run_until_confident(converted(kind), ExitAgent(rule), images, TIME_STEPS, batch=batch, lengths=lengths)
        np.testing.assert_array_equal(found.steps, steps)
        np.testing.assert_array_equal(found.predictions, traces.predictions()[rows, steps - 1])
        np.testing.assert_array_equal(found.logits, np.cumsum(traces.logits, axis=1, dtype=np.float64)[rows, steps - 1])
        for name in ("spikes", "synaptic_operations"):
            np.testing.assert_array_equal(getattr(found, name), np.cumsum(getattr(traces, name), axis=1)[rows, steps - 1])


def test_the_first_layer_multiplies_in_every_step(recorded: tuple[str, Traces]) -> None:
    counts = recorded[1].meta["multiply_accumulates"]
    image = multiply_accumulates(converted("integrate-and-fire").graph)
    assert counts == {"once": 0, "every_step": image["once"] + image["every_step"], "ann": image["ann"]}
    assert image["once"] == 5 * 16 * 18


def test_each_frame_is_normalised_and_counts_as_memory() -> None:
    pixels = torch.randint(0, 256, (3, 4, 3, 2, 2), dtype=torch.uint8)
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    given = Frames(pixels, torch.zeros(3, dtype=torch.int64), each=normalisation)
    found = given.normalisation(given.batch(torch.tensor([2, 0])))
    torch.testing.assert_close(found, torch.stack([normalisation(pixels[place]) for place in (2, 0)]))
    snn = converted("integrate-and-fire")
    assert bytes_a_sample(snn, 10) - bytes_a_sample(snn) >= 2 * 10 * 4 * 2 * SIDE * SIDE


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("integrate-and-fire", torch.zeros(2, 9, 2, SIDE, SIDE), "frames for 9 time steps, .* acts in 10"),
        ("signed", torch.zeros(2, 4, 2, SIDE, SIDE), "frames for 4 time steps, .* acts in 5"),
        ("signed", torch.ones(2, 10, 2, SIDE, SIDE), "frames beyond step 5 are not 0: with signed"),
        ("signed", torch.full((2, 5, 2, SIDE, SIDE), 4.5), "the images reach 4.5"),
        ("signed", torch.zeros(2, 5, 3, SIDE, SIDE), r"give frames \(N, T, 2, 6, 6\)"),
    ],
)
def test_refuses_frames(kind: str, given: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_until_confident(converted(kind), AGENT, given, TIME_STEPS)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (torch.tensor([0, 4]), "lengths are from 0"),
        (torch.tensor([1]), "one a sample"),
        (torch.tensor([1.0, 2.0]), "whole numbers"),
        (torch.tensor([1, 11]), "up to 11"),
    ],
)
def test_refuses_lengths(lengths: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Frames(frames("signed")[:2], torch.zeros(2, dtype=torch.int64), lengths)
