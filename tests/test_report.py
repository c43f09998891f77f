"""The results as files and as tables."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dynconf_core.results.files import environment_facts, new_run, over_seeds, write_results
from dynconf_flows.command.tables import results_markdown, results_table

PUBLISHED = {
    "source": "the authors' released log",
    "label": "S",
    "ann_accuracy": 0.9379,
    "snn_accuracy": 0.9427,
    "time_steps": 27,
    "exit_accuracy": 0.9427,
    "mean_steps": 11.51,
}
NAMES = ("cifar10-vgg16-qcfs", "cifar10-resnet18-qcfs", "imagenet-vgg16-qffs", "imagenet-resnet50-qcfs")
STAGES = ("train", "convert", "collect_calibration", "collect_test", "search", "evaluate")


def row(name: str, paper: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "status": "ok",
        "error": None,
        "data": {"name": "digits", "stands_in_for": "CIFAR-10", "train": 1000, "calibration": 300, "test": 497},
        "network": {"architecture": "vgg16", "width": 0.125, "parameters": 532177},
        "method": "qcfs",
        "levels": 4,
        "time_steps": 32,
        "ann_accuracy": 0.96,
        "reference_accuracy": 0.96,
        "snn_accuracy": 0.9557,
        "accuracy_at_t": [0.1, 0.5, 0.9557],
        "exit": {
            "accuracy": 0.9537,
            "mean_steps": 10.25,
            "median_steps": 9.0,
            "p90_steps": 20.0,
            "latency_saving": 0.6796875,
            "speedup": 3.12,
            "histogram": [0, 400, 97],
            "rule": {"rule": "max_softmax", "smoothing": {"form": "sum", "alpha": 3.0}, "threshold": "inf"},
        },
        "baselines": [
            {"name": "full", "time_steps": 32, "accuracy": 0.9557, "latency_saving": 0.6796875},
            {"name": "iso_accuracy", "time_steps": 20, "accuracy": 0.95, "latency_saving": 0.4875},
        ],
        "oracles": {name: {"accuracy": 0.9876, "mean_steps": 3.33} for name in ("first_correct", "stays_correct", "aet")},
        "spikes_per_neuron": {"full": 3.0, "exit": 1.3},
        "spikes_per_inference": {"full": 30000.0, "exit": 13000.0},
        "paper": {"rows": [paper]} if paper else None,
        "stages": dict.fromkeys(STAGES, "ran"),
    }


def failed(name: str, error: str) -> dict[str, Any]:
    return {"name": name, "status": "failed", "error": error, "stages": dict.fromkeys(STAGES, "not_run")}


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "run": "20260101-000000-smoke-seed0",
        "profile": "smoke",
        "seed": 0,
        "overrides": {},
        "command": "dynconf reproduce",
        "environment": {},
        "mean_latency_saving": 0.6797,
        "paper_footnotes": [
            {
                **PUBLISHED,
                "family": "ImageNet, QCFS",
                "label": "2",
                "time_steps": None,
                "snn_accuracy": None,
                "mean_steps": 49.5,
            }
        ],
        "settings": list(rows),
    }


def printed(content: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(content, width))
    return console.export_text()


def test_results_lie_in_the_runs_folder_and_latest_follows(tmp_path: Path) -> None:
    path = write_results(tmp_path, "first", document(row(NAMES[0])))
    assert path == tmp_path / "results" / "first" / "results.json"
    assert json.loads(path.read_text())["settings"][0]["name"] == NAMES[0]
    latest = tmp_path / "results" / "latest"
    assert latest.is_symlink() and latest.resolve() == path.parent.resolve()
    second = write_results(tmp_path, "second", document(row(NAMES[1])))
    assert latest.resolve() == second.parent.resolve()
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert (moved / "results" / "latest" / "results.json").is_file(), "the link must survive a move of the home"
    left = [found.name for found in (moved / "results").rglob("*") if found.name.startswith(".")]
    assert left == [], "no temporary file stays"


def test_the_csv_has_a_row_a_setting_and_joined_names(tmp_path: Path) -> None:
    path = write_results(tmp_path, "run", document(row(NAMES[0], PUBLISHED), failed(NAMES[1], 'convert: a "b", c\nd')))
    with (path.parent / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["exit_mean_steps"] == "10.25"
    assert first["oracles_first_correct_mean_steps"] == "3.33"
    assert first["baselines_first_equal_time_steps"] == "20"
    assert first["data_stands_in_for"] == "CIFAR-10"
    assert first["exit_rule_threshold"] == "inf"
    assert second["name"] == NAMES[1] and second["status"] == "failed" and second["error"] == 'convert: a "b", c\nd'
    assert second["exit_mean_steps"] == ""


def test_json_has_no_infinity(tmp_path: Path) -> None:
    content = document(row(NAMES[0]))
    content["settings"][0]["exit"]["rule"]["threshold"] = float("-inf")
    content["settings"][0]["ece"] = {"full": float("nan"), "exit": float("inf")}
    text = write_results(tmp_path, "run", content).read_text()
    assert "Infinity" not in text and "NaN" not in text
    written = json.loads(text)["settings"][0]
    assert written["exit"]["rule"]["threshold"] == "-inf"
    assert written["ece"] == {"full": None, "exit": "inf"}


def test_a_run_in_which_all_failed_is_written_and_shown(tmp_path: Path) -> None:
    content = {**document(failed(NAMES[0], "train: out of memory")), "mean_latency_saving": None}
    assert json.loads(write_results(tmp_path, "run", content).read_text())["mean_latency_saving"] is None
    assert "out of memory" in printed(content, 80)
    assert "out of memory" in results_markdown(content)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_everything_at_every_width(width: int) -> None:
    content = document(row(NAMES[0]), row(NAMES[1], PUBLISHED), row(NAMES[2]), row(NAMES[3]))
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


def test_what_the_rounded_weights_cost_is_said_where_they_cost_something() -> None:
    same, worse, better = (
        row(NAMES[0]),
        {**row(NAMES[1]), "reference_accuracy": 0.954},
        {**row(NAMES[2]), "reference_accuracy": 0.961},
    )
    together = " ".join(printed(document(same, worse, better), 80).split())
    assert "Weights rounded so that float32 is exact move the ANN's accuracy by -0.17 points on average" in together
    assert f"{NAMES[1]} 96.00 → 95.40, {NAMES[2]} 96.00 → 96.10" in together and f"{NAMES[0]} 96.00 →" not in together
    assert "Weights rounded" not in printed(document(same), 80)
    assert "96.00 → 95.40" in results_markdown(document(worse))


@pytest.mark.parametrize("width", [80, 120])
def test_a_failed_setting_shows_the_gap_and_the_reason_as_it_is(width: int) -> None:
    """A reason may hold what is markup to the table's printer."""
    reason = "convert: [/tmp/weights.pt] has [bold] no tensor | 'features.0.weight'"
    content = document(row(NAMES[0]), failed(NAMES[1], reason))
    text = " ".join(printed(content, width).split())
    assert NAMES[1] in text and "failed" in text
    assert reason in text
    line = next(line for line in results_markdown(content).splitlines() if line.startswith(f"| {NAMES[1]}"))
    assert line.replace("\\|", "").count("|") == 9, "a bar in the reason must not make a column"


def test_markdown_has_the_tables_figures() -> None:
    text = results_markdown(document(row(NAMES[0]), row(NAMES[1], PUBLISHED)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    for figure in ("95.57", "10.25", "3.12x", "3.33", "94.27", "11.51", "smoke", "digits"):
        assert figure in text


def test_a_paper_row_with_figures_missing_is_shown_as_far_as_it_goes() -> None:
    partial = {**PUBLISHED, "snn_accuracy": None, "time_steps": None, "exit_accuracy": None, "label": "2"}
    assert "11.51" in printed(document(row(NAMES[0], partial)), 120)
    assert "11.51" in results_markdown(document(row(NAMES[0], partial)))


def test_environment_facts_name_versions_and_machine_without_importing_torch() -> None:
    code = (
        "import json, sys; from dynconf_core.results.files import environment_facts; facts = environment_facts();"
        "assert 'torch' not in sys.modules; print(json.dumps(facts))"
    )
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    facts = json.loads(said.stdout)
    assert {"python", "platform", "cpu", "cores", "gpu", "commit", "versions"} <= facts.keys()
    assert {"torch", "numpy", "prefect", "mlflow", "optuna"} <= facts["versions"].keys()
    assert json.dumps(environment_facts(), allow_nan=False)


def test_over_seeds_by_hand() -> None:
    def document(run: str, ann: float, steps: float) -> dict[str, Any]:
        exiting = {"accuracy": 0.5, "mean_steps": steps, "latency_saving": 1 - steps / 8}
        row = {"name": "a", "status": "ok", "ann_accuracy": ann, "snn_accuracy": 0.5, "exit": exiting}
        return {"run": run, "settings": [row, {**row, "name": "b"}]}

    first, second = document("1", 0.7, 2.0), document("2", 0.9, 4.0)
    second["settings"][1]["status"] = "failed"
    one, other = over_seeds([first, second])
    assert one["figures"]["ann_accuracy"]["mean"] == pytest.approx(0.8)
    assert one["figures"]["ann_accuracy"]["deviation"] == pytest.approx(0.2 / 2**0.5)
    assert one["figures"]["exit_mean_steps"] == {"mean": 3.0, "deviation": pytest.approx(2**0.5)}
    assert other == {"name": "b", "figures": None}


def test_runs_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    names = {new_run(tmp_path, "smoke-seed0") for _ in range(5)}
    assert len(names) == 5 and all((tmp_path / "results" / name).is_dir() for name in names)
    assert all(name.endswith("-smoke-seed0") for name in names)
