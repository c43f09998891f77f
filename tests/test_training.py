"""Training: the schedule, learning, resuming, threads."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_cases import CPU, RECIPE, equal, network, pictures

from dynconf_core.data import digits
from dynconf_core.errors import InputError
from dynconf_core.experiment.recipe import Recipe, learning_rate
from dynconf_core.failing import failing
from dynconf_core.networks.checkpoint import read
from dynconf_core.training import epochs, loop
from dynconf_core.training.keeper import Keeper
from dynconf_core.training.loop import train
from dynconf_core.training.speed import SpeedUps

# The schedule


def test_learning_rate_by_hand() -> None:
    """20 steps, 10 % warm-up: two steps up to 0.4, then half a cosine over 18."""
    recipe = Recipe(epochs=1, batch_size=2, learning_rate=0.4, augmentation=(), initial_threshold=4.0)
    assert learning_rate(0, 20, recipe) == pytest.approx(0.2)
    assert learning_rate(1, 20, recipe) == pytest.approx(0.4)
    assert learning_rate(2, 20, recipe) == pytest.approx(0.4)
    assert learning_rate(11, 20, recipe) == pytest.approx(0.2)  # half of the way down
    assert learning_rate(8, 20, recipe) == pytest.approx(0.4 * 0.75)  # a third: (1 + cos 60) / 2
    assert learning_rate(19, 20, recipe) == pytest.approx(0.2 * (1 + math.cos(math.pi * 17 / 18)))
    assert learning_rate(20, 20, recipe) == pytest.approx(0)
    rates = [learning_rate(step, 20, recipe) for step in range(2, 20)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_learning_rate_of_the_shortest_runs(steps: int) -> None:
    recipe = Recipe(epochs=1, batch_size=2, learning_rate=0.4, augmentation=(), initial_threshold=4.0)
    assert all(0 < learning_rate(step, steps, recipe) <= 0.4 for step in range(steps))


def test_the_loop_follows_sgd_by_hand() -> None:
    """Two steps of momentum SGD with weight decay on a linear network, written out."""
    data = pictures(4)
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=0.1, augmentation=(), initial_threshold=4.0, warm_up=0.5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10)).double()
    net[1].weight.data.mul_(0.1)
    inputs = data.normalisation(data.pixels).flatten(1).double()

    class Double(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(x.double())
            return result

    weight, bias = (p.detach().clone().requires_grad_() for p in net.parameters())
    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    losses = []
    for rate in (0.1, 0.1):  # the warm-up is the first step, the cosine starts at its top
        logits = inputs @ weight.T + bias
        loss = (torch.logsumexp(logits, 1) - logits[torch.arange(4), data.labels]).mean()
        losses.append(loss.item())
        for i, (parameter, gradient) in enumerate(zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True)):
            momenta[i] = 0.9 * momenta[i] + gradient + 5e-4 * parameter.detach()
            parameter.data -= rate * momenta[i]
    record = train(Double(net), data, recipe, seed=0, device=CPU)
    torch.testing.assert_close(net[1].weight.detach(), weight.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(net[1].bias.detach(), bias.detach(), rtol=0, atol=1e-12)
    assert record["losses"] == pytest.approx(losses)


# Learning and resuming


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_loss_goes_down_on_digits(method: str, tmp_path: Path) -> None:
    data = digits.load(tmp_path, "train", resolution=16, calibration=300).subset(torch.arange(256))
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.1, augmentation=(), initial_threshold=4.0)
    net = network(method)
    record = train(net, data, recipe, seed=0, device=CPU)
    assert record["losses"][-1] < 0.5 * record["losses"][0]
    assert record["losses"][0] < 4 and len(record["losses"]) == 4
    assert record["seconds"] > 0 and record["speed_ups"] == SpeedUps().as_dict()
    assert not net.training
    with torch.inference_mode():
        found = net(data.normalisation(data.pixels)).argmax(1)
    assert float((found == data.labels).float().mean()) > 0.6


@pytest.mark.parametrize("method", ["qcfs", "qffs"])
@pytest.mark.parametrize("first", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(method: str, first: int, tmp_path: Path) -> None:
    """To the bit, with augmentation, momentum, batch statistics, learned thresholds and steps."""
    whole = network(method)
    record = train(whole, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "whole")

    torch.manual_seed(1)
    train(network(method), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", stop_after=first)
    torch.manual_seed(2)
    resumed = network(method, seed=77)  # its weights are replaced
    assert not equal(resumed, whole)
    later = train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert equal(resumed, whole)
    assert later["losses"] == record["losses"] and len(later["losses"]) == 3
    last, other = read(tmp_path / "resume"), read(tmp_path / "whole")
    for mine, theirs in zip(last["optimiser"]["state"].values(), other["optimiser"]["state"].values(), strict=True):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    again = network(method)
    assert train(again, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")["losses"] == record["losses"]
    assert equal(again, whole), "a finished run is not trained on"


@pytest.mark.parametrize("at", [1, 5, 8])
def test_progress_that_raises_stops_and_the_run_goes_on_later(at: int, tmp_path: Path) -> None:
    """In the first epoch, in the second, and with all but one batch done."""

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int, text: str) -> None:
        assert total == 9
        if done == at:
            raise Cancelled

    whole, stopped, resumed = network(), network(), network()
    train(whole, pictures(), RECIPE, seed=5, device=CPU)
    with pytest.raises(Cancelled):
        train(stopped, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", progress=cancel)
    assert (tmp_path / "resume").exists() == (at > 3)
    train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert equal(resumed, whole)


def test_progress_tells_every_batch() -> None:
    told: list[tuple[int, int, str]] = []
    train(network(), pictures(), RECIPE, seed=5, device=CPU, progress=lambda *given: told.append(given))
    assert told[0] == (0, 9, "choosing speed-ups")
    assert [done for done, _, _ in told[1:]] == list(range(1, 10))
    assert told[1][2] == "epoch 1/3" and told[-1][2].startswith("epoch 3/3, loss ")


def trained_from_the_same_weights(seed: int) -> nn.Module:
    net = network()
    train(net, pictures(), RECIPE, seed=seed, device=CPU)
    return net


def test_the_same_seed_trains_the_same_network() -> None:
    assert equal(trained_from_the_same_weights(1), trained_from_the_same_weights(1))


def test_the_seed_decides_shuffling_and_augmentation() -> None:
    assert not equal(trained_from_the_same_weights(1), trained_from_the_same_weights(2))


def test_threads_do_not_disturb_each_other() -> None:
    """Two trainings at once, and a third thread that draws from torch's global generator all the while."""

    def trained(method: str, seed: int) -> nn.Module:
        torch.set_num_threads(1)
        net = network(method, seed)
        train(net, pictures(40, seed), RECIPE, seed=seed, device=CPU)
        return net

    jobs = [("qcfs", 1), ("qffs", 2)]
    alone = [trained(*job) for job in jobs]
    together: dict[int, nn.Module] = {}
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            torch.manual_seed(0)
            torch.rand(3)

    noise = threading.Thread(target=draw)
    workers = [
        threading.Thread(target=lambda i=i, job=job: together.__setitem__(i, trained(*job))) for i, job in enumerate(jobs)
    ]
    for thread in (noise, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    noise.join()
    assert all(equal(alone[i], together[i]) for i in range(2))


def test_too_few_images() -> None:
    with pytest.raises(InputError, match=r"batch_size=8 exceeds the 7 training images"):
        train(network(), pictures(7), RECIPE, seed=0, device=CPU)


def test_states_of_short_epochs_are_not_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the last one is, also where a run is stopped on purpose."""
    kept: list[int] = []
    monkeypatch.setattr(Keeper, "keep", lambda self, state: kept.append(len(state["record"]["losses"])))
    for seconds, stop_after, expected in ((0.0, None, [1, 2, 3]), (1e9, None, [3]), (1e9, 2, [2])):
        monkeypatch.setitem(epochs.KEPT_EVERY, "cpu", seconds)
        kept.clear()
        train(network(), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume", stop_after=stop_after)
        assert kept == expected


@pytest.mark.parametrize(
    "damage", ["nothing", "zeros", "half", "a flipped bit", "another seed", "another network", "more images"]
)
def test_a_resume_file_of_no_use_is_set_aside(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training starts afresh, with a warning that names the file, and gives the bits of an undisturbed run."""
    whole, resume = network(), tmp_path / "resume"
    train(whole, pictures(), RECIPE, seed=5, device=CPU)
    other = network("qffs") if damage == "another network" else network()
    seed, count = (6 if damage == "another seed" else 5), (40 if damage == "more images" else 27)
    train(other, pictures(count), RECIPE, seed=seed, device=CPU, resume=resume, stop_after=1)
    content = resume.read_bytes()
    middle = len(content) // 2
    changed = {
        "nothing": b"",
        "zeros": bytes(40),
        "half": content[:middle],
        "a flipped bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    resume.write_bytes(changed.get(damage, content))
    resumed = network()
    train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=resume)
    assert equal(resumed, whole)
    (warning,) = [record.getMessage() for record in caplog.records]
    (aside,) = tmp_path.glob("resume.damaged-*")
    assert str(resume) in warning and aside.name in warning
    train(network(), pictures(), RECIPE, seed=5, device=CPU, resume=resume)
    assert len(caplog.records) == 1, "the new file is of use"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("point", ["file.written", "train.epoch"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_dies_in_a_write_goes_on_to_the_same_bits(point: str, at: int, tmp_path: Path) -> None:
    passed: list[str] = []

    def die(name: str) -> None:
        passed.append(name)
        if passed.count(point) == at:
            raise Killed

    whole, resumed = network("qffs"), network("qffs")
    train(whole, pictures(), RECIPE, seed=5, device=CPU)
    with pytest.raises(Killed), failing(die):
        train(network("qffs"), pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert passed.count(point) == at
    train(resumed, pictures(), RECIPE, seed=5, device=CPU, resume=tmp_path / "resume")
    assert equal(resumed, whole)


def overflowing(*biases: float) -> nn.Module:
    """A network whose biases of the last layer are these; weight decay multiplies them by about -9 a step."""
    found = network()
    with torch.no_grad():
        found.get_parameter("head.2.bias").copy_(torch.tensor(biases))
    return found


OVERFLOWING = replace(RECIPE, learning_rate=10.0, weight_decay=1.0, warm_up=0.0, epochs=50)


@pytest.mark.parametrize(("biases", "epoch"), [([2e34] * 10, 2), ([3e38] + [-3e38] * 9, 1)])
def test_a_run_that_diverges_stops_at_once(biases: list[float], epoch: int, tmp_path: Path) -> None:
    """It names the epoch, the learning rate and the remedy, and keeps no state that is not finite."""
    done: list[int] = []
    words = (
        re.escape(f"diverged in epoch {epoch} of 50 with learning_rate=10: ") + ".*Choose a lower one, such as learning_rate="
    )
    with pytest.raises(loop.TrainingDiverged, match=words):
        train(
            overflowing(*biases),
            pictures(),
            OVERFLOWING,
            seed=5,
            device=CPU,
            resume=tmp_path / "resume",
            progress=lambda *given: done.append(given[0]),
        )
    assert len(done) <= 3 * epoch and (tmp_path / "resume").exists() == (epoch > 1)


def test_weights_that_overflow_in_the_last_step_are_noticed() -> None:
    """Its loss was finite."""
    recipe = replace(OVERFLOWING, epochs=1, batch_size=27)
    with pytest.raises(loop.TrainingDiverged, match="a weight is no longer finite"):
        train(overflowing(*[1e38] * 10), pictures(), recipe, seed=5, device=CPU)
