"""``dynconf analyse`` and ``dynconf compare``, as a user calls them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, command_on_traces, strictly
from study_cases import exits, made, number, operating_points, outcome, scores_of

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.errors import InputError
from dynconf_core.exit.rule import Rule
from dynconf_core.results.records import to_json
from dynconf_core.traces.schema import Traces
from dynconf_flows import analyse as flow
from dynconf_flows.command import main as cli
from dynconf_tasks import analyse as analyses

FILES = {"analysis.json", "rule.json", "front.csv", "accuracy_against_latency.png", "rules.png"}
FILES |= {"exit_histogram.png", "robustness.png", "reliability.png", "report.html"}
CALIBRATION, TEST = made(70, 1, 6), made(60, 2, 6, meta={"source": "mine, profile smoke", "data": "a", "stands_in_for": "B"})


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_on_traces(tmp_path / "here", monkeypatch, capsys)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "traces"
    return CALIBRATION.save(folder / "net-calibration.npz"), TEST.save(folder / "net-test.npz")


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a small analysis, and have tests of their own."""
    monkeypatch.setattr(analyses, "analysis_figures", lambda *ignored: {})


def test_a_whole_analysis(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    answer = dynconf("analyse", files[0], "--test", files[1], "--out", out, "--no-track", "--epsilon", 0.2, "--delta", 0.2)
    assert (answer.code, answer.error) == (0, "")
    assert {path.name for path in out.iterdir()} == FILES | {"guarantee.png", "rule-uncertified.json"}
    record = strictly((out / "analysis.json").read_text())
    assert (record["calibration"], record["test"], record["split"]) == (70, 60, None)
    entry = record["rules"][record["chosen"]]
    assert Rule.load(out / "rule-uncertified.json").to_json().items() <= entry.items()
    assert Rule.load(out / "rule.json").to_json()["threshold"] == record["guarantee"]["threshold"]
    for word in ("net", "70 calibration", "60 test", "profile smoke", "a instead of B", "max_softmax", "patience"):
        assert word in answer.out
    assert "Guarantee: " in answer.out and "drop 0.1 points" in answer.out and f"Analysis: {out}" in answer.out
    marked = next(line for line in answer.out.splitlines() if re.match(r"> (?!exits)", line))
    assert marked.split()[1] == entry["measure"] and f"{entry['test']['mean_steps']:.2f}" in marked
    assert not list(Path.cwd().iterdir())  # with --no-track nothing else is written


@pytest.mark.usefixtures("without_pictures")
def test_the_table_fits_80_columns(dynconf: Command, files: tuple[Path, Path]) -> None:
    lines = dynconf("analyse", files[0], "--no-track").out.splitlines()
    first = next(place for place, line in enumerate(lines) if "threshold" in line)
    table = [line.rstrip() for line in lines[first : first + 6]]
    assert max(map(len, table)) <= 80 and "…" not in "".join(table)
    assert [line.removeprefix(">").split()[0].strip("*") for line in table[1:]] == [
        "max_softmax",
        "entropy",
        "gap",
        "patience",
        "learned",
    ]


@pytest.mark.usefixtures("without_pictures")
def test_json_is_the_record_and_nothing_else(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    answer = dynconf("analyse", files[0], "--test", files[0], "--out", tmp_path / "o", "--no-track", "--json")
    assert answer.code == 0
    assert strictly(answer.out) == strictly((tmp_path / "o" / "analysis.json").read_text())
    assert "70 of the 70 test samples equal a calibration sample" in " ".join(answer.error.split())


@pytest.mark.usefixtures("without_pictures")
def test_one_file_is_split_half_and_half(dynconf: Command, tmp_path: Path) -> None:
    whole = made(41, 5, 5)
    path = whole.save(tmp_path / "traces.npz")
    assert dynconf("analyse", path, "--no-track", "--out", tmp_path / "analysis", "--seed", 3).code == 0
    record = strictly((tmp_path / "analysis" / "analysis.json").read_text())
    split = record["split"]
    assert split["seed"] == 3 and sorted(split["calibration"] + split["test"]) == list(range(41))
    assert {len(split["calibration"]), len(split["test"])} == {20, 21}
    judging = Traces(whole.logits[split["test"]], whole.labels[split["test"]])
    for entry in record["rules"]:
        threshold = number(entry["threshold"])
        expected = outcome(judging, exits(scores_of(entry, judging), threshold))
        assert entry["test"]["accuracy"] == pytest.approx(expected["accuracy"])
        assert entry["test"]["mean_steps"] == pytest.approx(expected["mean_steps"])
    before = (tmp_path / "analysis" / "analysis.json").read_bytes()
    dynconf("analyse", path, "--no-track", "--out", tmp_path / "analysis", "--seed", 3)
    assert (tmp_path / "analysis" / "analysis.json").read_bytes() == before
    dynconf("analyse", path, "--no-track", "--out", tmp_path / "analysis", "--seed", 4)
    assert strictly((tmp_path / "analysis" / "analysis.json").read_text())["split"] != split


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("options", "smoothing"),
    [
        (["--rule", "max_softmax", "--smoothing", "sum", "--alpha", "30"], Smoothing("sum", 30.0)),
        (["--rule", "max_softmax", "--smoothing", "sum"], Smoothing("sum", 30.0)),
        (["--rule", "gap", "--alpha", "2"], Smoothing("sum", 2.0)),
        (["--rule", "max_softmax"], None),
        (["--rule", "learned"], None),
        (["--rule", "entropy", "--smoothing", "mean", "--alpha", "2"], Smoothing("mean", 2.0)),
        (["--rule", "patience"], None),
    ],
)
def test_a_rule_can_be_fixed(dynconf: Command, tmp_path: Path, options: list[str], smoothing: Smoothing | None) -> None:
    calibration = made(18, 5, 5, 3)
    paths = calibration.save(tmp_path / "calibration.npz"), made(15, 6, 5, 3).save(tmp_path / "test.npz")
    answer = dynconf("analyse", paths[0], "--test", paths[1], "--no-track", "--out", tmp_path / "analysis", *options)
    assert answer.code == 0 and "drop 0.1 points" in answer.out
    record = strictly((tmp_path / "analysis" / "analysis.json").read_text())
    assert {row["measure"] for row in record["comparison"]} == {"max_softmax", "entropy", "gap", "patience", "learned"}
    entry = record["rules"][record["chosen"]]
    assert entry["measure"] == options[1] and (smoothing is None or entry["smoothing"] == smoothing.to_dict())
    if options[1] == "learned":
        return  # its front is of out-of-fold scores
    with (tmp_path / "analysis" / "front.csv").open() as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    expected = operating_points(calibration, scores_of(entry, calibration))
    assert len(rows) == len(expected)
    np.testing.assert_allclose(np.array(rows)[:, 1:], np.array(expected)[:, 1:], atol=1e-12)
    np.testing.assert_allclose(np.array(rows)[:-1, 0], np.array(expected)[:-1, 0], rtol=1e-9)
    assert rows[-1][0] == np.inf


@pytest.mark.usefixtures("without_pictures")
def test_nothing_is_written_unless_it_is_asked_for(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = dynconf("analyse", files[0], "--test", files[1], "--epsilon", 0.2, "--delta", 0.2)
    assert answer.code == 0 and "Nothing was written: --out DIR" in answer.out and "max_softmax" in answer.out
    assert "ertified." in answer.out and "; rule" not in answer.out  # no file is named that is not there
    assert sorted(tmp_path.rglob("*")) == before  # neither here, nor beside the traces, nor a home
    Path(".dynconf").mkdir()
    Path(".dynconf").chmod(0o500)
    answer = dynconf("analyse", files[0], "--test", files[1], "--no-track")
    assert "Nothing was written" in answer.out or os.geteuid() == 0
    Path(".dynconf").chmod(0o700)


@pytest.mark.usefixtures("without_pictures")
def test_a_home_keeps_an_analysis_each_in_its_own_folder(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "a home"

    def kept(*options: str | Path) -> Path:
        answer = dynconf("analyse", files[0], "--test", files[1], "--no-track", *options)
        assert answer.code == 0, answer
        (line,) = (line for line in answer.out.splitlines() if line.startswith("Analysis: "))
        folder = Path(line.removeprefix("Analysis: "))
        assert folder.parent == home / "analyses"
        assert {path.name for path in folder.iterdir()} >= {"analysis.json", "rule.json", "front.csv"}
        return folder

    first = kept("--home", home)
    assert re.fullmatch(r"net-[0-9a-f]{8}", first.name)
    assert kept("--home", home) == first != kept("--home", home, "--seed", "1")
    Path(".dynconf").symlink_to(home)  # a home that exists need not be named
    assert "Analysis: " in dynconf("analyse", files[0], "--no-track").out


@pytest.mark.usefixtures("without_pictures")
def test_the_certified_rule_and_the_chosen_one_stand_side_by_side(dynconf: Command, tmp_path: Path) -> None:
    paths = made(400, 1, 6).save(tmp_path / "c.npz"), made(300, 2, 6).save(tmp_path / "t.npz")
    answer = dynconf("analyse", paths[0], "--test", paths[1], "--out", tmp_path / "out", "--epsilon", 0.1, "--delta", 0.1)
    record = strictly((tmp_path / "out" / "analysis.json").read_text())
    lines = answer.out.splitlines()
    for mark, found in ((">", record["rules"][record["chosen"]]), ("c", record["guarantee"])):
        row = next(line for line in lines if re.match(rf"{re.escape(mark)} +[a-z_]+\*? .* %", line))
        assert f"{found['test']['mean_steps']:.2f}" in row and f"{100 * found['test']['accuracy']:.2f}" in row
        assert f"{100 * abs(found['test']['loss']):.2f}" in row
        sentence = next(line for line in lines if line.startswith(f"{mark} exits once"))
        assert not any(line.startswith("* exits") for line in lines), "a star is the mark of a readout"
        assert ("Certified; rule.json." if mark == "c" else "Not certified; rule-uncertified.json.") in sentence
    assert record["exit"]["mean_steps"] == record["guarantee"]["test"]["mean_steps"]


@pytest.mark.usefixtures("without_pictures")
def test_a_warning_stands_on_the_screen_and_in_the_json(dynconf: Command, tmp_path: Path) -> None:
    calibration = made(300, 1, 6)
    probabilities = np.exp(calibration.logits) / np.exp(calibration.logits).sum(axis=2, keepdims=True)
    path = Traces(probabilities, calibration.labels).save(tmp_path / "p.npz")
    answer = dynconf("analyse", path, "--out", tmp_path / "out")
    assert "are probabilities" in " ".join(answer.out.split()) and "warning:" in answer.out
    assert any("are probabilities" in text for text in strictly((tmp_path / "out" / "analysis.json").read_text())["warnings"])


def broken(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "broken.npz", **arrays)
    return tmp_path / "broken.npz"


GOOD = {"logits": made(20, 1).logits, "labels": made(20, 1).labels}
BAD: dict[str, tuple[Callable[[Path], Path], list[str], list[str]]] = {
    "missing": (lambda path: path / "none.npz", [], ["none.npz", "does not exist"]),
    "no archive": (lambda path: _text(path), [], ["text.npz", "not a .npz archive"]),
    "no labels": (lambda path: broken(path, logits=GOOD["logits"]), [], ["no array labels"]),
    "wrong labels": (lambda path: broken(path, **GOOD | {"labels": GOOD["labels"] + 9}), [], ["labels of sample", "0 to 3"]),
    "not finite": (lambda path: broken(path, **GOOD | {"logits": GOOD["logits"] * np.nan}), [], ["logits of sample 0"]),
    "not logits": (lambda path: broken(path, **GOOD | {"logits": GOOD["logits"][0]}), [], ["(N, T, C)"]),
    "three samples": (lambda path: made(3, 1).save(path / "t.npz"), [], ["samples = 3", "at least 4"]),
    "an empty folder": (lambda path: _folder(path), [], ["empty", "holds no traces"]),
    "another T": (lambda path: made(9, 1, 5).save(path / "t.npz"), ["--test", "T.npz"], ["5 time steps", "8"]),
    "a missing test": (lambda path: made(9, 1).save(path / "t.npz"), ["--test", "no.npz"], ["no.npz does not exist"]),
    "a test of a folder": (lambda path: _folder(path), ["--test", "T.npz"], ["--test", "leave --test out"]),
    "an unknown rule": (lambda path: _good(path), ["--rule", "nope"], ["'nope'", "patience"]),
    "a measure too demanding": (lambda path: made(20, 1, 1).save(path / "t.npz"), ["--rule", "learned"], ["2 time steps"]),
    "a smoothing unread": (lambda path: _good(path), ["--rule", "learned", "--alpha", "3"], ["'learned'", "leave it out"]),
    "a rival behind a readout": (
        lambda path: _good(path),
        ["--rule", "dt_snn", "--readout", "decoded"],
        ["dt_snn", "plain or"],
    ),
    "a module missing": (lambda path: _good(path), ["--rule", "nowhere.at.all:X"], ["nowhere", "no module"]),
    "no such class": (lambda path: _good(path), ["--rule", "dynconf_core.errors:X"], ["no 'X'"]),
    "no measure": (lambda path: _good(path), ["--rule", "dynconf_core.errors:InputError"], ["ConfidenceMeasure"]),
    "smoothing": (lambda path: _good(path), ["--rule", "gap", "--smoothing", "power"], ["'power'", "sum, mean"]),
    "alpha": (lambda path: _good(path), ["--rule", "gap", "--alpha", "0"], ["alpha = 0.0"]),
    "no number": (lambda path: _good(path), ["--rule", "gap", "--alpha", "nan"], ["alpha = nan"]),
    "alpha alone": (lambda path: _good(path), ["--alpha", "3"], ["--alpha 3.0", "--rule"]),
    "smoothing alone": (lambda path: _good(path), ["--smoothing", "sum"], ["--smoothing sum", "--rule"]),
    "half a guarantee": (lambda path: _good(path), ["--epsilon", "0.01"], ["delta = None", "both"]),
    "epsilon": (lambda path: _good(path), ["--epsilon", "1", "--delta", "0.1"], ["epsilon = 1.0", "between 0 and 1"]),
    "max_drop": (lambda path: _good(path), ["--max-drop", "2"], ["max_drop = 2.0"]),
    "the seed": (lambda path: _good(path), ["--seed", "-1"], ["--seed"]),
    "an option": (lambda path: _good(path), ["--sed", "1"], ["--sed"]),
    "out below a file": (lambda path: _good(path), ["--out", "T.npz/x"], ["--out", "is a file"]),
    "out is a file": (lambda path: _good(path), ["--out", "T.npz"], ["--out", "is a file"]),
    "a home below a file": (lambda path: _good(path), ["--home", "T.npz/x"], ["--home", "is a file"]),
}


def _text(path: Path) -> Path:
    (path / "text.npz").write_text("no archive at all")
    return path / "text.npz"


def _folder(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def _good(path: Path) -> Path:
    return made(20, 1).save(path / "good.npz")


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_and_nothing_is_written(dynconf: Command, tmp_path: Path, case: str) -> None:
    make, options, words = BAD[case]
    given = make(tmp_path)
    made(9, 1).save(Path("T.npz"))
    before = sorted(tmp_path.rglob("*"))
    answer = dynconf("analyse", given, *options)
    assert (answer.code, answer.out) == (2, ""), answer
    told = " ".join(answer.error.split())
    assert all(word in told for word in words), told
    assert "Traceback" not in told and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", ["missing", "no archive", "another T", "three samples", "an empty folder", "the seed"])
def test_compare_refuses_alike(dynconf: Command, tmp_path: Path, case: str) -> None:
    make, options, words = BAD[case]
    given = make(tmp_path)
    made(9, 1).save(Path("T.npz"))
    answer = dynconf("compare", given, *options)
    assert (answer.code, answer.out) == (2, "") and all(word in " ".join(answer.error.split()) for word in words)


def test_a_refusal_is_one_sentence(tmp_path: Path) -> None:
    """In a process of its own: nothing that is imported on the way says anything, or makes a home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DYNCONF_", "PREFECT_"))}
    command = [sys.executable, "-m", "dynconf_flows.command.main", "analyse", "none.npz"]
    environment["PYTHONPATH"] = str(Path(cli.__file__).parent.parent)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: none.npz does not exist: .*\n", done.stderr) and not list(tmp_path.iterdir())


def test_a_folder_that_the_system_protects_is_refused(dynconf: Command, files: tuple[Path, Path]) -> None:
    answer = dynconf("analyse", files[0], "--no-track", "--out", "/proc/dynconf")
    assert (answer.code, answer.out) == (2, "") and "--out /proc/dynconf cannot be written" in " ".join(answer.error.split())


@pytest.mark.usefixtures("without_pictures")
def test_traces_can_be_cut_to_their_first_steps(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert dynconf("analyse", files[0], "--test", files[1], "--time-steps", 4, "--out", out, "--no-track").code == 0
    record = strictly((out / "analysis.json").read_text())
    assert record["time_steps"] == 4 and record["accuracy_at_t"]["test"] == TEST.cut(4).correct().mean(axis=0).tolist()
    rows = strictly(dynconf("compare", files[0], "--test", files[1], "--time-steps", 4, "--json").out)["comparisons"]["net"]
    assert [row for row in rows if not row["rival"]] == record["comparison"]
    answer = dynconf("compare", files[0], "--test", files[1], "--time-steps", 7)
    assert (answer.code, answer.out) == (2, "") and "give a number from 1 to 6" in " ".join(answer.error.split())


def test_compare_shows_every_rule_at_every_drop(dynconf: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = dynconf("compare", files[0], "--test", files[1], "--intervals")
    assert (answer.code, answer.error) == (0, "")
    for drop in ("drop 0 points", "drop 0.1 points", "drop 0.5 points", "drop 1 point"):
        assert drop in answer.out
    found = strictly(dynconf("compare", files[0], "--test", files[1], "--json").out)
    rows, rivals = found["comparisons"]["net"], ("seenn_1", "seenn_2", "dt_snn", "snncutoff", "spikecp", "spikecp_simes")
    assert {row["measure"] for row in rows if row["rival"]} == set(rivals)  # a boosted gate needs more samples
    assert len([row for row in rows if not row["rival"]]) == 20 and sorted(tmp_path.rglob("*")) == before
    for measure in ("max_softmax", "entropy", "gap", "patience", "learned"):
        assert len(re.findall(rf"^  {measure}\*? +\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) +\d", answer.out, re.MULTILINE)) == 4
    assert max(len(line) for line in answer.out.splitlines() if "(" in line) <= 80
    table = dynconf("compare", files[0], "--test", files[1]).out
    assert max(len(line) for line in table.splitlines() if "(" in line) <= 80
    own = {row["measure"]: row["test"] for row in found["own_thresholds"]["net"]}
    for measure in ("max_softmax", "learned", *rivals):
        (line,) = [line for line in table.splitlines() if line.startswith(f"  {measure} ")]
        cells = [row["test"] for row in rows if row["measure"] == measure] + [own[measure] for _ in range(measure in own)]
        assert [float(steps.rstrip("*")) for steps in line.split()[1::2]] == [round(test["mean_steps"], 2) for test in cells]


def test_compare_warns_of_duplicates_and_splits_one_file(dynconf: Command, files: tuple[Path, Path]) -> None:
    answer = dynconf("compare", files[0], "--test", files[0], "--json")
    assert answer.code == 0 and "70 of the 70 test samples" in " ".join(answer.error.split())
    assert len([row for row in strictly(answer.out)["comparisons"]["net"] if not row["rival"]]) == 20
    answer = dynconf("compare", files[0])
    assert answer.code == 0 and "35 calibration and 35 test samples" in answer.out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def client(home: Path) -> Iterator[Any]:
    if os.environ.get("MLFLOW_TRACKING_URI"):
        pytest.skip("MLflow is elsewhere")
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.tracker import Tracker

    yield MlflowClient(tracking_uri=Tracker(home).uri)


def runs(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name("dynconf-analysis")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


@pytest.mark.usefixtures("without_pictures")
def test_it_is_logged_once(dynconf: Command, files: tuple[Path, Path], home: Path, tmp_path: Path, client: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "private.txt").write_text("mine")
    common = ("analyse", files[0], "--test", files[1], "--home", home, "--out", out)
    assert dynconf(*common).code == 0
    (run,) = runs(client)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "net")
    record = strictly((out / "analysis.json").read_text())
    entry = record["rules"][record["chosen"]]
    assert run.data.metrics["headline/mean_steps"] == pytest.approx(entry["test"]["mean_steps"], abs=5e-5)
    assert run.data.metrics["headline/exit_accuracy_percent"] == pytest.approx(100 * entry["test"]["accuracy"])
    oracle = record["oracles"]["test"]["first_correct"]["mean_steps"]
    assert run.data.metrics["headline/oracle_mean_steps"] == pytest.approx(oracle, abs=5e-5)

    def table(name: str) -> list[dict[str, Any]]:
        content = json.loads(Path(client.download_artifacts(run.info.run_id, f"tables/{name}.json")).read_text())
        return [dict(zip(content["columns"], values, strict=True)) for values in content["data"]]

    assert [row["test_mean_steps"] for row in table("rules")] == [rule["test"]["mean_steps"] for rule in record["rules"]]
    assert [row["ece"] for row in table("over_time")] == record["reliability"]["ece_at_t"]
    assert len(table("comparison")) == len(record["comparison"])
    assert {row["figure"]: row["value"] for row in table("figures")}["oracles_test_first_correct_mean_steps"] == oracle
    assert run.data.params["rule.measure"] == entry["measure"] and run.data.params["traces.source"].startswith(
        "mine, profile smoke"
    )
    history = client.get_metric_history(run.info.run_id, "curve/accuracy_percent")
    curve = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert curve == pytest.approx([100 * accuracy for accuracy in record["accuracy_at_t"]["test"]])
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"analysis.json", "rule.json", "front.csv", "report.html", "tables"}  # and nothing that lay there before

    assert dynconf(*common).code == 0
    assert [one.info.run_id for one in runs(client)] == [run.info.run_id]
    assert dynconf(*common, "--seed", 1).code == 0
    assert len(runs(client)) == 2
    client.set_terminated(run.info.run_id, "KILLED")  # as if it had not been finished
    assert dynconf(*common).code == 0
    assert sorted(one.info.status for one in runs(client)) == ["FINISHED"] * 2
    assert run.info.run_id not in {one.info.run_id for one in runs(client)}


@pytest.mark.usefixtures("without_pictures")
def test_a_server_that_is_not_there_is_told_and_the_analysis_is_kept(
    dynconf: Command, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    answer = dynconf("analyse", files[0], "--out", tmp_path / "out")
    assert answer.code == 0 and "Not logged to MLflow" in answer.out and (tmp_path / "out" / "analysis.json").is_file()


@pytest.mark.usefixtures("without_pictures")
def test_the_flow_gives_the_same(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    monkeypatch.setattr(flow, "track_analysis", lambda done, *ignored: logged.append(done.name))
    (found,) = flow.analyse.fn(str(files[0]), str(files[1]), str(tmp_path / "out"), 0.1, 0.1, 0.01, None, 2)
    record = to_json(found)
    assert record == strictly((tmp_path / "out" / "analysis.json").read_text())
    assert (record["max_drop"], record["seed"], record["guarantee"]["epsilon"], logged) == (0.01, 2, 0.1, ["net"])
    with pytest.raises(InputError, match="both"):
        flow.analyse.fn(str(files[0]), epsilon=0.1)
