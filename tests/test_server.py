"""The temporary Prefect server: isolated, deaf to signals, gone with its parent, and on a whole database."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dynconf_core.errors import InputError
from dynconf_core.home.running import stale
from dynconf_flows.command import main
from dynconf_flows.command.server import TemporaryServer
from dynconf_flows.command.server_process import MAKING, checked
from dynconf_tasks import answering

PARENT = """
import sys, time
from pathlib import Path
from dynconf_flows.command.server import TemporaryServer
server = TemporaryServer(Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The server sets variables of this process; afterwards they are as before."""
    before = dict(os.environ)
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def earlier() -> None:
    """Remembers the server that the tests of this process share, if it is there already."""
    EARLIER.clear()
    EARLIER.update(server.pid for server in servers(os.getpid()))


EARLIER: set[int] = set()


def servers(parent: int) -> list[psutil.Process]:
    """The temporary servers that a process has started in this test; the tests' server of processes is another child."""
    found = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            found += [child] if "server_process.py" in " ".join(child.cmdline()) and child.pid not in EARLIER else []
    return found


def gone(process: psutil.Process, seconds: float = 15) -> bool:
    """Whether the process ends within some seconds."""
    with suppress(psutil.NoSuchProcess):
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def healthy() -> bool:
    return bool(urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=10).read() == b"true")


def test_a_server_in_odd_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed while its database is made; started anew on what is left, damaged besides; signalled, and stopped."""
    home, folder = tmp_path / "50%41 of a? home #1 [red] é", tmp_path / "strange"
    folder.mkdir()
    for module in ("random", "struct", "logging", "json", "prefect", "sqlite3"):
        (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({module!r})")
    monkeypatch.chdir(folder)

    # The whole command is killed as soon as the database is there, but not whole.
    parent = subprocess.Popen([sys.executable, "-P", "-c", PARENT, str(home)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "started\n"
    (first,) = servers(parent.pid)
    database, making = home / "prefect" / "prefect.db", home / "prefect" / ".making"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (making.exists() and database.exists() and database.stat().st_size):
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert gone(first), "a server ends with its parent"
    assert making.exists()

    making.unlink()
    for beside in home.glob("prefect/prefect.db-*"):
        beside.unlink()
    database.write_bytes(b"no database")
    server = TemporaryServer(home)
    server.wait()
    assert healthy() and not making.exists()
    (aside,) = home.glob("prefect/prefect.db.damaged-*[0-9]")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert aside.name in warning and str(database) in warning
    (process,) = servers(os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    time.sleep(0.5)
    assert healthy(), "it outlives the signals that end the command"
    server.stop()
    assert gone(process) and not list(home.glob("prefect/prefect.db-*"))
    assert {path.name for path in tmp_path.iterdir()} == {home.name, "strange"}, "nothing outside, nothing executed"
    assert "PREFECT_API_URL" not in os.environ


def whole(database: Path) -> None:
    """A database of two tables, with many rows."""
    with closing(sqlite3.connect(database)) as made, made:
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES ('1')")
        made.execute("CREATE TABLE flow_run (name TEXT)")
        made.executemany("INSERT INTO flow_run VALUES (?)", [("x" * 100,)] * 1000)


def scribbled(database: Path) -> None:
    whole(database)
    with database.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 200)


def half(database: Path) -> None:
    with closing(sqlite3.connect(database)) as made, made:
        made.execute("CREATE TABLE flow_run (name TEXT)")


def killed(database: Path) -> None:
    whole(database)
    (database.parent / MAKING).touch()


def test_a_server_that_is_killed_is_started_again_on_its_port(
    empty_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Path(shutil.copytree(empty_home, tmp_path / "home"))
    server = TemporaryServer(home)
    try:
        server.wait()
        address = os.environ["PREFECT_API_URL"]
        (killed,) = servers(os.getpid())
        killed.kill()
        assert gone(killed)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError):
                if healthy():
                    break
            time.sleep(0.1)
        assert healthy() and os.environ["PREFECT_API_URL"] == address
        assert "is started again" in caplog.text
        (second,) = servers(os.getpid())
        assert [run.owner.pid for run in stale(home) if run.owner] == [killed.pid], "the next run ends what it left"
    finally:
        server.stop()
    assert gone(second) and servers(os.getpid()) == []


@pytest.mark.parametrize(("left", "kept"), [(whole, 1), (scribbled, 2), (half, 2), (killed, 0)])
def test_what_becomes_of_a_database(
    left: Callable[[Path], None], kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole one is used, a damaged one set aside, and one that was never finished removed."""
    database = tmp_path / "prefect.db"
    left(database)
    before = database.read_bytes()
    with ExitStack() as held:
        checked(database, held)
        assert database.exists() == (kept == 1) and (tmp_path / MAKING).exists() == (kept != 1)
        assert any((tmp_path / "claims").glob("*.lock")) == (kept != 1), "the claim is held while it is made"
    aside = [path for path in tmp_path.glob("prefect.db*") if path.read_bytes() == before]
    assert len(aside) == (kept > 0) and not (tmp_path / MAKING).exists()
    assert bool(capsys.readouterr().out) == (kept == 2)


def test_a_full_disk_is_named_whatever_a_server_says_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing_command() -> None:
        raise RuntimeError("Server error '500 Internal Server Error'")

    monkeypatch.setattr(main, "app", failing_command)
    monkeypatch.setattr(sys, "argv", ["dynconf", "reproduce"])
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for free, said in ((2**19, f"no space left for {tmp_path}"), (2**30, "500 Internal")):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 1 and said in capsys.readouterr().err


@pytest.fixture
def answers() -> Iterator[dict[str, bytes]]:
    """A server of the test's own: sends the bytes under "answer", or is silent without them; "url" is its address."""
    said: dict[str, bytes] = {}
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listening:
        said["url"] = f"http://127.0.0.1:{listening.getsockname()[1]}/api".encode()
        kept = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if "answer" in said:
                        connection.recv(4096)
                        connection.sendall(said["answer"])
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield said
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
)
def test_an_api_that_is_not_prefects_is_named_within_seconds(
    answers: dict[str, bytes], answer: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "SECONDS", 1.0)
    if answer is not None:
        answers["answer"] = answer
    monkeypatch.setenv("PREFECT_API_URL", answers["url"].decode())
    start = time.monotonic()
    with pytest.raises(InputError, match=answers["url"].decode()):
        TemporaryServer(tmp_path)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/api", "127.0.0.1:4200/api", "nonsense", "http://"])
def test_an_api_that_refuses_or_has_no_address(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(InputError, match="PREFECT_API_URL"):
        TemporaryServer(tmp_path)


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized"])
def test_an_api_that_answers_is_used(
    answers: dict[str, bytes], status: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers["answer"] = b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\ntrue"
    monkeypatch.setenv("PREFECT_API_URL", answers["url"].decode())
    server = TemporaryServer(tmp_path)
    server.wait()
    server.stop()
    assert os.environ["PREFECT_API_URL"] == answers["url"].decode(), "it is the user's"


@pytest.mark.parametrize("arguments", [["reproduce", "--setting", "cifar10-vgg16-qffs"], ["reconcile"]])
def test_the_command_says_at_once_that_the_api_is_silent(
    answers: dict[str, bytes], tmp_path: Path, arguments: list[str]
) -> None:
    command = ["-m", "dynconf_flows.command.main", *arguments, "--home", str(tmp_path)]
    environment = {**os.environ, "PREFECT_API_URL": answers["url"].decode(), "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and answers["url"].decode() in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "artefacts").exists()
