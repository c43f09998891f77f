"""The records of a killed process end in Prefect, MLflow and Optuna, and those of living processes and other hosts do not."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command
from homes import RUNNING, process

from dynconf_core.failing import failing
from dynconf_core.home.running import runs
from dynconf_core.store.owner import Owner
from dynconf_tasks.reconcile import OWNER, at_work, reconcile

KILLED = """
import sys
from pathlib import Path
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from prefect import flow, tags, task
from dynconf_core.home.running import running
from dynconf_core.store.owner import Owner
from dynconf_tasks.tracking.tracker import tracker
home, owner = Path(sys.argv[1]), str(Owner.this())

@task(name="train")
def train():
    print("ready", flush=True)
    import time
    time.sleep(600)

@flow(name="reproduce")
def reproduce():
    train()

with running(home, "reproduce"), tags(f"dynconf.owner={owner}"):
    tracker(home).parent("smoke", 0, {}, "killed")
    (home / "studies").mkdir()
    journal = JournalFileBackend(str(home / "studies" / "sweep.journal"))
    study = optuna.create_study(study_name="sweep", storage=JournalStorage(journal))
    study.ask().set_user_attr("by", {"owner": owner})
    study.ask().set_user_attr("by", {"owner": "another-host/1/1"})
    study.ask()
    reproduce()
"""


@pytest.fixture(scope="module")
def home(empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a Prefect server."""
    from dynconf_flows.command.server import TemporaryServer

    folder = Path(shutil.copytree(empty_home, tmp_path_factory.mktemp("reconciled") / "home"))
    before = dict(os.environ)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    server = TemporaryServer(folder)
    server.wait()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        yield folder
        server.stop()
    os.environ.clear()
    os.environ.update(before)


def flow_runs() -> dict[str, str]:
    """The state of every flow run and task run, by name."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = [*client.read_flow_runs(), *client.read_task_runs()]
        return {run.name.partition("-")[0]: run.state_name or "" for run in found}


def started(owner: str, name: str) -> None:
    """A flow run of another owner that is running."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        client.create_flow_run(flow(lambda: None, name=name), name=name, tags=[f"{OWNER}={owner}"], state=Running())


def tracked(home: Path) -> dict[str, str]:
    """The status of every MLflow run, by name."""
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.tracker import tracking_uri

    client = MlflowClient(tracking_uri=tracking_uri(home))
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {run.info.run_name: run.info.status for run in found}


def trials(home: Path) -> list[str]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(
        study_name="sweep", storage=JournalStorage(JournalFileBackend(str(home / "studies/sweep.journal")))
    )
    return [trial.state.name for trial in study.trials]


def wait_for(name: str, state: str) -> None:
    end = time.monotonic() + 20
    while flow_runs().get(name) != state:
        assert time.monotonic() < end, flow_runs()
        time.sleep(0.1)


def test_only_the_records_of_the_dead_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dynconf_tasks.tracking.tracker import tracker

    dynconf = command(monkeypatch, capsys)
    started(str(Owner.this()), "living")
    started("another-host/1/1", "elsewhere")
    tracker(home).parent("quick", 0, {}, "living")
    with process(KILLED, home) as child:
        wait_for("train", "Running")
        assert reconcile(home).ended == (), "it lives"
        child.kill()
        child.wait()
    (home / "work" / "key").mkdir(parents=True)
    (home / "work" / "key" / ".epoch.pt.1").write_text("half")
    os.utime(home / "work" / "key" / ".epoch.pt.1", (0, 0))

    before = (flow_runs(), tracked(home), trials(home))
    document = json.loads(dynconf("reconcile", "--home", home, "--dry-run", "--json").out)
    assert len(document["ended"]) == 4 and len(document["removed"]) == 2 and document["dry_run"]
    assert (flow_runs(), tracked(home), trials(home)) == before

    answer = dynconf("reconcile", "--home", home)
    assert answer.code == 0, answer
    assert f"of process {child.pid} on {Owner.this().host}" in answer.out and "removed: work/key/.epoch.pt.1" in answer.out
    runs_now: dict[str, Any] = flow_runs()
    assert runs_now.pop("train") == "Crashed" and runs_now.pop("living") == "Running"
    assert runs_now.pop("elsewhere") == "Running" and list(runs_now.values()) == ["Crashed"]
    assert tracked(home) == {"killed": "KILLED", "living": "RUNNING"}
    assert trials(home) == ["FAIL", "RUNNING", "RUNNING"]
    assert runs(home) == [] and list((home / "work" / "key").iterdir()) == []
    assert "Nothing to do." in dynconf("reconcile", "--home", home).out
    gone = dynconf("reconcile", "--home", home, "--gone", "another-host", "--json")
    assert len(json.loads(gone.out)["ended"]) == 2
    assert flow_runs()["elsewhere"] == "Crashed" and trials(home) == ["FAIL", "FAIL", "RUNNING"]


def test_a_run_reconciles_at_its_start_only_after_a_kill(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynconf_tasks import reconcile as module

    seen: list[Path] = []
    real = module.reconcile
    monkeypatch.setattr(module, "reconcile", lambda home: (seen.append(home), real(home))[1])
    with at_work(home, "reproduce"):
        assert [run.command for run in runs(home)] == ["reproduce"]
    with process(RUNNING, home) as child:
        with at_work(home, "reproduce"):
            assert seen == [] and len(runs(home)) == 2
        child.kill()
        child.wait()
    with at_work(home, "reproduce"):
        assert seen == [home] and [run.command for run in runs(home)] == ["reproduce"]
    assert list((home / "running").iterdir()) == list((home / "claims").iterdir()) == []


def test_a_run_that_is_run_again_is_not_ended_with_the_records_of_its_dead_process(home: Path) -> None:
    """Its tag still names that process when another one begins with it."""
    from prefect import flow, tags
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    @flow(name="again")
    def again() -> tuple[str | None, list[str]]:
        with at_work(home, "reproduce"), get_client(sync_client=True) as client:
            found = client.read_flow_run(flow_run.id)
            return found.state_name, found.tags

    with process(RUNNING, home) as child:
        dead = Owner.of(child.pid)
        child.kill()
        child.wait()
    with tags(f"{OWNER}={dead}", "nightly"):
        state, found = again()
    assert state == "Running" and set(found) == {f"{OWNER}={Owner.this()}", "nightly"}
    assert runs(home) == []


def test_what_cannot_be_reconciled_is_said_and_tried_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with process(RUNNING, home) as child:
        child.kill()
        child.wait()
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        done = reconcile(home)
        assert [text.partition(":")[0] for text in done.problems] == ["MLflow"] and len(runs(home)) == 1
        with at_work(home, "reproduce"):
            assert len(runs(home)) == 2, "never the reason why a run fails"
    with pytest.raises(KeyboardInterrupt), failing(interrupt):
        reconcile(home)
    assert len(runs(home)) == 1, "so that it is done again"
    assert reconcile(home).problems == () and runs(home) == []


def interrupt(point: str) -> None:
    if point == "reconcile.ended":
        raise KeyboardInterrupt
