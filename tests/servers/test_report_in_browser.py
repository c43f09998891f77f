"""A report in a browser: it opens from disk, asks no host for anything, draws every chart and works."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as XML
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsers
import pytest
import report_cases as cases

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'dynconf[dev]'")
from selenium.webdriver.common.by import By

from dynconf_core.report.writing import write_report

REFUSED = "Content Security Policy"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """No PostgreSQL is needed here."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = cases.write_folder(tmp_path_factory.mktemp("run"), cases.hostile_run())
    return write_report(folder, str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Any]:
    """A browser that shows the report, all of whose charts are drawn; downloads go to the report's folder."""
    with browsers.browser("--proxy-server=127.0.0.1:9", downloads=report.parent) as found:  # nobody listens there
        found.get(report.as_uri())
        until(lambda: found.execute_script("const d = document.documentElement.dataset; return d.drawn === d.figures"))
        yield found


def until(happened: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_every_chart_is_drawn_without_an_error_or_a_request(browser: Any, report: Path) -> None:
    figures = len(cases.content(report.read_text())["figures"])
    marks = browser.execute_script(
        "return [...document.querySelectorAll('figure .chart')].map((one) => one.querySelectorAll("
        "'svg .mark-line path, svg .mark-rect path, svg .mark-symbol path, svg .mark-rule line').length)"
    )
    assert len(marks) == figures > 20 and min(marks) > 0
    said = browser.get_log("browser")
    assert not [line for line in said if line["level"] in ("SEVERE", "WARNING") or REFUSED in line["message"]]
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = {one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"}
    assert {address for address in asked if not address.startswith("data:")} <= {report.as_uri()}


def test_nothing_that_results_say_is_run_or_becomes_an_element(browser: Any) -> None:
    assert browser.title != "owned" and not browser.find_elements(By.CSS_SELECTOR, "img")
    names = browser.execute_script("return [...document.querySelectorAll('svg text')].map((one) => one.textContent)")
    assert any(name.startswith("</script>") for name in names)


def test_a_click_on_a_heading_sorts_the_table(browser: Any) -> None:
    def steps() -> list[str]:
        rows = browser.find_elements(By.CSS_SELECTOR, "table.sortable tbody tr")
        return [row.find_elements(By.CSS_SELECTOR, "th, td")[0].text for row in rows]

    before = steps()
    heading = browser.find_element(By.CSS_SELECTOR, "table.sortable thead th:first-child button")
    heading.click()
    assert steps() == sorted(before)
    heading.click()
    assert steps() == sorted(before, reverse=True) != before
    browser.find_element(By.CSS_SELECTOR, "table.sortable thead th:nth-child(5) button").click()
    assert steps()[-1] == "net-broken"  # it has no accuracy


def test_each_chart_is_saved_as_svg(browser: Any, report: Path) -> None:
    heading = "net-qcfs"
    browser.execute_script("document.querySelector('figure button.svg').click()")
    saved = report.parent / f"{heading}-latency.svg"
    until(saved.is_file)
    root = XML.parse(saved).getroot()
    texts = [text for one in root.iter() if (text := (one.text or "").strip())]
    assert root.tag.endswith("svg") and "accuracy (%)" in texts and heading in texts


def test_folded_charts_take_the_width_that_there_is_and_a_phone_needs_no_scrolling(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    widest = (
        "return Math.max(...[...document.querySelectorAll('.chart')].map((one) => "
        "one.querySelector('svg').getBoundingClientRect().width - one.clientWidth))"
    )
    until(lambda: browser.execute_script(widest) <= 1)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_paper_everything_is_unfolded(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = false))")
    opened = "window.dispatchEvent(new Event('beforeprint')); return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(opened) == 0
    closed = "window.dispatchEvent(new Event('afterprint')); return document.querySelectorAll('details[open]').length"
    assert browser.execute_script(closed) == 0
