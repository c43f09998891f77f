"""The form of a deployment in Prefect's pages, filled in and submitted by a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import browsers
import pytest
from loopback_cluster import Cluster, asked, flow_runs, mlflow_runs, wait_until

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'dynconf[dev]'")
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Form:
    """The form that runs a deployment, as somebody sees it who knows the names of the parameters."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def part(self, name: str) -> str:
        """The place of what belongs to a parameter: its label, its buttons and its inputs."""
        return f"//label[normalize-space()='{name}' or starts-with(normalize-space(), '{name} (')]/ancestor::div[3]"

    def says(self, name: str, text: str) -> None:
        """Wait until a text stands at a parameter."""
        self._until(lambda: text in self._found(self.part(name)).text, f"the form says {text!r} at {name}")

    def press(self, text: str, name: str = "") -> None:
        """Press a button, of a parameter if one is named."""
        path = f"{self.part(name) if name else ''}//button[normalize-space()='{text}']"
        self._until(lambda: self._found(path).click() or True, f"there is a button {text}")

    def submit(self) -> None:
        """Submit until the form is left: the first time after a refusal, it only checks its entries again."""
        page = self.driver.current_url

        def left() -> bool:
            if self.driver.current_url == page:
                self._found("//button[normalize-space()='Submit']").click()
                time.sleep(1.5)
            return bool(self.driver.current_url != page)

        self._until(left, "the form is submitted")

    def choose(self, name: str, shown: str, wanted: str) -> None:
        """Choose another entry of a list."""
        self.press(shown, name)
        path = f"//*[@role='option'][normalize-space()='{wanted}']"
        self._until(lambda: self._found(path).click() or True, f"{wanted} is offered")

    def write(self, name: str, text: str) -> None:
        """Write into the one input of a parameter, in the place of what stands there."""
        path = f"({self.part(name)}//input | {self.part(name)}//textarea)[1]"

        def written() -> bool:  # the page may take back what is typed while it checks what stood there
            if self._found(path).get_attribute("value") != text:
                self._found(path).send_keys(Keys.CONTROL, "a")
                self._found(path).send_keys(text, Keys.TAB)
                time.sleep(0.3)
            return bool(self._found(path).get_attribute("value") == text)

        self._until(written, f"{text} stands in {name}")

    def list_of_one(self, name: str, text: str) -> None:
        """Make a parameter a list with one entry."""
        self.press("list", name)
        if not self.driver.find_elements(By.XPATH, f"{self.part(name)}//textarea"):
            self.press("Add item", name)
        self.write(name, text)

    def _found(self, path: str) -> Any:
        return self.driver.find_element(By.XPATH, path)

    @staticmethod
    def _until(happened: Callable[[], Any], what: str) -> None:
        """Wait for something; an element that is not there yet, or has just been drawn anew, is looked for again."""

        def tried() -> Any:
            with suppress(WebDriverException):
                return happened()

        wait_until(tried, what, 20)


@pytest.fixture
def form(cluster: Cluster) -> Iterator[Form]:
    """The form of the deployment `sweep`."""
    with browsers.browser() as browser:
        deployment = asked(cluster, "deployments/name/sweep/dynconf")
        pages = cluster.environment["PREFECT_API_URL"].removesuffix("/api")
        browser.get(f"{pages}/v2/deployments/deployment/{deployment['id']}/run")
        yield Form(browser)


def test_the_form_starts_a_study_and_refuses_what_cannot_work(cluster: Cluster, form: Form) -> None:
    before = {run["id"] for run in flow_runs(cluster)}
    form.choose("settings", "cifar10-resnet18-qcfs", "cifar10-vgg16-qffs")
    form.list_of_one("study", "alfa=1..100")
    form.write("trials", "2")
    form.press("Overrides", "overrides")
    form.write("epochs", "1")
    form.write("time_steps", "4")
    form.press("Submit")
    form.says("study", "is not valid")

    form.write("study", "alpha=1..100")
    form.list_of_one("grid", "bits=2,3")
    form.press("Submit")
    form.says("study", "is not one of")
    assert {run["id"] for run in flow_runs(cluster)} == before

    earlier = set(cluster.home.glob("sweeps/*alpha*/results.json"))
    form.press("None", "grid")
    form.submit()
    (run,) = [one for one in flow_runs(cluster) if one["id"] not in before and one["deployment_id"]]
    assert run["parameters"]["study"] == ["alpha=1..100"] and run["parameters"]["overrides"] == {"epochs": 1, "time_steps": 4}
    wait_until(lambda: asked(cluster, f"flow_runs/{run['id']}")["state_type"] in ENDED, "the run ends", 300)
    assert asked(cluster, f"flow_runs/{run['id']}")["state_type"] == "COMPLETED"
    (file,) = set(cluster.home.glob("sweeps/*alpha*/results.json")) - earlier
    points = json.loads(file.read_text())["points"]
    assert len(points) == 2 and {point["setting"] for point in points} == {"cifar10-vgg16-qffs"}

    # Each of the two runs leads to the other.
    filters = {"flow_runs": {"id": {"any_": [run["id"]]}}, "artifacts": {"key": {"any_": ["mlflow"]}}}
    (link,) = asked(cluster, "artifacts/filter", filters)
    (tracked,) = [one for one in mlflow_runs(cluster) if one.data.tags.get("dynconf.flow_run") == run["id"]]
    tracking = cluster.environment["MLFLOW_TRACKING_URI"]
    assert link["data"] == f"[MLflow]({tracking}/#/experiments/{tracked.info.experiment_id}/runs/{tracked.info.run_id})"
    page = cluster.environment["PREFECT_API_URL"].removesuffix("/api") + f"/runs/flow-run/{run['id']}"
    assert tracked.data.tags["mlflow.note.content"].endswith(f"\n\n[Flow run in Prefect]({page})")
