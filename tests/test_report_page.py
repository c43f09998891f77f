"""Reports: their numbers are those of the results, nothing from outside is markup, and a current one is left alone."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import io
import json
import logging
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_cases as cases
from commands import command_on_traces
from result_cases import ENVIRONMENT, run_result, setting_result

from dynconf_core.choosing.comparison import DROPS
from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.report.analysis import analysis_report
from dynconf_core.report.charts import KINDS
from dynconf_core.report.render import html
from dynconf_core.report.samples import pictures
from dynconf_core.report.sweep import sweep_report
from dynconf_core.report.writing import write_quietly, write_report
from dynconf_core.results.files import RESULTS
from dynconf_core.results.records import json_text, to_json
from dynconf_core.results.types import FailedPoint, SweepPoint, SweepResult
from dynconf_core.store.artefacts import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_folder(tmp_path_factory.mktemp("run"), cases.hostile_run())


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(folder, str(tmp_path_factory.mktemp("home"))).read_text()


def point(steps: float, accuracy: float, on_front: bool, **values: Any) -> SweepPoint:
    return SweepPoint(
        setting="net",
        values=values,
        error=None,
        ann_accuracy=0.9,
        snn_accuracy=0.9,
        accuracy=accuracy,
        mean_steps=steps,
        calibration_accuracy=0.91,
        calibration_mean_steps=steps + 0.5,
        stages={},
        artefacts={},
        on_front=on_front,
    )


def test_the_numbers_are_those_of_the_results(page: str) -> None:
    row = cases.finished()
    shown = next(cells for cells in cases.rows(page) if cells[:1] == [row.name])
    exit_ = row.exit
    assert row.ann_accuracy is not None
    accuracies = [f"{100 * share:.2f}" for share in (row.ann_accuracy, row.snn_accuracy, exit_.accuracy)]
    assert [shown[1], shown[2], shown[4]] == accuracies
    assert shown[3] == str(row.time_steps) and shown[5] == f"{exit_.mean_steps:.2f}"
    assert shown[7] == f"{100 * exit_.latency_saving:.1f} %"
    assert shown[8] == f"{100 * row.baseline('iso_accuracy').latency_saving:.1f} %".replace("-", "\N{MINUS SIGN}")
    assert shown[9] == f"{row.oracles.first_correct.mean_steps:.2f}"
    assert f"<strong>{100 * exit_.latency_saving:.0f} %</strong>" in page  # both settings have the same figures

    first = cases.tables(page, "histogram")[0]["bars"]
    assert tuple(first["count"]) == exit_.histogram
    lines = cases.tables(page, "latency")[0]["lines"]
    fixed = [share for name, share in zip(lines["series"], lines["accuracy"], strict=True) if name.startswith("stopped")]
    assert fixed == pytest.approx([100 * share for share in row.accuracy_at_t], abs=1e-3)
    points = cases.tables(page, "latency")[0]["points"]
    assert points["step"][points["series"].index("chosen rule")] == pytest.approx(exit_.mean_steps, abs=1e-3)
    compared = cases.tables(page, "rules_steps")[0]["rules"]
    assert compared["lost_low"] == pytest.approx([100 * one.test.loss_interval[0] for one in row.comparison], abs=1e-3)
    assert len(set(compared["drop"])) == len(DROPS)


def test_easy_and_hard_images_and_maps_come_from_the_traces(page: str) -> None:
    test, rule = cases.traces()[1], cases.analysis().rule
    exits, predictions = rule.exit_steps(test), test.predictions()
    found = cases.tables(page, "images")[0]
    steps = [int(text.partition(":")[0].removeprefix("step ")) for text in found["exits"]["text"]]
    assert steps[0] == exits.min() and steps[4] == exits.max() and len(steps) == 8
    for place, row in enumerate(found["exits"]["row"]):
        index = int(row.rpartition("#")[2])
        assert exits[index] == steps[place]
        answers = [answer for name, answer in zip(found["cells"]["row"], found["cells"]["answer"], strict=True) if name == row]
        right = predictions[index, : steps[place]] == test.labels[index]
        assert [answer == "right answer" for answer in answers] == right.tolist()
    grid, cells = cases.analysis().robustness, cases.tables(page, "robustness_lost")[0]["cells"]
    assert cells["lost"] == pytest.approx((100 * (grid.full_accuracy - grid.accuracy)).ravel(), abs=0.006)
    assert cells["steps"] == pytest.approx(grid.mean_steps.ravel(), abs=0.006)


def test_every_chart_finds_the_columns_that_it_reads(page: str, folder: Path) -> None:
    pages = [page, html(analysis_of_traces()), html(sweep_report(sweep(cases.HOSTILE)))]
    drawn = set()
    for one in pages:
        found = cases.content(one)
        for figure in found["figures"]:
            tables = {name: found["tables"][place] for name, place in figure["data"].items()}
            spec = found["charts"][figure["kind"]]
            drawn.add(figure["kind"])
            for name, fields in read(spec):
                assert fields <= set(tables[name]), (figure["kind"], name)
            assert all(len({len(column) for column in table.values()}) <= 1 for table in tables.values())
            wanted = set(re.findall(r'"expr": "(\w+)"', json.dumps(spec)))
            assert wanted <= set(figure["values"]), figure["kind"]
            assert figure["title"][0] not in "<" and not figure["title"].endswith(".")
    assert drawn == set(KINDS) - {"latency_and_paper"}


def read(spec: dict[str, Any], table: str = "") -> Iterator[tuple[str, set[str]]]:
    """By table, the fields that a chart and its layers read."""
    table = spec.get("data", {}).get("name", table)
    if "encoding" in spec:
        yield table, set(re.findall(r'"field": "(\w+)"', json.dumps(spec["encoding"])))
    for layer in spec.get("layer", []):
        yield from read(layer, table)


def without_scripts(page: str) -> str:
    """The page without its two scripts, which are none of ours to judge by their text."""
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_texts_from_outside_are_never_markup(page: str) -> None:
    assert len(re.findall(r"<script\b", page)) == 3 and len(re.findall(r"</script", page)) == 3
    assert "<img" not in without_scripts(page) and 'onerror="document' not in page
    assert markup.escape(f"beware of {cases.HOSTILE}", quote=False)[:30] in page
    assert cases.HOSTILE in cases.tables(page, "rules_steps")[1]["rules"]["measure"]
    assert cases.HOSTILE in cases.tables(page, "layers_agreement")[0]["layers"]["layer"]


def test_the_policy_allows_its_own_two_scripts_and_nothing_else(page: str) -> None:
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"&#39;sha256-{digest}&#39;" for digest in digests)
    assert len(policy) == 1 and len(scripts) == 2
    assert f"script-src {allowed};" in policy[0] or f"script-src {markup.unescape(allowed)};" in policy[0]
    assert policy[0].startswith("default-src 'none';") and "unsafe-eval" not in policy[0] and "http" not in policy[0]
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b", without_scripts(page))
    assert not re.findall(r'(?:src|href)="(?!#)', without_scripts(page))


def test_a_failed_setting_and_warnings_stand_at_the_top(page: str) -> None:
    head = page[: page.index("<section")]
    assert "net-broken failed at" in head and "net-qffs: beware of" in head and "digits instead of CIFAR-10" in head
    assert ["net-broken", "failed"] in [cells[:2] for cells in cases.rows(page)]


def test_a_current_report_is_left_alone(tmp_path: Path) -> None:
    folder = cases.write_folder(tmp_path / "results" / "run", run_result(cases.finished()))
    report = write_report(folder, str(tmp_path))
    assert report.stat().st_size < 1.5e6

    def written_again() -> bool:
        before = report.stat().st_mtime_ns
        assert write_quietly(folder, tmp_path) == report
        return report.stat().st_mtime_ns != before

    assert not written_again()
    (folder / RESULTS).write_text(json_text(to_json(run_result(cases.finished(), seed=7))))
    assert written_again() and "seed 7" in report.read_text() and not written_again()
    # What the store holds is part of it: an artefact that has gone, or come, makes it stale.
    row = cases.finished()
    Store(tmp_path / "artefacts").place("evaluate", row.artefacts["evaluate"]).mkdir(parents=True)
    assert written_again()


def test_what_is_not_in_the_store_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "run"
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text(json_text(to_json(run_result(setting_result()))))
    page = write_report(folder, str(tmp_path)).read_text()
    where = markup.escape(f"neither the store {tmp_path / 'artefacts'} nor {folder} holds it")
    assert page.count(where) == 3  # the images, what needs traces, and the conversion
    assert "The energy cannot be estimated" in page and "were not compared" in page
    assert cases.tables(page, "histogram") and not cases.tables(page, "images")


def test_the_command_that_is_printed_works_from_anywhere_and_an_exported_report_names_no_home(tmp_path: Path) -> None:
    home, published = tmp_path / "a home", tmp_path / "published"
    for folder in (home / "results" / "run", published):
        folder.mkdir(parents=True)
        (folder / RESULTS).write_text(json_text(to_json(run_result(setting_result()))))
    own = write_report(home / "results" / "run", str(home)).read_text()
    assert shlex.join(["dynconf", "report", str(home / "results/run"), "--home", str(home)]) in markup.unescape(own)
    exported = write_report(published, str(home)).read_text()
    assert "dynconf report published" in exported and "--home" not in exported


def test_results_outlast_a_report_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = cases.write_folder(tmp_path / "results" / "run", run_result(cases.finished()))
    before = (folder / RESULTS).read_text()
    (folder / "report.html").mkdir()
    with caplog.at_level(logging.WARNING):
        assert write_quietly(folder, tmp_path) is None
    assert "report.html could not be written" in caplog.text and (folder / RESULTS).read_text() == before
    assert write_quietly(tmp_path / "results" / "not-yet", tmp_path) is None
    with pytest.raises(InputError, match=r"holds neither results\.json nor analysis\.json"):
        write_report(tmp_path)


def sweep(error: str) -> SweepResult:
    points = (
        point(2.0, 0.80, True, levels=2, smoothing="sum"),
        point(4.0, 0.90, True, levels=4, smoothing="mean"),
        point(5.0, 0.85, False, levels=8, smoothing="sum"),
        FailedPoint(setting="net", values={"levels": 16, "smoothing": "sum"}, error=error, artefacts={}),
    )
    return SweepResult(run="sweep", profile="quick", seed=0, environment=ENVIRONMENT, failed=1, points=points)


def test_a_sweep_shows_the_front_on_test_figures(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "sweep"
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text(json_text(to_json(sweep("broken"))))
    page = write_report(folder, str(tmp_path)).read_text()
    (front,) = cases.tables(page, "pareto")
    assert front["front"]["step"] == [2.0, 4.0] and front["front"]["accuracy"] == [80.0, 90.0]
    assert front["front"]["calibration_step"] == [2.5, 4.5] and front["others"]["accuracy"] == [85.0]
    (lines,) = cases.tables(page, "parallel")
    levels = [at for at, name in zip(lines["lines"]["position"], lines["lines"]["axis"], strict=True) if name == "levels"]
    assert levels == pytest.approx([0, 1 / 3, 1], abs=1e-4)
    assert ["net", "8", "sum", "90.00", "90.00", "85.00", "5.00", "5.00", "91.00", "5.50", ""] in cases.rows(page)
    assert "net levels=16, smoothing=sum failed at broken" in page and "2 of 3</strong> points on the front" in page


def analysis_of_traces() -> Any:
    found = cases.analysis()
    return analysis_report(
        "mine", "a simulator", found.record, cases.curves(), found.test_fronts, "dynconf analyse mine.npz", found.guarantee
    )


def test_an_analysis_shows_its_rules_and_its_guarantee() -> None:
    record = cases.analysis().record
    page = html(analysis_of_traces())
    for place, entry in enumerate(record.rules):
        name = entry.measure + (" *" if place == record.chosen else "")
        cells = next(cells for cells in cases.rows(page) if cells[:1] == [name])
        assert cells[3] == f"{100 * entry.test.accuracy:.2f}" and cells[5] == f"{entry.test.mean_steps:.2f}"
    assert record.guarantee is not None
    assert "80 % confidence" in page and f"certified on</th><td>{record.guarantee.calibration} " in re.sub(r">\s+<", "><", page)
    fronts = cases.tables(page, "fronts")[0]["points"]
    assert fronts["step"] == pytest.approx([entry.test.mean_steps for entry in record.rules], abs=1e-3)
    (tested,) = cases.tables(page, "guarantee")
    assert tested["certified"]["step"] == [pytest.approx(record.guarantee.mean_steps, abs=1e-3)]
    assert tested["promised"]["lost"] == [20.0] and "measured" in tested["lines"]["series"]
    alone = html(analysis_report("mine", "", record, None, {}))
    assert "draws it from the traces" in alone and not cases.tables(alone, "fronts")


def test_the_command_reports_on_traces_and_on_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dynconf_flows.command import report as report_command

    dynconf = command_on_traces(tmp_path / "here", monkeypatch, capsys)
    monkeypatch.setattr(report_command, "configure", lambda home: None)
    calibration, test = cases.traces()
    files = [one.save(tmp_path / f"net-{name}.npz") for name, one in (("calibration", calibration), ("test", test))]
    answer = dynconf("report", files[0], "--test", files[1], "--out", tmp_path / "out.html")
    assert answer.code == 0 and str(tmp_path / "out.html") in answer.out.replace("\n", "")
    assert cases.tables((tmp_path / "out.html").read_text(), "images")
    folder = cases.write_folder(tmp_path / "run", run_result(cases.finished()))
    assert dynconf("report", folder).code == 0 and (folder / "report.html").is_file()
    refused = dynconf("report", tmp_path / "none")
    assert refused.code == 2 and "does not exist" in refused.error
    assert dynconf("report", folder, "--test", files[1]).code == 2
    assert not list((tmp_path / "here").iterdir())


def test_the_images_are_those_that_the_traces_are_of() -> None:
    from PIL import Image

    labels = DATASETS.get("digits").load(Path(), "test", resolution=32, calibration=300).labels
    wanted = {index: int(labels[index]) for index in (3, 400)}
    found = pictures("digits", 300, wanted, None)
    assert set(found) == {3, 400}
    image = Image.open(io.BytesIO(base64.b64decode(found[3].removeprefix("data:image/png;base64,"))))
    assert image.size == (32, 32)
    assert pictures("digits", 300, {3: int(labels[3]) + 1}, None) == {}  # other images
    assert pictures("cifar10", 5000, {0: 0}, Path("nowhere")) == {}
    assert pictures("somebody.else:DATA", 300, wanted, None) == {}  # no code is imported that results name


def test_a_paper_point_is_shown_where_the_data_are_the_papers(tmp_path: Path) -> None:
    from result_cases import PUBLISHED

    row = setting_result(paper=PUBLISHED)
    real = replace(row, data=replace(row.data, name="cifar10", stands_in_for=None))
    for found, kind in ((row, "latency"), (real, "latency_and_paper")):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / RESULTS).write_text(json_text(to_json(run_result(found))))
        (shown,) = cases.tables(write_report(folder, str(tmp_path)).read_text(), kind)
        assert (11.51 in shown["points"]["step"]) is (kind == "latency_and_paper")
