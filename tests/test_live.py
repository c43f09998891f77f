"""Inference that stops early: to the bit what exiting on collected traces gives, whoever shares the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import activation

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.readout import Readout
from dynconf_core.exit.rule import Rule
from dynconf_core.simulation import live
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.footprint import FIXED
from dynconf_core.simulation.live import Exits, run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.traces.schema import Traces

SIDE, TIME_STEPS, SAMPLES = 8, 12, 60
NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
KINDS = [(method, pool) for method in ("qcfs", "qffs") for pool in ("average", "max")]


class Small(nn.Module):
    """Convolutions with biases, a residual sum, a pool, two linear layers."""

    def __init__(self, method: str, pool: str) -> None:
        super().__init__()
        make = activation(method, levels=4, bits=2, initial_threshold=1.0)
        self.first, self.one = nn.Conv2d(3, 6, 3, padding=1), make()
        self.second, self.two = nn.Conv2d(6, 6, 3, padding=1), make()
        self.pool = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
        self.flatten, self.third, self.three, self.last = nn.Flatten(), nn.Linear(96, 16), make(), nn.Linear(16, 4)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for layer in (self.first, self.second, self.third, self.last):
                layer.weight.copy_(2 * torch.randn(layer.weight.shape, generator=generator) / layer.weight[0].numel() ** 0.5)
                layer.bias.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator))
            self(torch.randn(8, 3, SIDE, SIDE, generator=generator))  # the normalisations' statistics
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(self.first(x))
        result: Tensor = self.last(self.three(self.third(self.flatten(self.pool(self.two(self.second(a) + a))))))
        return result


def pictures(count: int = SAMPLES) -> TensorImages:
    """From grey to garish, so that some are classified soon and others late."""
    generator = torch.Generator().manual_seed(4)
    contrast = torch.linspace(0, 1.5, SAMPLES)[torch.randperm(SAMPLES, generator=generator)]
    coarse = torch.randn(SAMPLES, 3, 2, 2, generator=generator).repeat_interleave(SIDE // 2, 2).repeat_interleave(SIDE // 2, 3)
    fine = torch.randn(SAMPLES, 3, SIDE, SIDE, generator=generator)
    grey = 128 + 50 * contrast.view(-1, 1, 1, 1) * (coarse + 0.3 * fine)
    pixels = grey.round().clamp(0, 255).to(torch.uint8)
    labels = torch.randint(0, 4, (SAMPLES,), generator=generator)
    return TensorImages(pixels[:count], labels[:count], 4, NORMALISATION)


def network(method: str, pool: str, fixed_point: bool = True) -> SpikingNetwork:
    example, limit = NORMALISATION(pictures(1).pixels), NORMALISATION.limit()
    return convert(Small(method, pool), example, time_steps=TIME_STEPS, fixed_point=fixed_point, image_limit=limit)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Traces]:
    """The traces of every kind of network."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("-".join(kind))
        collect(network(*kind), None, pictures(), TIME_STEPS, folder)
        found[kind] = Traces.load(folder)
    return found


def rule_of(traces: Traces, measure: str = "max_softmax", share: float = 0.5) -> Rule:
    """One whose threshold many scores of all steps exceed and many do not."""
    rule = Rule(measure, Smoothing("sum", 10.0), math.inf)
    return Rule(measure, rule.smoothing, float(np.quantile(rule.scores(traces), share)))


def expected(traces: Traces, rule: Rule) -> Exits:
    """Exiting on the traces."""
    steps, rows = rule.exit_steps(traces), np.arange(traces.samples)
    assert traces.spikes is not None and traces.synaptic_operations is not None

    def at_exit(values: Any) -> Any:
        return values[rows, steps - 1]

    return Exits(
        at_exit(rule.decoded(traces).predictions()),
        steps,
        at_exit(rule.scores(traces)),
        at_exit(np.cumsum(traces.spikes, axis=1)),
        at_exit(np.cumsum(traces.synaptic_operations, axis=1)),
        at_exit(np.cumsum(traces.logits, axis=1, dtype=np.float64)),
    )


def assert_same(found: Exits, wanted: Exits) -> None:
    for name in ("predictions", "steps", "spikes", "synaptic_operations", "logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_equal_to_exiting_on_traces_for_any_batch(kind: tuple[str, str], collected: dict[tuple[str, str], Traces]) -> None:
    traces, snn = collected[kind], network(*kind)
    rule = rule_of(traces)
    wanted = expected(traces, rule)
    assert len(set(wanted.steps.tolist())) >= 4, "exits at many steps, or the test shows little"
    for batch in (1, 2, 5, 17, 48, SAMPLES, 200, None):
        assert_same(run_until_confident(snn, ExitAgent(rule), pictures(), TIME_STEPS, batch=batch), wanted)


def test_behind_a_readout(collected: dict[tuple[str, str], Traces]) -> None:
    """The prediction at the exit is the decoded one, and a newcomer in a row decodes from its own first step."""
    kind = ("qcfs", "max")
    traces = collected[kind]
    means = np.cumsum(traces.logits, axis=1, dtype=np.float64).mean(axis=0)[:-1]  # without them the network answers one class
    readout = Readout(np.linspace(1.5, 1.0, TIME_STEPS - 1).tolist(), [0.25] * (TIME_STEPS - 1), (-1.4 * means).tolist())
    inner = replace(rule_of(traces), readout=readout)
    rule = replace(inner, threshold=float(np.quantile(inner.scores(traces), 0.8)))
    wanted = expected(traces, rule)
    assert len(set(wanted.steps.tolist())) >= 3
    assert (wanted.predictions != expected(traces, replace(rule, readout=None)).predictions).any()
    for batch in (5, None):
        assert_same(run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=batch), wanted)
    with pytest.raises(InputError, match="readout = plain"):
        images, ends = NORMALISATION(pictures().pixels), torch.full((SAMPLES,), 5)
        run_until_confident(network(*kind), ExitAgent(rule), images, TIME_STEPS, lengths=ends)


@pytest.mark.parametrize("measure", ["entropy", "gap", "patience"])
def test_other_rules(measure: str, collected: dict[tuple[str, str], Traces]) -> None:
    """Patience remembers: the newcomer in a row must not inherit what the one before it stood for."""
    kind = ("qffs", "max")
    rule = rule_of(collected[kind], measure)
    wanted = expected(collected[kind], rule)
    assert len(set(wanted.steps.tolist())) > 2
    assert_same(run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=7), wanted)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize(("threshold", "steps"), [(math.inf, TIME_STEPS), (-math.inf, 1)])
def test_never_and_at_once(
    kind: tuple[str, str], threshold: float, steps: int, collected: dict[tuple[str, str], Traces]
) -> None:
    rule = Rule("max_softmax", Smoothing("sum", 10.0), threshold)
    for batch in (1, 16, 100):
        found = run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=batch)
        assert set(found.steps.tolist()) == {steps}
        assert_same(found, expected(collected[kind], rule))


@dataclass
class Watched:
    """The rows of every step of the network, and the samples that began together, lot by lot."""

    steps: list[int]
    begun: list[int]

    @property
    def refilled(self) -> list[int]:
        """The newcomers of every refill."""
        return self.begun[1:]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched([], [])
    step, initial = SpikingNetwork.step, ExitAgent.initial

    def watched_step(self: SpikingNetwork, input_current: Any, *rest: Any) -> Any:
        found.steps.append(input_current.samples)
        return step(self, input_current, *rest)

    def watched_initial(self: ExitAgent, samples: int, *rest: Any) -> Any:
        found.begun += [samples] if samples else []
        return initial(self, samples, *rest)

    monkeypatch.setattr(SpikingNetwork, "step", watched_step)
    monkeypatch.setattr(ExitAgent, "initial", watched_initial)
    return found


def test_places_are_refilled_then_given_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, collected: dict[tuple[str, str], Traces]
) -> None:
    """Nobody computes for finished samples: with a lot and a grain of one, the rows of all steps are the samples' steps."""
    monkeypatch.setattr(live, "GRAIN", 1)
    kind = ("qcfs", "average")
    rule = rule_of(collected[kind])
    wanted = expected(collected[kind], rule)
    assert_same(run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=16), wanted)
    assert watched.begun[0] == 16 and len(watched.refilled) > 3 and sum(watched.begun) == SAMPLES
    assert len(set(watched.steps)) > 4, "compacted more than three times"
    assert sum(watched.steps) == wanted.steps.sum() < 0.8 * SAMPLES * TIME_STEPS
    assert watched.steps == sorted(watched.steps, reverse=True) and watched.steps[0] == 16


def test_a_dwindling_batch_takes_few_sizes(watched: Watched, collected: dict[tuple[str, str], Traces]) -> None:
    kind = ("qffs", "max")
    rule = rule_of(collected[kind])
    found = run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=48)
    assert_same(found, expected(collected[kind], rule))
    sizes = set(watched.steps)
    assert len(sizes) > 3 and sizes <= {48, 40, 32, 24, 16, 8, 4, 2, 1}


def test_a_cpu_takes_no_more_than_its_cache_holds(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, collected: dict[tuple[str, str], Traces]
) -> None:
    monkeypatch.setattr(live, "MOST", {"cpu": 24})
    kind = ("qcfs", "max")
    rule = rule_of(collected[kind])
    found = run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=SAMPLES)
    assert_same(found, expected(collected[kind], rule))
    assert max(watched.steps) == 24 and sum(watched.refilled) == SAMPLES - 24


def test_what_images_determine_is_computed_ahead(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, collected: dict[tuple[str, str], Traces]
) -> None:
    """A refill may take the rest of one stock and the first of the next, and the last stock is what is left."""
    monkeypatch.setattr(live, "AHEAD", 7)
    input_current, sizes = SpikingNetwork.input_current, list[int]()
    monkeypatch.setattr(
        SpikingNetwork, "input_current", lambda self, images: (sizes.append(len(images)), input_current(self, images))[1]
    )
    kind = ("qffs", "average")
    rule = rule_of(collected[kind])
    found = run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=12)
    assert_same(found, expected(collected[kind], rule))
    assert sizes[0] == 12 and set(sizes[1:-1]) <= {*range(7, 13)} and sum(sizes) == SAMPLES > sum(sizes[:-1])


def test_newcomers_begin_at_their_channels_potentials(tmp_path: Path) -> None:
    """Calibration gives every channel a V(0) of its own; a refilled row must not begin with another's, nor where the last
    sample left it."""
    example, limit = NORMALISATION(pictures().pixels), NORMALISATION.limit()
    snn = convert(Small("qcfs", "max"), example, time_steps=TIME_STEPS, image_limit=limit, correct=True)
    assert any(len(snn.tensors()[name]["initial"].unique()) > 1 for name in snn.layers()), "or this shows nothing"
    collect(snn, None, pictures(), TIME_STEPS, tmp_path)
    traces = Traces.load(tmp_path)
    rule = rule_of(traces)
    for batch in (1, 9):
        assert_same(run_until_confident(snn, ExitAgent(rule), pictures(), TIME_STEPS, batch=batch), expected(traces, rule))


def test_a_lot_waits_until_it_is_worth_while(watched: Watched, collected: dict[tuple[str, str], Traces]) -> None:
    kind = ("qffs", "average")
    rule = rule_of(collected[kind])
    found = run_until_confident(network(*kind), ExitAgent(rule), pictures(), TIME_STEPS, batch=48)
    assert_same(found, expected(collected[kind], rule))
    assert min(watched.refilled[:-1], default=3) >= 48 // live.LOT and sum(watched.refilled) == SAMPLES - 48


def test_a_tensor_is_as_good_as_a_split(collected: dict[tuple[str, str], Traces]) -> None:
    kind = ("qcfs", "max")
    rule = rule_of(collected[kind])
    normalised = NORMALISATION(pictures().pixels)
    found = run_until_confident(network(*kind), ExitAgent(rule), normalised, TIME_STEPS, batch=9)
    assert_same(found, expected(collected[kind], rule))


@pytest.mark.parametrize("empty", [pictures(0), torch.empty(0, 3, SIDE, SIDE)], ids=["images", "tensor"])
def test_no_images(empty: Any) -> None:
    found = run_until_confident(network("qcfs", "average"), ExitAgent(Rule("gap", Smoothing("sum", 1.0), 1.0)), empty, 4)
    assert [len(getattr(found, name)) for name in ("predictions", "steps", "scores", "spikes", "synaptic_operations")] == [
        0
    ] * 5
    assert found.logits.shape == (0, 4)


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_without_fixed_point_it_agrees_up_to_rounding(method: str, tmp_path: Path) -> None:
    """A sum in another order may move a spike: nearly all exits are the same, the counts nearly so."""
    snn = network(method, "average", fixed_point=False)
    collect(snn, None, pictures(), TIME_STEPS, tmp_path)
    traces = Traces.load(tmp_path)
    rule = rule_of(traces)
    wanted = expected(traces, rule)
    found = run_until_confident(snn, ExitAgent(rule), pictures(), TIME_STEPS, batch=7)
    assert np.mean(found.steps == wanted.steps) > 0.95 and np.mean(found.predictions == wanted.predictions) > 0.95
    assert found.spikes.sum() == pytest.approx(wanted.spikes.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch=0"),
        ({"memory": FIXED}, "memory=600 MiB is too little"),
        ({"time_steps": TIME_STEPS + 1}, "time_steps=13"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"images": torch.zeros(2, 3, SIDE, SIDE + 1)}, "shape"),
        ({"images": torch.full((2, 3, SIDE, SIDE), 9.0)}, "the images reach 9"),
        ({"images": torch.full((2, 3, SIDE, SIDE), math.nan)}, "NaN"),
    ],
)
def test_refuses(options: dict[str, Any], words: str) -> None:
    given = {"images": pictures(3), "time_steps": TIME_STEPS, **options}
    agent = ExitAgent(Rule("gap", Smoothing("sum", 1.0), 1.0))
    with pytest.raises(InputError, match=words):
        run_until_confident(network("qcfs", "average"), agent, **given)


def test_the_network_and_the_agent_serve_again(collected: dict[tuple[str, str], Traces]) -> None:
    """Nothing of a run stays in them."""
    kind = ("qffs", "max")
    rule = rule_of(collected[kind])
    snn, agent = network(*kind), ExitAgent(rule)
    for _ in range(2):
        found = run_until_confident(snn, agent, pictures(), TIME_STEPS, batch=11)
        assert_same(found, expected(collected[kind], rule))
