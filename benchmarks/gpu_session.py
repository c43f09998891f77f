"""What dynconf needs a GPU for, in one call of limited time, the most valuable parts first.

    python benchmarks/mosaics.py DATA FOLDER                    # beforehand: CIFAR-10 as six WebP mosaics of 17 MB
    python benchmarks/gpu_session.py FOLDER OUT --seconds 570   # on the machine with the GPU; the same command resumes
    python benchmarks/gpu_session.py FOLDER OUT --tiny          # everything at tiny sizes on a CPU, to try it

First come measurements, each alone on the machine: the training loop's share of the bare network's throughput, collecting
traces beside SpikingJelly, and live exit by the clock. Then four trainings run side by side, each followed by conversion and
collection, the ResNets once more after fine-tuning over their first time steps; beside them run the GPU tests, and fine-tuning
in several ways at a quarter of the width.

Each part has a time box and runs in a process of its own. What has become of it goes to OUT/session.json, the output of all
parts to OUT/logs.tar. Networks (in half precision) and traces go to OUT/products.tar.0 and so on, in pieces that are joined by
``cat``, as much as a call brings back; the next call brings what is left. A part that is done is not repeated; a training
resumes after its last saved epoch, as long as FOLDER/work is kept. The measurements need no images: where the mosaics come in
several calls, the trainings wait for the call that brings the last one; keep FOLDER then where no later call replaces it.

It needs torch, numpy, pillow and pytest; collecting beside SpikingJelly needs spikingjelly too.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measuring
from mosaics import unpack

RESERVE = 12.0
"""Seconds kept at the end for stopping what runs and writing what is there."""
RECIPE = "batch_size=256 learning_rate=0.2 warm_up=0.05 augmentation=crop+flip+cutout nesterov=true"
FINE_TUNING = "fine_tune_epochs=2 fine_tune_steps=4 fine_tune_potentials=true"
FINE_TUNED = ("cifar10-resnet18-qcfs", "cifar10-resnet18-qffs")
TRAININGS = {
    "cifar10-resnet18-qcfs": f"{RECIPE} epochs=100 initial_threshold=4",
    "cifar10-vgg16-qcfs": f"{RECIPE} epochs=75 initial_threshold=4",
    "cifar10-resnet18-qffs": f"{RECIPE} epochs=75",
    "cifar10-vgg16-qffs": f"{RECIPE} epochs=60",
}
"""The settings trained side by side, with what differs from the profile ``paper``; ``--set`` changes it and adds to it. On one
NVIDIA H200, 100 and 70 epochs of ResNet-18 and 50 of VGG-16 side by side took 203 seconds, compilation included."""
DEFAULT = "steps and network, half distilled"
QUARTER = {
    "qcfs": ("as trained", DEFAULT, f"{DEFAULT}, potentials", "steps alone"),
    "qffs": ("as trained", DEFAULT, f"{DEFAULT}, potentials"),
}
"""Ways of ``fine_tuning.py`` tried at a quarter of the width."""
TINY = "epochs=1 width=0.0625"
SLOWER = 5.0
"""By how much the time boxes are longer on a CPU, whose time goes into starting processes."""
PIECE, PIECES = 15 << 20, 4
"""Bytes of a piece of the products, and how many pieces a call brings back."""


@dataclass(frozen=True)
class Part:
    """What runs, and for how many seconds at most; it is started only if at least half of them are left."""

    name: str
    seconds: float
    command: Sequence[str]


@dataclass
class Session:
    """What has become of the parts, in a file that is rewritten whole after each of them.

    Attributes:
        out: the folder of all that comes of the session.
        logs: the folder of what the parts print.
        until: when it has to be over, by ``time.monotonic``.
        slower: a factor of all time boxes.
        parts: by name, how each ended: "done", "failed" or "out of time", with its seconds.
        delivered: the files that have been put into ``out``, in this call or an earlier one.
    """

    out: Path
    logs: Path
    until: float
    slower: float = 1.0
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    delivered: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def left(self) -> float:
        """Seconds until the session has to be over."""
        return self.until - time.monotonic() - RESERVE

    def done(self, name: str) -> bool:
        """Whether a part has been done, in this call or an earlier one."""
        return self.parts.get(name, {}).get("state") == "done"

    def run(self, part: Part) -> bool:
        """Run a part within its time box, if it has not been done; returns whether it is done."""
        if self.done(part.name):
            return True
        wanted = part.seconds * self.slower
        box = min(wanted, self.left)
        if box < wanted / 2:
            self._ended(part.name, "not started", 0.0)
            return False
        print(f"{part.name}: at most {box:.0f} s\n", end="", flush=True)
        start = time.monotonic()
        with (self.logs / f"{part.name}.log").open("w") as log:
            log.write(f"$ {' '.join(part.command)}\n")
            log.flush()
            child = subprocess.Popen(
                part.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
                cwd=measuring.HERE,
            )
            try:
                state = "done" if child.wait(box) == 0 else "failed"
            except subprocess.TimeoutExpired:
                state = "out of time"
                _stop(child)
        self._ended(part.name, state, time.monotonic() - start)
        return state == "done"

    def _ended(self, name: str, state: str, seconds: float) -> None:
        with self._lock:
            self.parts[name] = {"state": state, "seconds": round(seconds, 1)}
            self.write()
            packed = self.logs.with_suffix(".tar")
            with tarfile.open(packed, "w") as tar:
                tar.add(self.logs, "logs")
            shutil.copyfile(packed, self.out / "logs.tar")
        print(f"{name}: {state} after {seconds:.0f} s\n", end="", flush=True)

    def write(self) -> None:
        """Write what has become of the parts, for this call and for the next."""
        found = {"parts": self.parts, "delivered": self.delivered, "left": round(self.left, 1)}
        for folder in (self.out, self.logs.parent):
            beside = folder / "session.json.new"
            beside.write_text(json.dumps(found, indent=1) + "\n")
            beside.replace(folder / "session.json")


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """End a part and all its processes: politely first, so that a training says where it resumes."""
    for number, patience in ((signal.SIGTERM, 4.0), (signal.SIGKILL, 2.0)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def environment() -> dict[str, str]:
    """The environment of the parts: they import this checkout."""
    root = measuring.HERE.parent
    paths = [str(root), str(root / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def measurements(device: str, tiny: bool) -> list[Part]:
    """The parts that need no images."""
    python, on = sys.executable, ["--device", device]

    def benchmark(name: str, seconds: float, script: str, small: str, full: str) -> Part:
        return Part(name, seconds, [python, script, *on, *(small if tiny else full).split()])

    return [
        benchmark(
            "training-share",
            100,
            "training.py",
            "--architecture resnet18 --width 0.03125 --steps 2 --repeats 1 --batch 8 --recipe paper --plain",
            "--architecture resnet18 --width 1 --steps 88 --repeats 2 --batch 256 --recipe paper "
            "--speed-ups channels_last,autocast,compiled --speed-ups channels_last,autocast,cuda_graphs",
        ),
        benchmark(
            "collecting",
            75,
            "traces.py",
            "--architecture resnet18 --width 0.03125 --time-steps 2 --images 4 --repeats 1",
            "--architecture resnet18 --width 1 --images 512 --repeats 3",
        ),
        benchmark(
            "live-exit",
            75,
            "live.py",
            "--width 0.03125 --samples 8 --batches 4 --repeats 1",
            "--width 1 --samples 4096 --batches 256 1024 --repeats 1",
        ),
    ]


def tests() -> Part:
    """The tests that need a GPU."""
    options = ["--noconftest", "-p", "no:cacheprovider", "-q", "-rs"]
    return Part("gpu-tests", 150, [sys.executable, "-m", "pytest", *options, str(measuring.HERE.parent / "tests/test_gpu.py")])


def quarter(session: Session, data: Path, work: Path, device: str, tiny: bool, method: str) -> None:
    """Train a ResNet-18 of a quarter of the width by ``method``, and fine-tune it in several ways."""
    setting, checkpoint = f"cifar10-resnet18-{method}", work / f"quarter-{method}.pt"
    profile = ["--profile", "smoke" if tiny else "quick", "--setting", setting, "--data", str(data), "--device", device]
    changes = (TINY if tiny else "epochs=8").split()
    train = [sys.executable, "-m", "dynconf_core.training", *profile, *(f"--set={change}" for change in changes)]
    ups = ["--speed-ups", "none" if tiny else "channels_last,autocast"]
    if session.run(Part(f"train-quarter-{method}", 120, [*train, *ups, "--out", str(checkpoint)])):
        judged = "--width 0.0625 --epochs 1 --images 64 --batch 32 --judged 8" if tiny else "--judged 10000"
        study = [sys.executable, "fine_tuning.py", str(checkpoint), *profile, *judged.split()]
        splits = ["--split", "calibration", "--split", "test"]
        ways = [text for way in QUARTER[method] for text in ("--only", way)]
        session.run(Part(f"ways-quarter-{method}", 300, [*study, *splits, *ways]))


def trainings(session: Session, data: Path, work: Path, device: str, tiny: bool, more: str) -> None:
    """Train all settings at the same time, and collect the traces of each as soon as it is trained.

    ``more`` are further FIELD=VALUE for all of them, or SETTING:FIELD=VALUE for one.
    """

    def left(spare: float) -> float:
        return max(session.left / session.slower - spare, 1.0)

    def one(setting: str, changes: str) -> None:
        own = [text.rpartition(":")[2] for text in more.split() if text.rpartition(":")[0] in ("", setting)]
        fields = dict(change.split("=", 1) for change in [*(TINY if tiny else changes).split(), *own])
        overrides = [f"--set={name}={value}" for name, value in fields.items()]
        profile = "smoke" if tiny else "paper"
        common = ["--setting", setting, "--profile", profile, *overrides, "--data", str(data), "--device", device]
        checkpoint = work / f"{setting}.pt"
        ups, fewer = ("none", "none") if tiny else ("channels_last,autocast,cuda_graphs", "channels_last,autocast")
        training = [sys.executable, "-m", "dynconf_core.training", *common, "--half"]
        train = [*training, "--speed-ups", ups, "--out", str(checkpoint)]
        if not session.run(Part(f"train-{setting}", left(40.0), train)):
            return
        collect = [sys.executable, "gpu_collect.py", *common, "--trained", str(checkpoint), "--checkpoint"]
        if setting in FINE_TUNED:
            tuned, how = work / f"{setting}-fine-tuned.pt", [f"--set={change}" for change in FINE_TUNING.split()]
            tune = [
                *training,
                "--fine-tune",
                *fields,
                "--speed-ups",
                fewer,
                "--checkpoint",
                str(checkpoint),
                "--out",
                str(tuned),
            ]
            if session.run(Part(f"fine-tune-{setting}", left(20.0), tune)):
                session.run(Part(f"collect-{setting}-fine-tuned", 60, [*collect, str(tuned), *how]))
        session.run(Part(f"collect-{setting}", 60, [*collect, str(checkpoint)]))

    threads = [threading.Thread(target=one, args=item) for item in TRAININGS.items()]
    threads += [threading.Thread(target=quarter, args=(session, data, work, device, tiny, method)) for method in QUARTER]
    threads.append(threading.Thread(target=session.run, args=(tests(),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def deliver(session: Session, work: Path) -> None:
    """Put traces and networks that no call has brought back yet into OUT, in pieces, as many as fit."""
    chosen: list[Path] = []
    products = [*sorted(work.glob("*.tar"), key=lambda file: "vgg" not in file.name), *sorted(work.glob("*.pt"))]
    for file in products:
        size = sum(one.stat().st_size + 4096 for one in [*chosen, file])
        if file.name != "logs.tar" and file.name not in session.delivered and size <= PIECE * PIECES - 16384:
            chosen.append(file)
    if not chosen:
        return
    whole = work / "products"
    with tarfile.open(whole, "w") as tar:
        for file in chosen:
            tar.add(file, file.name)
    content = whole.read_bytes()
    for number, start in enumerate(range(0, len(content), PIECE)):
        (session.out / f"products.tar.{number}").write_bytes(content[start : start + PIECE])
    session.delivered += [file.name for file in chosen]
    session.write()


def run(given: argparse.Namespace) -> int:
    """Run the session; returns the exit code: 0 if all is done."""
    import torch

    device = "cpu" if given.tiny else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: give --tiny to try the session on a CPU")
    given.out.mkdir(parents=True, exist_ok=True)
    work = given.folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    logs = work / "logs"
    logs.mkdir(exist_ok=True)
    session = Session(given.out, logs, time.monotonic() + given.seconds, SLOWER if given.tiny else 1.0)
    former = work / "session.json"
    if former.is_file():
        known = json.loads(former.read_text())
        session.parts, session.delivered = known["parts"], known["delivered"]
    threads = torch.get_num_threads()
    (logs / "machine.txt").write_text(
        f"{torch.cuda.get_device_name() if device == 'cuda' else 'no GPU, tiny sizes'}; {measuring.environment_line(threads)}\n"
    )
    for part in measurements(device, given.tiny):
        session.run(part)
    if unpack(given.folder, work / "data"):
        trainings(session, work / "data", work, device, given.tiny, given.set)
    else:
        print("trainings: CIFAR-10 is not complete here yet; bring the other mosaics and run the same command again")
    deliver(session, work)
    expected = [part.name for part in measurements(device, given.tiny)]
    expected += [f"{kind}-{setting}" for setting in TRAININGS for kind in ("train", "collect")]
    expected += [f"collect-{setting}-fine-tuned" for setting in FINE_TUNED]
    expected += ["gpu-tests", "ways-quarter-qcfs", "ways-quarter-qffs"]
    return 0 if all(session.done(name) for name in expected) else 1


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the mosaics; FOLDER/work holds what an interrupted session resumes from")
    parser.add_argument("out", type=Path, help="where results go")
    parser.add_argument("--seconds", type=float, default=570.0, help="the whole call [570]")
    parser.add_argument(
        "--set", default="", help="FIELD=VALUE ..., added to the recipe of all trainings; SETTING:FIELD=VALUE of one"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on a CPU")
    sys.path.insert(0, str(measuring.HERE.parent))  # where dynconf is not installed
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
