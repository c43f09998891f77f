"""Fine-tuning: it lowers the loss, goes on after an interruption with the same bits, and refuses in words what cannot work."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training_cases import CPU, RECIPE, equal, pictures, small

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.potential import Charging, keep_potentials, learn_potentials
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.errors import InputError
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.networks.checkpoint import load_checkpoint, save_checkpoint
from dynconf_core.training import fine_tuning
from dynconf_core.training.fine_tuning import FineTuningDiverged, fine_tune, loss_of
from dynconf_core.training.loop import train

HOW = FineTuning(epochs=3, steps=3, learning_rate=0.02, settled=0.5, distilled=0.5)
OPTIONS = ConversionOptions(time_steps=8)


def trained(method: str) -> nn.Module:
    network = small(method)
    train(network, pictures(32), replace(RECIPE, epochs=1), seed=0, device=CPU)
    return network


def tuned(network: nn.Module, how: FineTuning = HOW, resume: Path | None = None, stop_after: int | None = None) -> list[float]:
    record = fine_tune(network, pictures(32), RECIPE, how, OPTIONS, seed=0, device=CPU, resume=resume, stop_after=stop_after)
    return record["losses"]


@pytest.mark.parametrize("potentials", [False, True])
@pytest.mark.parametrize("method", ["qcfs", "qffs"])
def test_it_learns_and_goes_on_with_the_same_bits(method: str, potentials: bool, tmp_path: Path) -> None:
    how = replace(HOW, potentials=potentials)
    start = trained(method)
    whole, parts = copy.deepcopy(start), copy.deepcopy(start)
    losses = tuned(whole, how, resume=tmp_path / "whole")
    assert losses[-1] < losses[0]
    before, after = dict(start.named_parameters()), dict(whole.named_parameters())
    assert all(bool((one != after[name]).any()) for name, one in before.items())
    assert after.keys() - before.keys() == ({"first_fire.offset", "second_fire.offset"} if potentials else set())
    assert all(0 < float(after[name].detach().abs()) <= 0.5 for name in after.keys() - before.keys())
    tuned(parts, how, resume=tmp_path / "parts", stop_after=1)
    assert not equal(parts, whole)
    again = copy.deepcopy(start)
    assert tuned(again, how, resume=tmp_path / "parts") == losses
    assert equal(again, whole)
    assert all(bool(module.initialised) for module in again.modules() if isinstance(module, LSQ))


def test_potentials_stay_between_nothing_and_the_threshold() -> None:
    network = trained("qcfs")
    learn_potentials(network)
    fires = [module for module in network.modules() if isinstance(module, Charging)]
    for module, value in zip(fires, (0.75, -2.0), strict=True):
        assert module.offset is not None
        module.offset.data.fill_(value)
    keep_potentials(network)
    assert [float(one.offset.detach()) for one in fires if one.offset is not None] == [0.5, -0.5]
    tuned(network, replace(HOW, epochs=1, learning_rate=0.1, potentials=True))
    assert all(one.offset is not None and float(one.offset.detach().abs()) <= 0.5 for one in fires)  # 0.508 if nothing kept it


def test_a_checkpoint_brings_its_potentials_with_it(tmp_path: Path) -> None:
    """Into a network that has none; a file with some of them is refused, and leaves the network as it was."""
    network, without, wrapped = small("qffs"), small("qffs", 1), small("qffs", 1)
    learn_potentials(network)
    network.first_fire.offset.data.fill_(0.25)  # type: ignore[union-attr, operator]
    save_checkpoint(network, {}, tmp_path / "all.pt")
    load_checkpoint(without, tmp_path / "all.pt")
    assert equal(without, network) and without.first_fire.initial == 0.75
    state = network.state_dict()
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "wrapped.pt")
    load_checkpoint(wrapped, tmp_path / "wrapped.pt")
    assert equal(wrapped, network)
    del state["second_fire.offset"]
    torch.save(state, tmp_path / "some.pt")
    plain = small("qffs", 1)
    with pytest.raises(InputError, match=r"it lacks 'second_fire\.offset'"):
        load_checkpoint(plain, tmp_path / "some.pt")
    assert equal(plain, small("qffs", 1))


def test_another_fine_tuning_does_not_go_on_from_a_state(tmp_path: Path) -> None:
    start = trained("qcfs")
    tuned(copy.deepcopy(start), resume=tmp_path / "state", stop_after=1)
    other, alone = copy.deepcopy(start), copy.deepcopy(start)
    how = replace(HOW, steps=2)
    assert tuned(other, how, tmp_path / "state") == tuned(alone, how)
    assert equal(other, alone)


def test_the_loss_is_that_of_its_terms() -> None:
    rows, labels = torch.randn(4, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    known = torch.randn(5, 3)
    plain = torch.stack([cross_entropy(row, labels) for row in rows])
    soft = torch.stack([-(known.softmax(1) * row.log_softmax(1)).sum(1).mean() for row in rows])
    assert torch.allclose(loss_of(rows, labels, known, FineTuning(settled=0, distilled=0)), plain[:3].mean())
    both = 0.75 * plain + 0.25 * soft
    how = FineTuning(settled=2.0, distilled=0.25)
    assert torch.allclose(loss_of(rows, labels, known, how), (both[:3].mean() + 2 * both[3]) / 3)


def test_what_cannot_work_is_refused() -> None:
    network = trained("qcfs")
    with pytest.raises(InputError, match="batch_size=8 exceeds the 7 training images"):
        fine_tune(network, pictures(7), RECIPE, HOW, OPTIONS, seed=0, device=CPU)
    with pytest.raises(InputError, match="no activation of the network can learn an initial potential"):
        learn_potentials(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(FineTuningDiverged, match=r"fine_tune_rate=1e\+20.*Choose a lower rate: fine_tune_rate=2.5e\+19"):
        tuned(network, replace(HOW, learning_rate=1e20))


def test_a_loss_that_has_grown_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tuning, "WORSE", 0.0)
    with pytest.raises(FineTuningDiverged, match="in epoch 1 of"):
        tuned(trained("qcfs"), HOW)


def test_a_long_gradient_is_shortened() -> None:
    """Plain gradient descent without weight decay: the first step is as long as the rate says."""
    network, plain = trained("qcfs"), replace(RECIPE, momentum=0.0, weight_decay=0.0)
    before = [one.detach().clone() for one in network.parameters()]
    once = pictures(RECIPE.batch_size)
    fine_tune(network, once, plain, replace(HOW, epochs=1, learning_rate=0.5, settled=100.0), OPTIONS, seed=0, device=CPU)
    moved = torch.stack([(one - old).norm() for one, old in zip(network.parameters(), before, strict=True)]).norm()
    assert 0 < moved <= 0.5 * fine_tuning.GRADIENT_NORM * (1 + 1e-5)


def test_long_trainings_augmentations_are_left_out() -> None:
    assert FineTuning().augmentation(replace(RECIPE, augmentation=("crop", "flip", "autoaugment", "cutout"))) == (
        "crop",
        "flip",
    )
