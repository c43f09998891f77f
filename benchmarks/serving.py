"""A served model: latency and throughput of MLflow's server and of the plain call beside it, with exit and for all T steps.

    dynconf register latest --setting cifar10-resnet18-qffs --home HOME
    python benchmarks/serving.py --home HOME --model models:/dynconf-cifar10-resnet18-qffs/1

The images are test images of the handwritten digits, drawn with the seed. The server is the command that ``dynconf register``
prints, in a process of its own on the loopback interface, asked by one client, which keeps its connection open for single
images; requests hold JSON. Kinds of calls take turns, so that whatever else the machine does meets all of them, after each has
been tried once. Latency: p50 and p95 over single images. Throughput: images a second, from the median time of a batch.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
import numpy as np

BATCHES = (32, 256)


def images(count: int, side: int, seed: int) -> np.ndarray:
    """uint8 ``(count, side, side, 3)``, of which none stands twice in a row."""
    from dynconf_core.data.digits import load

    split = load(Path(), "test", resolution=side, calibration=300)
    chosen = np.random.default_rng(seed).permutation(np.resize(np.arange(len(split)), count))
    return np.moveaxis(split.pixels.numpy()[chosen], 1, -1)


@contextmanager
def server(model: str, uri: str, threads: int) -> Iterator[http.client.HTTPConnection]:
    """A connection to the served model."""
    from dynconf_tasks.serving.register import serve_command

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mlflow", "uvicorn"):
            program = Path(folder) / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
            program.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": str(threads)}
        log = (Path(folder) / "log").open("w")
        command = ["bash", "-c", serve_command(model, uri, port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            while process.poll() is None:
                try:
                    connection.request("GET", "/ping")
                    connection.getresponse().read()
                    break
                except OSError:
                    connection.close()
                    time.sleep(0.2)
            else:
                raise SystemExit((Path(folder) / "log").read_text())
            yield connection
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.close()


def asked(connection: http.client.HTTPConnection, batch: np.ndarray) -> list[dict[str, Any]]:
    """The server's answer to a batch of images."""
    connection.request("POST", "/invocations", json.dumps({"inputs": batch.tolist()}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.load(answer)
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {content}")
    if len(batch) > 1:
        connection.close()  # the server would, while the other kinds of calls take their turns
    rows: list[dict[str, Any]] = content["predictions"]
    return rows


def timed(calls: dict[str, Callable[[np.ndarray], object]], batches: list[np.ndarray]) -> dict[str, list[float]]:
    """Seconds of each kind of call for each batch but the first, which is for warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number, batch in enumerate(batches):
        for name, call in calls.items():
            begin = time.perf_counter()
            call(batch)
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", required=True, help="models:/NAME/VERSION or models:/NAME@ALIAS")
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch
    from mlflow.artifacts import download_artifacts

    from dynconf_core.serving import Classifier
    from dynconf_tasks.tracking.database import tracking_uri

    torch.set_num_threads(options.threads)
    os.environ["MLFLOW_TRACKING_URI"] = uri = tracking_uri(options.home.absolute())
    plain = Classifier.load(Path(download_artifacts(options.model)) / "artifacts")
    never = plain.without_exit()
    side = plain.size[0]
    print(measuring.environment_line(options.threads), f"load {os.getloadavg()[0]:.1f}", sep="; ")
    print(f"{options.model}: {plain.facts.origin['setting']}, T = {plain.facts.time_steps}, seed {options.seed}")
    print(f"{'images':>8} {'n':>5}  {'kind':<22} {'p50 ms':>8} {'p95 ms':>8} {'images/s':>9} {'of all T':>8}")
    with server(options.model, uri, options.threads) as connection:
        calls: dict[str, Callable[[np.ndarray], object]] = {
            "server": lambda batch: asked(connection, batch),
            "plain call": plain,
            "plain call, all T": never,
        }
        for size in (1, *BATCHES):
            count = 1 + (options.singles if size == 1 else options.repeats)
            drawn = images(size * count, side, options.seed).reshape(count, size, side, side, 3)
            rows, exits = asked(connection, drawn[0]), plain(drawn[0])
            assert [row["steps"] for row in rows] == exits.steps.tolist(), "the server answers otherwise than the library"
            found = timed(calls, list(drawn))
            whole = measuring.median(found["plain call, all T"])
            for name, seconds in found.items():
                middle, late = np.percentile(seconds, [50, 95]) * 1000
                print(
                    f"{size:>8} {len(seconds):>5}  {name:<22} {middle:>8.1f} {late:>8.1f} {size / middle * 1000:>9.0f} "
                    f"{middle / whole / 1000:>8.2f}"
                )
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
