"""The study of a sweep is a function of its name: interrupted and resumed, it asks for the same points."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dynconf_core.experiment.points import Range
from dynconf_core.schemes.field import Value
from dynconf_flows.study import run_study

RANGES = [Range("alpha", 0.5, 64.0), Range("time_steps", 4, 32), Range("smoothing", choices=("sum", "mean"))]
TRIALS = 16
"""More than the ten that TPE draws at random."""


class Dies(BaseException):
    """The process is killed."""


def figures(values: Mapping[str, Value]) -> Sequence[float]:
    """Accuracy and mean steps as they could be: longer is better, and takes longer."""
    alpha, steps = float(values["alpha"]), int(values["time_steps"])
    return 1 - 1 / steps - abs(alpha - 8) / 100 - (values["smoothing"] == "mean") / 50, steps * 0.5


def studied(journal: Path, dies_at: int | None = None, seed: int = 0, fails_at: int | None = None) -> list[dict[str, Value]]:
    asked: list[dict[str, Value]] = []

    def run_point(values: Mapping[str, Value]) -> Sequence[float] | None:
        asked.append(dict(values))
        if len(asked) - 1 == dies_at:
            raise Dies
        return None if len(asked) - 1 == fails_at else figures(values)

    run_study(run_point, RANGES, TRIALS, seed, "sweep-a", journal)
    return asked


def trials(journal: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="sweep-a", storage=JournalStorage(JournalFileBackend(str(journal)))).trials


def test_a_study_that_died_at_any_trial_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = studied(tmp_path / "whole")
    assert len({str(values) for values in whole}) > TRIALS / 2, "the points differ"
    for number in range(TRIALS):
        journal = tmp_path / str(number)
        with pytest.raises(Dies):
            studied(journal, dies_at=number)
        assert [trial.state.name for trial in trials(journal)] == ["COMPLETE"] * number
        assert studied(journal) == whole
        assert [trial.params for trial in trials(journal)] == whole
        assert {trial.state.name for trial in trials(journal)} == {"COMPLETE"}
    assert studied(tmp_path / "other", seed=1) != whole


def test_a_failed_trial_is_recorded_as_failed(tmp_path: Path) -> None:
    studied(tmp_path / "journal", fails_at=3)
    assert [trial.number for trial in trials(tmp_path / "journal") if trial.state.name == "FAIL"] == [3]


@pytest.mark.parametrize("damage", [b"{\n", b"\xff\xfe\n", b'{"op_code": 99}\n', b"[" * 5000 + b"\n"])
def test_a_damaged_journal_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    journal = tmp_path / "optuna.journal"
    whole = studied(journal)
    content = journal.read_bytes()
    half = content.index(b"\n", len(content) // 2) + 1
    journal.write_bytes(content[:half] + damage + content[half:])
    with caplog.at_level(logging.WARNING):
        assert studied(journal) == whole
    assert str(journal) in caplog.text and "optuna.journal.damaged" in caplog.text
    assert (tmp_path / "optuna.journal.damaged").read_bytes().count(damage) == 1
    assert [trial.params for trial in trials(journal)] == whole
