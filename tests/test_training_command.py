"""From a description to a file, and ``python -m dynconf_core.training``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from training_cases import CPU, description, equal

from dynconf_core.experiment.plan import Data
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.networks.checkpoint import load_checkpoint, read
from dynconf_core.schemes.network import described
from dynconf_core.training.run import train_to_file

# From a description to a file


def test_train_to_file(tmp_path: Path) -> None:
    """The provenance tells which images were held out; the checkpoint loads into the described network."""
    recipe = Recipe(epochs=1, batch_size=100, learning_rate=0.05, augmentation=("flip",), initial_threshold=4.0)
    plan = replace(
        resolve("cifar10-resnet18-qffs", "smoke", seed=3),
        data=Data("digits", None, 16, 400, 900, 10, "cifar"),
        recipe=recipe,
        width=1 / 16,
    )
    out = tmp_path / "checkpoint.pt"
    provenance = train_to_file(
        plan,
        data_root=tmp_path,
        device=CPU,
        out=out,
        resume=tmp_path / "resume",
    )
    net = described(description("qffs"), seed=0)
    assert load_checkpoint(net, out) == json.loads(json.dumps(provenance)) == provenance
    assert provenance["data"]["train"] == 400 and provenance["seed"] == 3
    assert provenance["data"]["split"]["calibration"] == 900
    assert provenance["network"] == description("qffs")
    assert provenance["recipe"]["augmentation"] == ["flip"] and len(provenance["record"]["losses"]) == 1
    assert provenance["parameters"] == sum(p.numel() for p in net.parameters())


# The command


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "dynconf_core.training", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def test_command(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt"
    fields = [word for field in ("epochs=1", "width=0.03", "batch_size=100") for word in ("--set", field)]
    done = command(root, "--setting", "cifar10-resnet18-qcfs", *fields, "--out", str(out), "--device", "cpu", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert f"{out}: cifar10-resnet18-qcfs, profile smoke" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pt"], "the state between epochs goes when the run ends"
    provenance = read(out)["provenance"]
    assert provenance["seed"] == 4 and provenance["recipe"]["epochs"] == 1 and provenance["threads"] == 1
    load_checkpoint(described(provenance["network"], seed=0), out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--setting", "cifar10-resnet18-qcf"),
            "setting 'cifar10-resnet18-qcf' is unknown (did you mean 'cifar10-resnet18-qcfs'?)",
        ),
        (("--setting", "cifar10-vgg16-qcfs", "--set", "bits=2"), "field 'bits' belongs to none"),
        (("--setting", "cifar10-vgg16-qcfs", "--set", "fine_tune_epochs=1"), "fine_tune_epochs=1 without --fine-tune"),
        (("--setting", "cifar10-vgg16-qcfs", "--profile", "quick", "--data", "/nowhere"), "dynconf data fetch cifar10"),
    ],
)
def test_command_refuses(arguments: tuple[str, ...], words: str, root: Path, tmp_path: Path) -> None:
    done = command(root, *arguments, "--out", str(tmp_path / "net.pt"))
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def _heeds_interrupts() -> None:
    """A shell starts what runs in its background, and so perhaps these tests, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupted_run_goes_on(root: Path, tmp_path: Path) -> None:
    """Ctrl-C after the first epoch: 130, and the same command gives the network of a run that nobody interrupted."""
    fields = [word for field in ("epochs=5", "width=0.03", "batch_size=100") for word in ("--set", field)]
    arguments = ("--setting", "cifar10-resnet18-qffs", *fields, "--device", "cpu", "--threads", "1")
    words = [sys.executable, "-m", "dynconf_core.training", *arguments, "--out", str(tmp_path / "net.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for _ in range(4):  # on a busy machine the run may end before the signal reaches it
        running = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heeds_interrupts
        )
        while running.poll() is None and not (tmp_path / "net.pt.resume").is_file():
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
        if running.returncode != 0:
            break
    assert running.returncode == 130 and "interrupted; the same command resumes" in errors and "Traceback" not in errors
    assert len(read(tmp_path / "net.pt.resume")["record"]["losses"]) in range(1, 5)
    assert command(root, *arguments, "--out", str(tmp_path / "net.pt")).returncode == 0
    assert command(root, *arguments, "--out", str(tmp_path / "whole.pt")).returncode == 0
    resumed, whole = (described(description("qffs", width=0.03, resolution=32), 0) for _ in range(2))
    load_checkpoint(resumed, tmp_path / "net.pt")
    load_checkpoint(whole, tmp_path / "whole.pt")
    assert equal(resumed, whole)
