"""``dynconf deploy`` where it cannot work (`tests/servers` has it at work), and links to pages that do not exist."""

from types import SimpleNamespace
from uuid import uuid4

import pytest
from commands import command
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from dynconf_tasks.links import TEMPORARY, flow_run_tags


@pytest.mark.parametrize(
    ("address", "arguments", "said"),
    [
        (None, (), "PREFECT_API_URL is not set"),
        ("http://user:secret@127.0.0.1:9/api", (), "nothing answers at http://user:***@127.0.0.1:9/api"),
        ("http://127.0.0.1:9/api", ("--automations", "--grace", "60s"), "--grace 60s: runs that live would be taken for dead"),
        ("http://127.0.0.1:9/api", ("--automations", "--grace", "long"), "--grace long"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_deployed(
    address: str | None,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with temporary_settings({PREFECT_API_URL: address}):
        code, out, error = command(monkeypatch, capsys, "deploy")(*arguments)
    assert (code, out) == (2, "") and said in error and "secret" not in error


def test_only_a_server_that_stays_has_pages_to_link_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flow_run_tags() == {}
    run = SimpleNamespace(id=uuid4())
    with temporary_settings({PREFECT_API_URL: "http://prefect:4200/api"}), FlowRunContext.model_construct(flow_run=run):
        found = flow_run_tags()
        assert found.pop("mlflow.note.content").endswith(f"(http://prefect:4200/runs/flow-run/{run.id})")
        assert found == {"dynconf.flow_run": str(run.id)}
        monkeypatch.setenv(TEMPORARY, "1")
        assert flow_run_tags() == found
