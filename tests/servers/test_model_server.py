"""A registered model behind MLflow's own server on the loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_cluster import Cluster
from served_homes import Case, case, images, make_home

from dynconf_core.serving import Classifier
from dynconf_tasks.serving.register import register, serve_command
from dynconf_tasks.tracking.database import tracking_uri

START = 120.0
"""Seconds until the server answers, on a busy machine."""


@dataclass(frozen=True)
class Server:
    """The server's address, and what it has to answer."""

    address: str
    known: Case

    def post(self, content: Any, kind: str = "application/json") -> tuple[int, Any]:
        """The status and the JSON that it answers."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.address}/invocations", body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read())

    def up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def server(empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    folder, known, port = tmp_path_factory.mktemp("serving"), case(), free_port()
    home = make_home(Path(shutil.copytree(empty_home, folder / "a home")), known)
    (made,) = register(home, home / "data", "latest", alias="champion")
    for name in ("mlflow", "uvicorn"):  # where pip has put neither beside this Python
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = serve_command(made.uri, tracking_uri(home), port)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"{command}"], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    found = Server(f"http://127.0.0.1:{port}", known)
    try:
        begin = time.monotonic()
        while not found.up():
            assert process.poll() is None and time.monotonic() - begin < START, (folder / "log").read_text()
            time.sleep(0.2)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_it_answers_as_the_collected_traces_do(server: Server) -> None:
    pixels = np.moveaxis(images().pixels.numpy(), 1, -1)
    status, answer = server.post({"inputs": pixels.tolist()})
    assert status == 200
    rows = answer["predictions"]
    assert [row["class"] for row in rows] == server.known.classes.tolist()
    assert [row["steps"] for row in rows] == server.known.steps.tolist()
    assert [row["label"] for row in rows] == [str(number) for number in server.known.classes]
    exits = server.known.classifier(pixels)
    assert [row["confidence"] for row in rows] == server.known.classifier.confidence(exits).tolist()
    assert [row["spikes"] for row in rows] == exits.spikes.tolist()
    assert [row["synaptic_operations"] for row in rows] == exits.synaptic_operations.tolist()


def test_it_takes_the_other_layout_too(server: Server) -> None:
    status, answer = server.post({"inputs": images(5).pixels.tolist()})
    assert (status, [row["steps"] for row in answer["predictions"]]) == (200, server.known.steps[:5].tolist())


def test_it_answers_several_at_once(server: Server) -> None:
    counts = (1, 3, 8, 1, 5, 24)
    with ThreadPoolExecutor(len(counts)) as pool:
        answers = list(pool.map(lambda count: server.post({"inputs": images(count).pixels.tolist()}), counts))
    for count, (status, answer) in zip(counts, answers, strict=True):
        assert (status, [row["steps"] for row in answer["predictions"]]) == (200, server.known.steps[:count].tolist())


def images_of(value: float, *shape: int) -> list[Any]:
    return list(np.full(shape or (1, 32, 32, 3), value).tolist())


REFUSED: dict[str, tuple[Any, str]] = {
    "empty": ({"inputs": []}, "images is empty"),
    "decimals": ({"inputs": images_of(0.5)}, "the images are decimals"),
    "too bright": ({"inputs": images_of(256)}, "from 256 to 256"),
    "negative": ({"inputs": images_of(-1)}, "from -1 to -1"),
    "nan": ({"inputs": images_of(float("nan"))}, "NaN"),
    "one channel": ({"inputs": images_of(0, 1, 32, 32, 1)}, "repeat a grey image"),
    "another size": ({"inputs": images_of(0, 1, 28, 28, 3)}, "resize"),
    "one image": ({"inputs": images_of(0, 32, 32, 3)}, "a batch of one"),
    "ragged": ({"inputs": [*images_of(0), *images_of(0, 1, 32, 31, 3)]}, "differ in length"),
    "text": ({"inputs": [["cat"]]}, "text"),
    "names": ({"inputs": {"images": images_of(0)}}, "give the images alone"),
    "too many": ({"inputs": [0] * 1025}, "at most 1024"),
    "another key": ({"instances": images_of(0)}, "'inputs'"),
    "a table": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "'inputs'"),
    "no JSON": (b"{", "JSON"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses_with_400_and_the_reason(server: Server, what: str) -> None:
    content, reason = REFUSED[what]
    status, answer = server.post(content)
    assert status == 400
    assert reason in answer["message"]
    assert len(answer["message"]) < 400  # it does not send back what it was sent


def test_registering_on_a_server_of_mlflow(cluster: Cluster, server: Server, tmp_path: Path) -> None:
    """Which hands out the model again."""
    from mlflow.artifacts import download_artifacts

    home = make_home(tmp_path / "home", server.known)
    first, second = (register(home, home / "data", "latest", name="on-a-server", alias="champion") for _ in range(2))
    assert [(one.version, one.new) for one in (*first, *second)] == [("1", True), ("1", False)]
    classifier = Classifier.load(Path(download_artifacts(first[0].uri, dst_path=str(tmp_path))) / "artifacts")
    assert classifier(images(6).pixels).steps.tolist() == server.known.steps[:6].tolist()
