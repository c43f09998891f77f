"""One network trained by several processes, which talk by gloo: the same batches, the same steps, the same rules."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from image_folders import image_folder
from processes import ended, started
from stage_cases import run_stage
from torch import Tensor, nn
from training_cases import CPU, RECIPE, pictures, small

from dynconf_core.data import imagenet
from dynconf_core.data.batches import batches
from dynconf_core.data.images import Images
from dynconf_core.errors import InputError
from dynconf_core.experiment.following import follow
from dynconf_core.experiment.job import Job
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.stages import job
from dynconf_core.networks.checkpoint import load_checkpoint, read
from dynconf_core.schemes.network import described
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.training.__main__ import main
from dynconf_core.training.loop import train
from dynconf_core.training.processes import Processes
from dynconf_core.training.speed import SpeedUps

BATCH = replace(RECIPE, batch_size=12)
OPTIONS = replace(BATCH, nesterov=True, label_smoothing=0.1, averaging=0.9, decay_thresholds=False, finer_start=4, noise=0.5)
"""A recipe with what several processes have to share: noise and averages among it."""
SETTING = "training_cases:SMALL_SETTING"


class Double(nn.Module):
    """A network in double precision, in which activations stay on their levels where sums are added in another order."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.network = small(method).double()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x.double())
        return result


def together(count: int, work: Callable[[], object], first: Mapping[str, str] | None = None) -> list[int]:
    """Do ``work`` in processes such as torchrun starts, with variables for the first alone; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        started(work, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **((first or {}) if rank == 0 else {})})
        for rank in range(count)
    ]
    return [ended(process) for process in running]


def trained(to: Path, *runs: tuple[nn.Module, Path | None, Recipe]) -> Callable[[], None]:
    """Work that trains networks one after the other, and leaves what each process has got in ``to``."""

    def work() -> None:
        torch.set_num_threads(1)
        processes = Processes.joined()
        found = []
        for net, resume, recipe in runs:
            record = train(net, pictures(48), recipe, seed=5, device=CPU, resume=resume, processes=processes)
            found.append({"network": net.state_dict(), "losses": record["losses"]})
        to.mkdir(parents=True, exist_ok=True)
        torch.save(found, to / str(processes.rank))
        processes.leave(orderly=True)

    return work


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


# The batches


@dataclass(frozen=True)
class Elsewhere:
    """Images of somebody's own, which know of no shares."""

    images: Images

    def __getattr__(self, name: str) -> object:
        return getattr(self.images, name)

    def __len__(self) -> int:
        return len(self.images)


@pytest.mark.parametrize("kind", ["in memory", "decoded", "of one's own"])
def test_the_shares_of_a_batch_are_the_batch(kind: str, tmp_path: Path) -> None:
    """Images, crops, augmentation and labels, bit for bit."""
    images: Images = pictures(50)
    if kind != "in memory":
        image_folder(tmp_path / "imagenet", (60, 50))
        images = imagenet.load(tmp_path, "train", resolution=24, calibration=1)
    if kind == "of one's own":
        images = Elsewhere(images)  # type: ignore[assignment]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))

    def epoch(share: slice) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        return list(batches(images, order, 4, ("crop", "flip", "jitter", "cutout"), generator, CPU, share=share))

    whole, first, second = epoch(slice(None)), epoch(slice(0, 2)), epoch(slice(2, 4))
    assert len(whole) == len(images) // 4 == len(first) == len(second)
    for one, a, b in zip(whole, first, second, strict=True):
        for part in (0, 1):
            assert torch.equal(one[part], torch.cat([a[part], b[part]]))


# The steps


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """Batch statistics, learned thresholds and steps, momentum, noise and losses: nothing differs but the order of sums."""
    runs = [(method, recipe) for recipe in (BATCH, OPTIONS) for method in ("qcfs", "qffs")]
    assert together(2, trained(tmp_path / "two", *((Double(method), None, recipe) for method, recipe in runs))) == [0, 0]
    two, other = (torch.load(tmp_path / "two" / rank) for rank in "01")
    for number, (method, recipe) in enumerate(runs):
        one = Double(method)
        losses = train(one, pictures(48), recipe, seed=5, device=CPU)["losses"]
        assert same(two[number]["network"], other[number]["network"]), "all processes hold the same network"
        assert two[number]["losses"] == other[number]["losses"] == pytest.approx(losses, rel=1e-6)
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two[number]["network"][name], value, rtol=1e-11, atol=1e-11, msg=f"{method} {name}")


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Three processes, whose sums depend on how gradients are grouped; the first is killed once it has kept an epoch."""
    kept = tmp_path / "kept"
    codes = together(3, trained(tmp_path / "killed", (small("qffs"), kept, BATCH)), {"DYNCONF_DIE_AT": "train.epoch"})
    assert codes[0] == -signal.SIGKILL and 0 not in codes
    assert read(kept)["processes"] == 3 and len(read(kept)["record"]["losses"]) == 1
    runs = trained(tmp_path / "whole", (small("qffs", seed=9), kept, BATCH), (small("qffs"), None, BATCH))
    assert together(3, runs) == [0, 0, 0]
    resumed, whole = torch.load(tmp_path / "whole" / "0")
    assert same(resumed["network"], whole["network"]) and resumed["losses"] == whole["losses"]

    with pytest.raises(InputError, match=r"3 processes instead of 1: go on with as many \(`torchrun --nproc-per-node 3"):
        train(small("qffs"), pictures(48), BATCH, seed=5, device=CPU, resume=kept)
    assert kept.exists(), "days of work may lie there"


# The command


def tiny(home: Path, **changes: int) -> Job:
    """The job whose stage ``train`` is made."""
    request = Request(settings=(SETTING,), overrides=changes, home=str(home), device="cpu")
    (plan,) = request.plans()
    return job(plan, request.context())


def words(home: Path, **changes: int) -> list[str]:
    sets = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    return ["--setting", SETTING, *sets, "--home", str(home), "--device", "cpu", "--threads", "1"]


def commanded(count: int, printed: Path, arguments: list[str]) -> list[int]:
    """Run the command in processes such as torchrun starts; ``printed/RANK`` holds what each prints."""
    printed.mkdir(parents=True)

    def work() -> None:
        with (printed / os.environ["RANK"]).open("w") as stream:
            sys.argv, sys.stdout, sys.stderr = ["training", *arguments], stream, stream
            raise SystemExit(main())

    return together(count, work)


def made(given: Job) -> Artefact:
    """The artefact of the stage ``train`` that the pipeline finds."""
    found = follow(given).finished["train"]
    artefact = Store(given.context.artefacts).get(found.key)
    assert artefact is not None and found.outcome == "adopted"
    return artefact


def test_torchrun_stopped_and_started_again(root: Path, tmp_path: Path) -> None:
    """SIGTERM ends all processes; the same command goes on, and makes what the pipeline finds, with the bits of one go."""
    home, other = tmp_path / "home", tmp_path / "other"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dynconf_core.training"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    with (tmp_path / "printed").open("w") as printed:
        running = subprocess.Popen([*torchrun, *words(home)], env=environment, stdout=printed, stderr=printed)
        while running.poll() is None and not list(home.glob("work/*/epoch.pt")):
            time.sleep(0.01)
        running.terminate()
        assert running.wait(60) != 0
    told = (tmp_path / "printed").read_text()
    assert told.count("interrupted; the same command resumes after the last saved epoch") == 1, told
    assert not [one for one in Path("/proc").glob("[0-9]*/cmdline") if str(home).encode() in _content(one)]
    assert not list(home.glob("claims/*")) and not list(home.glob("artefacts/train/*"))
    (state,) = home.glob("work/*/epoch.pt")
    assert len(read(state)["record"]["losses"]) in range(1, 8)

    assert commanded(2, tmp_path / "resumed", words(home)) == [0, 0]
    assert commanded(2, tmp_path / "whole", words(other)) == [0, 0]
    resumed, whole = made(tiny(home)), made(tiny(other))
    assert resumed.digest == whole.digest
    facts = resumed.manifest["provenance"]["facts"]
    assert facts["processes"] == 2 and facts["backend"] == "gloo" and facts["threads"] == 1
    assert load_checkpoint(described(tiny(home).plan.network(), 0), resumed.file("checkpoint.pt"))["processes"] == 2
    (adoption,) = resumed.manifest["provenance"]["adopted"]
    source = Store(tiny(home).context.artefacts).get(adoption["from"])
    assert source is not None and source.manifest["parts"]["config"]["processes"] == 2
    assert {**source.manifest["parts"]["config"], "processes": 1} == {**resumed.manifest["parts"]["config"], "processes": 1}
    assert "by 2 processes" in (tmp_path / "resumed" / "0").read_text() and not list(home.glob("work/*"))

    assert commanded(1, tmp_path / "again", words(home)) == [0], "one process finds what two have made"
    assert "by 2 processes, in the store already" in (tmp_path / "again" / "0").read_text()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_one_process_makes_what_the_pipeline_makes(tmp_path: Path) -> None:
    jobs = [tiny(tmp_path / name, epochs=1) for name in ("command", "pipeline")]

    def pipeline() -> None:
        jobs[1].context.prepare()
        run_stage("train", jobs[1], {})

    running = started(pipeline)
    assert commanded(1, tmp_path / "printed", words(tmp_path / "command", epochs=1)) == [0]
    assert ended(running) == 0
    first, second = (follow(given).finished["train"] for given in jobs)
    assert first.outcome == second.outcome == "cached"
    assert (first.key, first.digest) == (second.key, second.digest)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"batch_size": 201}, [], "batch_size=201 cannot be shared out evenly to 2 processes: start as many as divide it"),
        ({}, ["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_what_cannot_work_is_said_once(changes: dict[str, int], arguments: list[str], message: str, tmp_path: Path) -> None:
    assert commanded(2, tmp_path / "printed", [*words(tmp_path / "home", **changes), *arguments]) == [2, 2]
    first, second = ((tmp_path / "printed" / rank).read_text() for rank in "01")
    assert message in first and "Traceback" not in first and second == ""


def test_compiled_code_is_for_one_process() -> None:
    compiled = SpeedUps(compiled=True)
    with pytest.raises(InputError, match="speed-ups=compiled is for one process: with several, give channels_last,autocast"):
        train(small(), pictures(48), BATCH, seed=5, device=CPU, speed_ups=compiled, processes=Processes(count=2))


def test_machines_with_other_commands_are_refused(tmp_path: Path) -> None:
    def work() -> None:
        processes = Processes.joined()
        with pytest.raises(InputError, match=r"process 1 has another seed than process 0 \(1, not 0\)"):
            processes.same(epochs=3, seed=processes.rank)
        processes.leave(orderly=True)

    assert together(2, work) == [0, 0]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK=None in the environment is no whole number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is no whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "RANK=2 is no process of WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "cannot reach the others at"),
    ],
)
def test_an_environment_that_torchrun_did_not_make(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        Processes.joined()
