"""Speed-ups: tried, never assumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import CPU, RECIPE, network, pictures

from dynconf_core.errors import InputError
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.training import speed
from dynconf_core.training.loop import train
from dynconf_core.training.speed import SpeedUps, chosen, probe

# Speed-ups


def test_speed_ups_by_name() -> None:
    assert SpeedUps.named("auto") is None and SpeedUps.named("none") == SpeedUps()
    assert SpeedUps.named("compiled,autocast") == SpeedUps(autocast=True, compiled=True)
    assert SpeedUps.named("cuda_graphs") == SpeedUps(compiled=True, cuda_graphs=True), "graphs are of compiled code"
    with pytest.raises(
        InputError, match="speed-ups='fast': 'fast' is unknown: give auto, none, or some of channels_last,autocast,c"
    ):
        SpeedUps.named("fast")


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every speed-up be worth trying."""
    monkeypatch.setattr(speed, "WORTH_TRYING", 0.0)
    monkeypatch.setattr(speed, "WORTH_COMPILING", 0.0)


def test_probe_survives_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch.compile itself raises, or what it returns does when it first runs."""
    slow(monkeypatch)
    called = []

    def at_once(net: nn.Module, **options: Any) -> Any:
        called.append("at once")
        raise RuntimeError("no compiler was found\nlong story")

    def at_the_first_run(net: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
        def fail(x: Tensor) -> Tensor:
            called.append("at the first run")
            raise AssertionError

        return fail

    for failing in (at_once, at_the_first_run):
        monkeypatch.setattr(torch, "compile", failing)
        net = network()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        found = probe(net, torch.randn(4, 3, 16, 16), torch.arange(4), 1000)
        assert not found.compiled
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "tried on a copy"
        assert all(parameter.grad is None for parameter in net.parameters())
        train(network(), pictures(), RECIPE, seed=0, device=CPU)
    assert set(called) == {"at once", "at the first run"}


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_probe_takes_what_pays(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate is judged against the best so far; the run with all of them trains the same parameters."""
    slow(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda net, mode: net)
    seconds = {(): 1.0, ("channels_last",): 0.9, ("channels_last", "autocast"): 2.0, ("channels_last", "compiled"): 0.86}

    def timed(net: nn.Module, images: Tensor, labels: Tensor, speed_ups: SpeedUps, loss: object) -> float:
        return seconds[tuple(name for name, used in speed_ups.as_dict().items() if used)]

    monkeypatch.setattr(speed, "seconds_a_step", timed)
    batch, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    assert probe(network(method), batch, labels, 1) == SpeedUps(channels_last=True)  # 0.86 is within 5 % of 0.9
    seconds["channels_last", "compiled"] = 0.8
    assert probe(network(method), batch, labels, 1) == SpeedUps(channels_last=True, compiled=True)
    net = network(method)
    record = train(net, pictures(), RECIPE, seed=0, device=CPU, speed_ups=probe(network(method), batch, labels, 1))
    assert record["speed_ups"] == {"channels_last": True, "autocast": False, "compiled": True, "cuda_graphs": False}
    plain = network(method)
    other = train(plain, pictures(), RECIPE, seed=0, device=CPU)
    assert other["speed_ups"] == SpeedUps().as_dict()
    assert record["losses"][0] == pytest.approx(other["losses"][0], rel=0.1)


def test_a_short_run_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[SpeedUps] = []
    monkeypatch.setattr(speed, "seconds_a_step", lambda *given: tried.append(given[3]) or 0.5)
    assert probe(network(), torch.randn(2, 3, 16, 16), torch.arange(2), 39) == SpeedUps()
    assert tried == [SpeedUps()]
    probe(network(), torch.randn(2, 3, 16, 16), torch.arange(2), 41)
    assert [s.compiled for s in tried] == [False] * 4, "20 s pay for a trial of layouts, not for a compilation"


def test_cuda_graphs_record_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str | None] = []
    monkeypatch.setattr(torch, "compile", lambda net, mode: modes.append(mode) or net)
    for ups in (SpeedUps(), SpeedUps(compiled=True), SpeedUps(compiled=True, cuda_graphs=True)):
        ups.prepared(network())
    assert modes == [None, "reduce-overhead"]


def test_on_a_cpu_the_choice_does_not_depend_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long runs use channels-last; every profile's runs are long or short by their key alone."""

    def timed(*given: Any) -> float:
        raise AssertionError("no step is timed")

    monkeypatch.setattr(speed, "seconds_a_step", timed)
    images, labels = torch.zeros(100, 3, 100, 100), torch.zeros(100)
    assert chosen(network(), images, labels, 333) == SpeedUps()
    assert chosen(network(), images, labels, 334) == SpeedUps(channels_last=True)
    for profile, expected in (("smoke", False), ("quick", True), ("paper", True)):
        for name in SETTINGS:
            plan = resolve(name, profile)
            steps = plan.data.train // plan.recipe.batch_size * plan.recipe.epochs
            batch = torch.empty(plan.recipe.batch_size, 3, plan.data.resolution, plan.data.resolution, device="meta")
            assert chosen(network(), batch, labels, steps) == SpeedUps(channels_last=expected)


def test_autocast_trains() -> None:
    """bf16 on any machine: the activations' own gradients keep the types of their parameters."""
    fast = SpeedUps(channels_last=True, autocast=True)
    for method in ("qcfs", "qffs"):
        net = network(method)
        record = train(net, pictures(), RECIPE, seed=0, device=CPU, speed_ups=fast)
        assert all(math.isfinite(loss) for loss in record["losses"])
        assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
