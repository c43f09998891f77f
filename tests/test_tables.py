"""The results as files and as tables."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from result_cases import ENVIRONMENT, PUBLISHED, exiting, failed_setting, rule_entry, run_result, setting_result
from rich.table import Table

from dynconf_core.evaluation.energy import FullAndExit
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.names import is_plain
from dynconf_core.results.environment import environment
from dynconf_core.results.files import csv_text, new_run, over_seeds, write_over_seeds, write_results
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.records import plain, read
from dynconf_core.results.run_names import LONGEST, folder_name
from dynconf_core.results.types import (
    FailedPoint,
    FiguresOverSeeds,
    OverSeeds,
    RunResult,
    SettingOverSeeds,
    Spread,
    SweepPoint,
    SweepResult,
)
from dynconf_core.schemes.field import Value
from dynconf_flows.command.tables import results_table, seeds_table, sweep_table
from dynconf_flows.command.terminal import Terminal

NAMES = ("cifar10-vgg16-qcfs", "cifar10-resnet18-qcfs", "imagenet-vgg16-qffs", "imagenet-resnet50-qcfs")


def printed(content: RunResult, width: int, verbose: bool = True) -> str:
    return shown(results_table(content, width, verbose), width)


def shown(table: Table, width: int) -> str:
    console, out = Terminal(width=width), io.StringIO()
    console.file = out
    console.print(table)
    return out.getvalue()


def test_results_lie_in_the_runs_folder_and_latest_follows(tmp_path: Path) -> None:
    path = write_results(tmp_path, run_result(setting_result(NAMES[0]), run="first"))
    assert path == tmp_path / "results" / "first" / "results.json"
    assert json.loads(path.read_text())["settings"][0]["name"] == NAMES[0]
    latest = tmp_path / "results" / "latest"
    assert latest.is_symlink() and latest.resolve() == path.parent.resolve()
    second = write_results(tmp_path, run_result(setting_result(NAMES[1]), run="second"))
    assert latest.resolve() == second.parent.resolve()
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert (moved / "results" / "latest" / "results.json").is_file(), "the link must survive a move of the home"
    left = [found.name for found in (moved / "results").rglob("*") if found.name.startswith(".")]
    assert left == [], "no temporary file stays"


def test_the_csv_has_a_row_a_setting_and_joined_names(tmp_path: Path) -> None:
    path = write_results(
        tmp_path, run_result(setting_result(NAMES[0], PUBLISHED), failed_setting(NAMES[1], 'convert: a "b", c\nd'))
    )
    with (path.parent / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["exit_mean_steps"] == "10.25"
    assert first["oracles_first_correct_mean_steps"] == "3.33"
    assert first["baselines_iso_accuracy_time_steps"] == "20"
    assert first["data_stands_in_for"] == "CIFAR-10"
    assert first["exit_rule_threshold"] == "inf"
    assert second["name"] == NAMES[1] and second["status"] == "failed" and second["error"] == 'convert: a "b", c\nd'
    assert second["exit_mean_steps"] == ""
    assert not any(name.startswith("by_class") for name in first)


def test_rows_of_different_runs_can_be_told_apart_in_one_csv() -> None:
    rows = failed_setting(NAMES[1], "convert: no"), setting_result(NAMES[0])
    runs = [
        replace(run_result(*rows, run=name), seed=seed, overrides=overrides)
        for name, seed, overrides in (("a", 0, {"time_steps": 16}), ("b", 2, {"time_steps": 8, "fixed_point": False}))
    ]
    found = [line for one in runs for line in csv.DictReader(csv_text(one).splitlines())]
    assert [(line["run"], line["profile"], line["seed"], line["overrides_time_steps"]) for line in found] == [
        ("a", runs[0].profile, "0", "16"),
        ("a", runs[0].profile, "0", "16"),
        ("b", runs[0].profile, "2", "8"),
        ("b", runs[0].profile, "2", "8"),
    ]
    assert list(found[2])[-5:] == ["run", "profile", "seed", "overrides_time_steps", "overrides_fixed_point"]
    points = tuple(
        FailedPoint(setting=NAMES[0], values=values, error="no", artefacts={}) for values in ({"seed": 3}, {"alpha": 2.0})
    )
    swept = SweepResult(
        run="s", profile="smoke", seed=1, environment=ENVIRONMENT, failed=2, points=points, overrides={"rule": "gap"}
    )
    assert [(line["seed"], line["overrides_rule"]) for line in csv.DictReader(csv_text(swept).splitlines())] == [
        ("3", "gap"),
        ("1", "gap"),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_what_was_interrupted_is_called_stopped(width: int) -> None:
    error = "train: interrupted; run again to continue from the finished stages"
    content = run_result(setting_result(NAMES[0]), failed_setting(NAMES[1], error), failed_setting(NAMES[2], "convert: no"))
    for text in (" ".join(printed(content, width).split()), results_markdown(content)):
        assert f"{NAMES[1]} stopped at train: interrupted" in text and f"{NAMES[2]} failed at convert: no" in text


def test_the_papers_mean_stands_only_beside_that_of_the_same_settings() -> None:
    rows = [setting_result(name) for name in SETTINGS]
    assert len(rows) == 8 and "the paper, over the same eight: 40 %" in " ".join(printed(run_result(*rows), 120).split())
    for fewer in (run_result(*rows[:1]), run_result(*rows[:-1]), run_result(*rows[1:], failed_setting(rows[0].name, "no"))):
        assert "of the time steps saved" in results_markdown(fewer) and "40 %" not in results_markdown(fewer)


def test_tables_over_seeds_and_of_sweeps_have_units_and_two_decimals() -> None:
    runs = [run_result(setting_result(NAMES[0], exit=exiting(0.5, 2.0, latency_saving=saving))) for saving in (0.25, 0.75)]
    assert "50.00±35.36 %" in shown(seeds_table(runs), 120)
    figures = {"ann_accuracy": 0.97985, "snn_accuracy": 0.9, "accuracy": 0.97991, "mean_steps": 2.5}
    point = SweepPoint(
        setting=NAMES[0],
        values={"alpha": 2.0},
        error=None,
        calibration_accuracy=0.98333,
        calibration_mean_steps=2.25,
        stages={},
        artefacts={},
        **figures,
    )
    stopped = FailedPoint(setting=NAMES[0], values={"alpha": 4.0}, error="train: interrupted; run again", artefacts={})
    swept = SweepResult(run="sweep", profile="smoke", seed=0, environment=ENVIRONMENT, failed=1, points=(point, stopped))
    text = shown(sweep_table(swept), 160)
    for figure in ("97.98", "90.00", "98.33 @ 2.25", "97.99 @ 2.50", "Accuracies in %", "stopped at train: interrupted"):
        assert figure in text, figure


def test_json_has_no_infinity(tmp_path: Path) -> None:
    own = exiting(rule=rule_entry(float("-inf")))
    content = run_result(setting_result(NAMES[0], exit=own, ece=FullAndExit(float("nan"), float("inf"))))
    text = write_results(tmp_path, content).read_text()
    assert "Infinity" not in text and "NaN" not in text
    written = json.loads(text)["settings"][0]
    assert written["exit"]["rule"]["threshold"] == "-inf"
    assert written["ece"] == {"full": None, "exit": "inf"}


def test_a_run_in_which_all_failed_is_written_and_shown(tmp_path: Path) -> None:
    content = run_result(failed_setting(NAMES[0], "train: out of memory"), mean_latency_saving=None)
    assert json.loads(write_results(tmp_path, content).read_text())["mean_latency_saving"] is None
    assert "out of memory" in printed(content, 80)
    assert "out of memory" in results_markdown(content)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_everything_at_every_width(width: int) -> None:
    content = run_result(
        setting_result(NAMES[0]), setting_result(NAMES[1], PUBLISHED), setting_result(NAMES[2]), setting_result(NAMES[3])
    )
    text = printed(content, width)
    assert "…" not in text, "nothing is cut off"
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    together = " ".join(text.split()).replace("@ ", "@").replace(" @", "@")
    assert "smoke" in text and "digits" in text and "CIFAR-10" in together
    for name in NAMES:
        assert name in text
    for figure in ("96.00", "95.57@32", "95.37@10.25", "68.0", "3.12x", "98.76@3.33"):
        assert figure in together, figure
    assert "94.27@27" in together and "94.27@11.51" in together and "[S]" in together
    assert "49.5" in together and "[2]" in together and "not named" in together


@pytest.mark.parametrize("width", [80, 120])
def test_without_verbose_the_table_has_no_footnotes_of_the_paper(width: int) -> None:
    content = run_result(
        setting_result(NAMES[0]), setting_result(NAMES[1], PUBLISHED), failed_setting(NAMES[2], "out of memory")
    )
    text = printed(content, width, verbose=False)
    assert "not named" not in text and f"Paper, {NAMES[1]}" not in text and "--verbose" in text
    assert ("94.27 @ 27" in text) == ("[S]" in text) == (width == 120)
    assert "of the time steps saved" in text and "iso-accuracy" in text and "out of memory" in text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verbose", [True, False])
def test_labels_of_the_paper_stand_only_below_its_figures(width: int, verbose: bool) -> None:
    content = run_result(setting_result(NAMES[0]), paper_footnotes=())
    text = printed(content, width, verbose)
    assert "Accuracies in %" in text and not any(word in text for word in ("[S]", "second-hand", "paper's figures"))
    assert "second-hand" not in results_markdown(content) and "[S] stated by" in results_markdown(run_result(*content.settings))


@pytest.mark.parametrize(
    ("saving", "words"),
    [
        (0.578, "57.8 % saved"),
        (-0.0001, "0.0 % saved"),
        (-0.05, "5.0 % more steps"),
        (-2.328, "3.3 times its steps"),
    ],
)
def test_what_an_exit_saves_or_takes_against_a_fixed_step(saving: float, words: str) -> None:
    row = setting_result(NAMES[0])
    baselines = tuple(replace(one, latency_saving=saving) for one in row.baselines)
    assert f"on calibration as T): {words}." in results_markdown(run_result(replace(row, baselines=baselines)))


@pytest.mark.parametrize("verbose", [True, False])
def test_warnings_stand_below_every_table(verbose: bool) -> None:
    content = run_result(setting_result(NAMES[0], warnings=("the loss falls on [one] class",)), setting_result(NAMES[1]))
    text = " ".join(printed(content, 80, verbose).split())
    assert f"Warning, {NAMES[0]}: the loss falls on [one] class" in text and f"Warning, {NAMES[1]}" not in text
    assert "the loss falls on [one] class" in results_markdown(content)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({}, "smoke-seed3"),
        ({"time_steps": 16, "fixed_point": False}, "smoke-seed3-time_steps=16-fixed_point=false"),
        ({"alpha": 20.0, "max_drop": 0.005}, "smoke-seed3-alpha=20-max_drop=0.005"),
        ({"rule": "my.package:Rule"}, "smoke-seed3-rule=my.package_Rule-"),
        ({"rule": "../x/é"}, "smoke-seed3-rule=.._x_-"),
    ],
)
def test_runs_are_named_by_what_was_overridden(overrides: dict[str, Value], name: str) -> None:
    found = folder_name("smoke", 3, overrides)
    assert found.startswith(name) and is_plain(found)
    assert (found == name) == (not name.endswith("-"))
    assert results_folder(overrides) != results_folder({**overrides, "epochs": 1})


def test_long_names_stay_apart() -> None:
    names = {results_folder({f"field{number}": 0.123456789 for number in range(count)}) for count in range(30)}
    assert len(names) == 30 and all(len(name) <= LONGEST for name in names)


def results_folder(overrides: dict[str, Value]) -> str:
    return folder_name("smoke", 0, overrides)


def test_what_the_rounded_weights_cost_is_said_where_they_cost_something() -> None:
    same, worse, better = (
        setting_result(NAMES[0]),
        setting_result(NAMES[1], reference_accuracy=0.954),
        setting_result(NAMES[2], reference_accuracy=0.961),
    )
    together = " ".join(printed(run_result(same, worse, better), 80).split())
    assert "Rounding the weights to fixed point changes the ANN's accuracy by -0.17 points on average" in together
    assert f"{NAMES[1]} 96.00 → 95.40, {NAMES[2]} 96.00 → 96.10" in together and f"{NAMES[0]} 96.00 →" not in together
    assert "Rounding the weights" not in printed(run_result(same), 80)
    assert "96.00 → 95.40" in results_markdown(run_result(worse))


@pytest.mark.parametrize("width", [80, 120])
def test_a_failed_setting_shows_the_gap_and_the_reason_as_it_is(width: int) -> None:
    """A reason may hold what is markup to the table's printer."""
    reason = "convert: [/tmp/weights.pt] has [bold] no tensor | 'features.0.weight'"
    content = run_result(setting_result(NAMES[0]), failed_setting(NAMES[1], reason))
    text = " ".join(printed(content, width).split())
    assert NAMES[1] in text and "failed" in text
    assert reason in text
    line = next(line for line in results_markdown(content).splitlines() if line.startswith(f"| {NAMES[1]}"))
    assert line.replace("\\|", "").count("|") == 9, "a bar in the reason must not make a column"


def test_markdown_has_the_tables_figures() -> None:
    text = results_markdown(run_result(setting_result(NAMES[0]), setting_result(NAMES[1], PUBLISHED)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    for figure in ("95.57", "10.25", "3.12x", "3.33", "94.27", "11.51", "smoke", "digits"):
        assert figure in text


def test_a_paper_row_with_figures_missing_is_shown_as_far_as_it_goes() -> None:
    partial = replace(PUBLISHED, snn_accuracy=None, time_steps=None, exit_accuracy=None, label="2")
    assert "11.51" in printed(run_result(setting_result(NAMES[0], partial)), 120)
    assert "11.51" in results_markdown(run_result(setting_result(NAMES[0], partial)))


def test_environment_facts_name_versions_and_machine_without_importing_torch() -> None:
    code = (
        "import json, sys; from dynconf_core.results.environment import environment; facts = vars(environment());"
        "assert 'torch' not in sys.modules; print(json.dumps(facts))"
    )
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    facts = json.loads(said.stdout)
    assert {"python", "platform", "cpu", "cores", "gpu", "commit", "versions"} <= facts.keys()
    assert {"torch", "numpy", "prefect", "mlflow", "optuna"} <= facts["versions"].keys()
    assert json.dumps(plain(environment()), allow_nan=False)


def test_over_seeds_by_hand(tmp_path: Path) -> None:
    def one(run: str, ann: float, steps: float, *broken: str) -> RunResult:
        own = exiting(0.5, steps, latency_saving=1 - steps / 8)
        rows = [setting_result(name, ann_accuracy=ann, snn_accuracy=0.5, exit=own) for name in "ab"]
        return run_result(*(failed_setting(row.name, "no") if row.name in broken else row for row in rows), run=run)

    first, second = one("1", 0.7, 2.0), one("2", 0.9, 4.0, "b")
    steps, saving = Spread(3.0, 2**0.5), Spread(0.625, pytest.approx(0.25 / 2**0.5))
    ann = Spread(pytest.approx(0.8), pytest.approx(0.2 / 2**0.5))
    figures = FiguresOverSeeds(ann, Spread(0.5, 0.0), Spread(0.5, 0.0), steps, saving)
    found = over_seeds([first, second])
    assert found == OverSeeds(("1", "2"), (SettingOverSeeds("a", figures), SettingOverSeeds("b", None)))
    for run in (first, second):
        write_results(tmp_path, run)
    path = write_over_seeds(tmp_path, [first, second])
    assert path == tmp_path / "results" / "2" / "over_seeds.json" and read(OverSeeds, path) == found


def test_runs_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    names = {new_run(tmp_path, "smoke-seed0") for _ in range(5)}
    assert len(names) == 5 and all((tmp_path / "results" / name).is_dir() for name in names)
    assert all(name.endswith("-smoke-seed0") for name in names)
