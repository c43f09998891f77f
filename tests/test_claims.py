"""Claims on keys, owners of records, and failure points."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dynconf_core import failing
from dynconf_core.errors import InputError
from dynconf_core.failing import DIE_AT, POINTS, failure_point
from dynconf_core.store.claim import FOLDER, claim, holder
from dynconf_core.store.owner import Owner

HOLD = """
import sys, time
from pathlib import Path
from dynconf_core.store.claim import claim
with claim(Path(sys.argv[1]), "key", "holding"):
    print("held", flush=True)
    time.sleep(60)
"""


def held_by_another(home: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_claim_is_held_by_one_thread_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(25):
            with claim(tmp_path, "key", "counting", lambda who: None):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_who_waits_is_told_for_whom_and_takes_over_once_the_holder_is_killed(tmp_path: Path) -> None:
    process = held_by_another(tmp_path)
    told: list[str] = []

    def waiting(who: str) -> None:
        told.append(who)
        if len(told) == 3:
            process.kill()

    begin = time.monotonic()
    with claim(tmp_path, "key", "taking over", waiting):
        assert time.monotonic() - begin < 5
    process.wait()
    assert told[0] == f"process {process.pid} on {Owner.this().host} (holding)"


def test_an_exception_ends_the_wait(tmp_path: Path) -> None:
    process = held_by_another(tmp_path)

    def stop(who: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claim(tmp_path, "key", "never", stop):
        raise AssertionError("the claim is held by another process")
    assert holder(tmp_path, "key") is not None
    process.kill()
    process.wait()


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder belongs")
    with pytest.raises(InputError, match="cannot be written"), claim(tmp_path, "key", "nothing"):
        pass


def test_an_owner_is_alive_until_its_process_ends_and_no_other_process_is_taken_for_it(tmp_path: Path) -> None:
    process = held_by_another(tmp_path)
    owner = Owner.of(process.pid)
    assert owner.alive() is True
    assert Owner(owner.host, owner.pid, owner.started - 60).alive() is False
    assert Owner("elsewhere", owner.pid, owner.started).alive() is None
    process.kill()
    time.sleep(0.2)
    assert owner.alive() is False, "killed, and not yet waited for"
    process.wait()
    assert owner.alive() is False
    assert Owner.parse(str(owner)) == owner
    assert [Owner.parse(text) for text in ("", "host", "host/1", "host/a/1", "host/1/2/3", "/1/2")] == [None] * 6


def test_a_failure_point_calls_the_hook_and_kills_a_child_on_its_count() -> None:
    seen: list[str] = []
    with failing.failing(seen.append):
        failure_point("store.files")
    failure_point("store.files")
    assert seen == ["store.files"]
    code = "from dynconf_core.failing import failure_point as f\nfor n in range(5): print(n, flush=True); f('search.trial')"
    environment = {**os.environ, DIE_AT: "search.trial:3"}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_every_failure_point_in_the_code_is_listed() -> None:
    root = Path(failing.__file__).parents[1]
    files = [path for folder in ("dynconf_core", "tasks", "flows") for path in (root / folder).rglob("*.py")]
    used = {name for path in files for name in re.findall(r'failure_point\("([^"]+)"\)', path.read_text())}
    assert used == set(POINTS)
