"""The form of a deployment in Prefect's pages, filled in and submitted by a browser."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from loopback_cluster import Cluster, asked, flow_runs, wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'dynconf[dev]'")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1600",
)


class Form:
    """The form that runs a deployment, as somebody sees it who knows the names of the parameters."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def parameter(self, name: str) -> Any:
        """What belongs to a parameter: its label, its buttons and its inputs."""
        path = f"//label[normalize-space()='{name}' or starts-with(normalize-space(), '{name} (')]/ancestor::div[3]"
        return wait_until(lambda: self._first(self.driver, path), f"the form shows {name}", 20)

    def press(self, text: str, within: Any = None) -> None:
        path = f".//button[normalize-space()='{text}']"
        wait_until(lambda: self._first(within or self.driver, path), f"there is a button {text}", 20).click()

    def submit(self) -> None:
        """Submit until the form is left: the first time after a refusal, it only checks its entries again."""
        page = self.driver.current_url
        for _ in range(2):
            if (button := self._first(self.driver, "//button[normalize-space()='Submit']")) is not None:
                button.click()
            with suppress(TimeoutError):
                wait_until(lambda: self.driver.current_url != page, "the form is left", 4)

    def choose(self, name: str, shown: str, wanted: str) -> None:
        """Choose another entry of a list."""
        self.press(shown, self.parameter(name))
        path = f"//*[@role='option'][normalize-space()='{wanted}']"
        wait_until(lambda: self._first(self.driver, path), f"{wanted} is offered", 20).click()

    def write(self, name: str, text: str) -> None:
        """Write into the one input of a parameter, in the place of what stands there."""
        path = ".//input | .//textarea"

        def written() -> bool:  # the page may take back what is typed while it checks what stood there
            entry = self._first(self.parameter(name), path)
            if entry is None:
                return False
            if entry.get_attribute("value") != text:
                entry.send_keys(Keys.CONTROL, "a")
                entry.send_keys(text, Keys.TAB)
                time.sleep(0.3)
            return bool(entry.get_attribute("value") == text)

        wait_until(written, f"{text} stands in {name}", 20)

    def list_of_one(self, name: str, text: str) -> None:
        """Make a parameter a list with one entry."""
        self.press("list", self.parameter(name))
        if self._first(self.parameter(name), ".//textarea") is None:
            self.press("Add item", self.parameter(name))
        self.write(name, text)

    @staticmethod
    def _first(within: Any, path: str) -> Any:
        return next(iter(within.find_elements(By.XPATH, path)), None)


@pytest.fixture
def form(cluster: Cluster) -> Iterator[Form]:
    """The form of the deployment `sweep`."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in SWITCHES:
        options.add_argument(switch)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        deployment = asked(cluster, "deployments/name/sweep/dynconf")
        pages = cluster.environment["PREFECT_API_URL"].removesuffix("/api")
        browser.get(f"{pages}/v2/deployments/deployment/{deployment['id']}/run")
        yield Form(browser)
    finally:
        browser.quit()


def test_the_form_starts_a_study_and_refuses_what_cannot_work(cluster: Cluster, form: Form) -> None:
    before = {run["id"] for run in flow_runs(cluster)}
    form.choose("settings", "cifar10-resnet18-qcfs", "cifar10-vgg16-qffs")
    form.list_of_one("study", "alfa=1..100")
    form.write("trials", "2")
    form.press("Overrides", form.parameter("overrides"))
    form.write("epochs", "1")
    form.write("time_steps", "4")
    form.press("Submit")
    wait_until(lambda: "is not valid" in form.parameter("study").text, "the form says that alfa is no field", 20)

    form.write("study", "alpha=1..100")
    form.list_of_one("grid", "bits=2,3")
    form.press("Submit")
    wait_until(lambda: "is not one of" in form.parameter("study").text, "the form says that one of the two is enough", 20)
    assert {run["id"] for run in flow_runs(cluster)} == before

    form.press("None", form.parameter("grid"))
    form.submit()
    (run,) = [one for one in flow_runs(cluster) if one["id"] not in before and one["deployment_id"]]
    assert run["parameters"]["study"] == ["alpha=1..100"] and run["parameters"]["overrides"] == {"epochs": 1, "time_steps": 4}
    wait_until(lambda: asked(cluster, f"flow_runs/{run['id']}")["state_type"] in ("COMPLETED", "FAILED"), "the run ends")
    assert asked(cluster, f"flow_runs/{run['id']}")["state_type"] == "COMPLETED"
    (file,) = cluster.home.glob("sweeps/*alpha*/results.json")
    points = json.loads(file.read_text())["points"]
    assert len(points) == 2 and {point["setting"] for point in points} == {"cifar10-vgg16-qffs"}
