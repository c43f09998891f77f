"""Guarantees by group: against plain counting, kept over many draws, and from the command to the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import command
from numpy.typing import NDArray
from study_cases import made

from dynconf_core import analyse
from dynconf_core.choosing.critical_losses import critical_losses
from dynconf_core.choosing.group_guarantee import certify_groups
from dynconf_core.choosing.guarantee import certify
from dynconf_core.errors import InputError
from dynconf_core.exit.rule import exit_steps
from dynconf_core.traces.groups import Groups, read_labels
from dynconf_core.traces.parts import split_in_two

EPSILON, DELTA = 0.1, 0.1
STEPS = 4


def drawn(samples: int, seed: int, hard: float) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]:
    """Scores, whether correct, and groups: exits of "hard" samples lose with the probability `hard` below a score of 0.5, of
    "easy" ones never."""
    random = np.random.default_rng(seed)
    scores = np.sort(random.random((samples, STEPS)), axis=1)
    groups = np.where(np.arange(samples) < 0.4 * samples, "hard", "easy")
    correct = np.ones((samples, STEPS), bool)
    correct[:, 0] = ~((groups == "hard") & (scores[:, 0] < 0.5) & (random.random(samples) < hard))
    return scores, correct, groups


def test_one_threshold_for_all_groups_by_plain_counting() -> None:
    scores, correct, groups = drawn(600, 1, 0.5)
    thresholds = np.linspace(0.02, 0.9, 30)
    guarantee, found = certify_groups(scores, correct, groups, thresholds, EPSILON, DELTA, known_at_exit=True)
    certified = []
    for threshold in thresholds[::-1]:
        steps = exit_steps(scores, threshold)
        right = correct[np.arange(600), steps - 1]
        for name in ("easy", "hard"):
            mine = groups == name
            table = critical_losses(int(mine.sum()), EPSILON, DELTA)
            gained = int((right & ~correct[:, -1])[mine].sum())
            if int((correct[:, -1] & ~right)[mine].sum()) > table[min(gained, len(table) - 1)]:
                break
        else:
            certified.append(float(threshold))
            continue
        break
    assert guarantee.threshold == certified[-1] and guarantee.certified and guarantee.tests.passed == len(certified)
    alone = certify(scores, correct, thresholds, EPSILON, DELTA)
    assert alone.threshold < guarantee.threshold  # which, for all together, lets the hard group lose more than it may
    steps = exit_steps(scores, guarantee.threshold)
    for one in found:
        mine = groups == one.group
        right = correct[np.arange(600), steps - 1]
        assert (one.samples, one.mean_steps) == (mine.sum(), steps[mine].mean())
        assert (one.lost, one.gained) == ((correct[:, -1] & ~right)[mine].sum(), (right & ~correct[:, -1])[mine].sum())
        assert one.own is not None
        expected = certify(scores[mine], correct[mine], thresholds, EPSILON, DELTA / 2)
        assert (one.own.threshold, one.own.delta) == (expected.threshold, DELTA / 2)
    easy, hard = (one.own for one in found)
    assert easy is not None and hard is not None and easy.threshold < guarantee.threshold <= hard.threshold
    assert "each of 2 groups (600 samples)" in guarantee.statement()


def test_the_promise_is_kept_for_every_group() -> None:
    """True loss of the hard group at a threshold c: its exits at step 1 below 0.5 lose. Broken at most as often as promised."""
    big = drawn(200_000, 99, 0.5)
    thresholds = np.linspace(0.0, 0.5, 26)
    hard = big[2] == "hard"
    steps = [exit_steps(big[0][hard], c) for c in thresholds]
    losses = [1.0 - big[1][hard][np.arange(hard.sum()), at - 1].mean() for at in steps]
    broken = useful = together = 0
    trials = 150
    for seed in range(trials):
        scores, correct, groups = drawn(300, seed, 0.5)
        guarantee, _ = certify_groups(scores, correct, groups, thresholds, EPSILON, DELTA)
        together += (
            losses[np.searchsorted(thresholds, certify(scores, correct, thresholds, EPSILON, DELTA).threshold)] > EPSILON
        )
        if guarantee.certified:
            useful += 1
            broken += losses[np.searchsorted(thresholds, guarantee.threshold)] > EPSILON
    assert broken <= trials * DELTA + 3 * (trials * DELTA * (1 - DELTA)) ** 0.5
    assert useful > trials / 2 and together > trials / 2  # the promise for all together is no promise for a group


def test_a_group_too_small_certifies_nothing_and_says_so() -> None:
    scores, correct, groups = drawn(300, 0, 0.0)
    groups[:5] = "rare"
    guarantee, found = certify_groups(scores, correct, groups, [0.1, 0.5], EPSILON, DELTA, known_at_exit=True)
    assert not guarantee.certified and guarantee.threshold == np.inf
    said = guarantee.statement()
    assert "cannot certify" in said and f"at least {guarantee.samples_needed} are needed in every group" in said
    assert "the smallest has 5" in said
    assert [one.own.certified for one in found if one.own is not None] == [True, True, False]


def test_classes_as_groups_in_an_analysis() -> None:
    calibration, test = made(1200, 1, STEPS, pull=1.0), made(400, 2, STEPS, pull=1.0)
    done = analyse(calibration, test, epsilon=EPSILON, delta=DELTA, measures=["gap"], groups="class", drops=(0.01,))
    promised = done.record.guarantee
    assert promised is not None and promised.groups is not None and done.guarantee is not None
    assert [one.group for one in promised.groups] == ["0", "1", "2", "3"] and all(one.own is None for one in promised.groups)
    assert done.rule.threshold == promised.threshold and "each of 4 groups" in str(done)
    assert "of every group" in promised.method
    for one, known in zip(promised.groups, done.record.by_class, strict=True):
        assert one.test is not None and vars(one.test) == {name: v for name, v in vars(known).items() if name != "label"}
    assert sum(one.samples for one in promised.groups) == promised.calibration == 600
    with pytest.raises(InputError, match="give epsilon and delta"):
        analyse(calibration, test, measures=["gap"], groups="class")
    with pytest.raises(InputError, match="'klass'"):
        analyse(calibration, test, epsilon=EPSILON, delta=DELTA, measures=["gap"], groups="klass")


def test_groups_from_files(tmp_path: Path) -> None:
    traces = made(40, 1, STEPS)
    calibration, test, split = split_in_two(traces, 0)
    names = np.array([f"g{sample % 3}" for sample in range(40)])
    np.save(tmp_path / "groups.npy", names)
    (tmp_path / "groups.csv").write_text("\n".join(names) + "\n")
    for file in ("groups.npy", "groups.csv"):
        found = Groups.read([str(tmp_path / file)], calibration, test, split).checked(calibration, test)
        assert found.calibration.tolist() == names[list(split.calibration)].tolist() and found.known_at_exit
        assert found.test is not None and found.test.tolist() == names[list(split.test)].tolist()
    np.save(tmp_path / "numbers.npy", np.arange(20) % 2)
    pair = [str(tmp_path / "numbers.npy")] * 2
    assert Groups.read(pair[:1], calibration, test).test is None
    both = Groups.read(pair, calibration, test)
    assert both.test is not None and both.test.tolist() == ["0", "1"] * 10
    np.save(tmp_path / "floats.npy", np.zeros(20))
    for wrong, said in (
        (["missing.csv"], "cannot be read"),
        ([str(tmp_path / "groups.npy")], "40 groups for 20 samples"),
        ([str(tmp_path / "floats.npy")], "integers or text"),
        (pair + pair, "one file for the calibration"),
    ):
        with pytest.raises(InputError, match=said):
            Groups.read(wrong, calibration, test)
    with pytest.raises(InputError, match="one set of traces was split"):
        Groups.read(pair, calibration, test, split)
    strange = replace(both, test=np.array(["2"] * 20))
    with pytest.raises(InputError, match="groups 2 have test samples and no calibration samples"):
        strange.checked(calibration, test)
    with pytest.raises(InputError, match="one for each of 20"):
        replace(both, calibration=both.calibration[1:]).checked(calibration, test)
    assert read_labels(str(tmp_path / "groups.csv"), 40)[1] == "g1"


def test_the_command_shows_and_stores_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made(400, 1, STEPS, pull=1.5).save(tmp_path / "calibration.npz")
    made(200, 2, STEPS, pull=1.5).save(tmp_path / "test.npz")
    Path("calibration.csv").write_text("".join(f"{'day' if sample % 4 else 'night'}\n" for sample in range(400)))
    Path("test.csv").write_text("".join(f"{'day' if sample % 4 else 'night'}\n" for sample in range(200)))
    answer = command(monkeypatch, capsys, "analyse")(
        *("calibration.npz", "--test", "test.npz", "--out", "found", "--rule", "gap"),
        *("--epsilon", "0.1", "--delta", "0.1", "--groups", "calibration.csv", "--groups", "test.csv"),
    )
    assert answer.code == 0, answer
    shown = answer.out
    promised = json.loads(Path("found/analysis.json").read_text())["guarantee"]
    day, night = promised["groups"]
    assert (day["group"], night["group"]) == ("day", "night") and night["test"]["samples"] == 50
    assert night["own"]["delta"] == 0.05 and night["own"]["test"]["samples"] == 50
    (line,) = [line for line in shown.splitlines() if line.startswith("night")]
    assert f"{night['test']['mean_steps']:.2f}" in line and str(night["samples"]) in line
    assert "each of 2 groups" in shown and "Own thresholds are for users who know the group" in shown
    report = next(Path("found").glob("*.html")).read_text()
    assert "--groups calibration.csv --groups test.csv" in report
