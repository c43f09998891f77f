"""Several time steps at once are the same steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from training_cases import activation

from dynconf_core.conversion.convert import convert
from dynconf_core.simulation import network as module
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.pace import VALUES, Pace, chunks, largest

TIME_STEPS = 7
METHODS = ("qcfs", "qffs")


class Everything(nn.Module):
    """A max pool, a residual sum, one with a current of the image, a concatenation, a linear layer."""

    def __init__(self, method: str) -> None:
        super().__init__()
        make = activation(method, levels=4, bits=2, initial_threshold=1.0)
        self.first, self.a = nn.Conv2d(3, 4, 3, padding=1), make()
        self.second, self.b = nn.Conv2d(4, 4, 3, padding=1), make()
        self.third, self.c = nn.Conv2d(4, 4, 3, padding=1), make()
        self.pool, self.flatten, self.last = nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        current = self.first(x)
        a = self.a(current)
        b = self.b(self.second(a) + a)
        c = self.c(self.third(b) + current)
        result: Tensor = self.last(self.flatten(self.pool(torch.cat([b, c], 1))))
        return result


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3)).clamp(-3, 3)


def everything(method: str, fixed_point: bool = True) -> SpikingNetwork:
    torch.manual_seed(1)
    ann = Everything(method)
    with torch.no_grad():
        ann(images())  # the normalisations' statistics
    return convert(ann.eval(), images(), time_steps=TIME_STEPS, image_limit=3.1, fixed_point=fixed_point)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("integers", [False, True])
def test_steps_at_once_equal_step_by_step(method: str, integers: bool) -> None:
    """Logits, what every layer sends, and the state after them, for all ways to divide the steps."""
    snn = everything(method)
    if integers:
        snn.accelerate(6)
    input_current, state, logits, counts = snn.input_current(images()), None, [], []
    counter = Counter(snn)
    for time_step in range(1, TIME_STEPS + 1):
        step = snn.step(input_current, state, time_step, counter)
        state = step.state
        logits.append(step.logits)
        counts.append(counter.taken())
    assert state is not None and all(bool(sent.any()) for sent in counts[0].values())
    for longest in range(1, TIME_STEPS + 1):
        ongoing, found, seen = None, [], []
        for steps in chunks(TIME_STEPS, longest, snn.active_steps):
            several = snn.steps(input_current, ongoing, steps, counter)
            ongoing = several.state
            found.append(several.logits)
            seen.append(counter.taken())
        assert torch.equal(torch.cat(found), torch.cat(logits))
        for name in seen[0]:
            assert torch.equal(torch.cat([one[name] for one in seen]), torch.cat([one[name] for one in counts]))
        assert ongoing is not None
        for name, layer in state.items():
            for kept, expected in zip(ongoing[name], layer, strict=True):
                assert torch.equal(kept, expected)


@pytest.mark.parametrize("method", METHODS)
def test_any_pace_gives_the_same_logits(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = everything(method)
    expected = snn(images(), TIME_STEPS)
    for images_at_once, steps in itertools.product((1, 4, 6), (1, 3, TIME_STEPS)):
        at_once = Pace(images_at_once, steps)
        monkeypatch.setattr(module, "pace", lambda *given, at_once=at_once: at_once)
        assert torch.equal(snn(images(), TIME_STEPS), expected)


def test_plain_weights_give_the_same_twice() -> None:
    snn = everything("qcfs", fixed_point=False)
    assert torch.equal(snn(images(), TIME_STEPS), snn(images(), TIME_STEPS))


def test_no_steps_across_the_end_of_the_image() -> None:
    snn = everything("qffs")
    assert snn.active_steps == 3
    with pytest.raises(ValueError, match="acts up to step 3"):
        snn.steps(snn.input_current(images()), None, range(2, 5))


def test_chunks_cover_every_step_once() -> None:
    for time_steps, longest, active in itertools.product((1, 5, 12), (1, 4, 20), (None, 1, 3, 4, 12, 30)):
        found = list(chunks(time_steps, longest, active))
        assert [step for steps in found for step in steps] == list(range(1, time_steps + 1))
        assert all(len(steps) <= longest for steps in found)
        assert active is None or all((steps[0] <= active) == (steps[-1] <= active) for steps in found)


def test_the_pace_bounds_the_values_in_between() -> None:
    snn = everything("qcfs")
    for size in (1, 10, 64, 10_000):
        at_once = snn.pace(size, 32)
        assert 1 <= at_once.images <= size and 1 <= at_once.steps <= 32
        assert at_once.rows * largest(snn.graph) <= VALUES
    assert snn.pace(10, 2).steps <= 2
