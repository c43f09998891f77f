"""The page of a published run: every figure of it from results.json, and everything that was reduced named."""

from typing import Any

import pytest
from result_cases import compared, exiting, failed_setting, run_result, setting_result

from dynconf_core.evaluation.setting import AtPaperTimeSteps
from dynconf_core.results.page import run_page
from dynconf_core.results.types import AnySetting, SettingResult


def row(name: str, **more: Any) -> SettingResult:
    figures = {
        "time_steps": 4,
        "snn_accuracy": 0.9,
        "accuracy_at_t": (0.5, 0.8, 0.88, 0.9),
        "exit": exiting(0.89, 2.25, latency_saving=0.4375, speedup=1.78),
        "comparison": tuple(compared("gap", drop, 2.0 - drop, drop) for drop in (0.0, 0.001, 0.005, 0.01)),
    }
    return setting_result(name, **{**figures, **more})


def page(*rows: AnySetting, training: dict[str, Any] | None = None) -> str:
    made = {"run": "a-run", "seed": 3, "overrides": {"epochs": 9}, "command": "dynconf reproduce --seed 3"}
    return run_page(run_result(*rows, **made, mean_latency_saving=0.4375), training or {})


def test_the_page_names_what_was_run_and_on_what() -> None:
    text = page(row("one"))
    for words in ("Profile smoke, seed 3", "digits instead of CIFAR-10", "width 0.125", "epochs=9"):
        assert words in text
    assert "Converted, simulated and evaluated on 2 cores of A CPU; Python 3.11.7, torch 2.13.0; commit abc." in text
    assert "    dynconf reproduce --seed 3\n" in text


def test_a_gain_too_small_to_see_is_no_negative_zero() -> None:
    own = exiting(0.90004, 2.0)
    assert ", 0.00 points lost" in page(row("one", exit=own))


@pytest.mark.parametrize(
    ("steps", "fixed", "equal"),
    [(2.25, 82.0, 4), (2.0, 80.0, 4), (4.0, 90.0, 4), (3.5, 89.0, 4), (1.0, 50.0, 4)],
)
def test_a_fixed_t_of_as_many_steps(steps: float, fixed: float, equal: int) -> None:
    """0.5, 0.8, 0.88, 0.9 at the steps 1 to 4; between them a mix."""
    own = exiting(0.89, steps)
    text = page(row("one", exit=own))
    assert f"| one | 89.00 % @ {steps:.2f} | {fixed:.2f} % | {89 - fixed:+.2f} | {equal} |" in text


def test_no_fixed_t_is_as_accurate() -> None:
    own = exiting(0.91, 2.0)
    assert "| +11.00 | none |" in page(row("one", exit=own))


def test_every_rule_at_equal_accuracy_and_at_the_papers_t() -> None:
    cut = AtPaperTimeSteps(2, 0.8, tuple(compared("learned", drop, 1.5, -drop) for drop in (0.0, 0.001)))
    text = page(row("one"), row("two", at_paper_time_steps=cut))
    assert "| one, 90.00 % @ 4 | gap | 2.00, 50.0 % (0.00) | 2.00, 50.0 % (0.10 lost) |" in text
    assert "| two, 80.00 % @ 2 | learned | 1.50, 25.0 % (0.00) | 1.50, 25.0 % (0.10 gained) |" in text
    assert "With T as in the paper" not in page(row("one"))


def test_a_failed_setting_is_told_and_has_no_figures() -> None:
    text = page(row("one"), failed_setting("broken", "train: no"))
    assert "broken failed at train: no" in text and text.count("| broken |") == 1


def test_the_training_is_told_as_far_as_it_is_known() -> None:
    record = {"parameters": 7, "seed": 3, "device": "cpu", "threads": 1, "record": {"seconds": 1800.0}}
    known = {**record, "recipe": {"epochs": 9, "augmentation": ["crop", "flip"]}}
    text = page(row("one"), row("two"), training={"one": known, "two": {}})
    assert "| one | 7 | 9 | crop flip | 3 | cpu, 1 thread | 0.50 |" in text and "| two | 7" not in text
    assert "## Training" not in page(row("one"))
