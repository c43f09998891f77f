"""What a stage's key depends on: the code that it reaches and no other, the content of its inputs, the values that matter."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dynconf_core.data.splits import SPLIT_SEED, held_out
from dynconf_core.plan import Plan
from dynconf_core.settings import SETTINGS, resolve
from dynconf_core.store.fingerprint import reached
from tasks import collect, convert, evaluate, search, train
from tasks import stage as stage_module
from tasks.stage import ROOT, Handle, Stage, Workplace

PLAN = resolve("cifar10-resnet18-qcfs", "quick")
HANDLE = Handle("x", "0" * 64, "1" * 64, Path("nowhere"), "ran")
OTHER = replace(HANDLE, digest="2" * 64)

# By stage: files of the core that must be reached, and prefixes that must not.
REACH = {
    train: (
        {
            "training/loop.py",
            "training/speed.py",
            "data/augment.py",
            "data/cifar10.py",
            "networks/resnet.py",
            "activations/lsq.py",
        },
        ("simulation", "neurons", "conversion", "exit", "confidence", "evaluation", "traces", "data/digits", "data/imagenet"),
    ),
    convert: (
        {
            "conversion/grid.py",
            "conversion/convert.py",
            "graph/trace.py",
            "simulation/network.py",
            "networks/resnet.py",
            "data/cifar10.py",
        },
        (
            *("training/loop", "training/speed", "data/augment", "data/digits", "data/imagenet"),
            *("exit", "confidence", "evaluation", "simulation/collect", "simulation/live"),
        ),
    ),
    collect: (
        {
            "simulation/collect.py",
            "simulation/counts.py",
            "simulation/network.py",
            "neurons/signed.py",
            "conversion/file.py",
            "data/cifar10.py",
        },
        (
            *("training/loop", "data/augment", "data/digits", "conversion/convert", "graph/trace", "simulation/live"),
            *("exit", "confidence", "evaluation"),
        ),
    ),
    search: (
        {
            "exit/front.py",
            "exit/selection.py",
            "exit/cross_fitting.py",
            "confidence/scores.py",
            "confidence/learned.py",
            "traces.py",
        },
        (
            *("training/loop", "networks", "simulation", "neurons", "conversion", "graph", "data"),
            *("evaluation/metrics", "evaluation/energy", "evaluation/figures", "evaluation/canvas"),
        ),
    ),
    evaluate: (
        {"evaluation/metrics.py", "evaluation/figures.py", "exit/bounds.py", "exit/front.py", "traces.py"},
        ("training/loop", "networks", "simulation", "neurons", "conversion", "data"),
    ),
}


@pytest.mark.parametrize("stage", REACH, ids=lambda module: module.__name__.split(".")[-1])
def test_a_stage_reaches_its_code_and_no_other(stage: object) -> None:
    files = {path.as_posix() for path in reached(stage.code(PLAN), ROOT)}  # type: ignore[attr-defined]
    core = {name.split("dynconf_core/")[1] for name in files if "dynconf_core/" in name}
    wanted, unwanted = REACH[stage]  # type: ignore[index]
    assert wanted <= core
    stray = {name for name in core for prefix in unwanted if name.startswith(prefix) and not name.endswith("__init__.py")}
    assert not stray
    assert not core & {"settings.py", "overrides.py", "data/fetch.py"}, "a new setting makes nothing stale"
    assert not [name for name in files if "/flows/" in name or "/tests/" in name]


def train_stage(plan: Plan = PLAN, digest: str = "d") -> Stage:
    return train.stage(plan, digest)


def test_what_changes_the_key_of_training() -> None:
    key = train_stage().key().key
    assert train_stage().key().key == key
    changed = [
        replace(PLAN, seed=1),
        replace(PLAN, levels=8),
        replace(PLAN, width=0.5),
        replace(PLAN, recipe=replace(PLAN.recipe, epochs=16)),
        replace(PLAN, data=replace(PLAN.data, calibration=1000)),
    ]
    keys = {train_stage(plan).key().key for plan in changed} | {train_stage(digest="e").key().key}
    assert len(keys) == 6 and key not in keys
    same = [
        replace(PLAN, time_steps=4),
        replace(PLAN, search=replace(PLAN.search, max_drop=0.5)),
        replace(PLAN, profile="paper"),
    ]
    assert {train_stage(plan).key().key for plan in same} == {key}


def test_what_changes_the_key_of_a_conversion() -> None:
    key = convert.stage(PLAN, HANDLE).key().key
    changed = [
        replace(PLAN, time_steps=8),
        replace(PLAN, grid=False),
        replace(PLAN, width=0.5),
        replace(PLAN, data=replace(PLAN.data, name="imagenette")),
    ]
    keys = {convert.stage(plan, HANDLE).key().key for plan in changed} | {convert.stage(PLAN, OTHER).key().key}
    assert len(keys) == 5 and key not in keys
    same = [replace(PLAN, search=replace(PLAN.search, alpha=3.0)), replace(PLAN, profile="paper"), replace(PLAN, seed=1)]
    assert {convert.stage(plan, HANDLE).key().key for plan in same} == {key}


def test_device_and_memory_are_in_a_collections_key_where_they_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights on a grid they cannot."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def keys(plan: Plan) -> set[str]:
        works = [Workplace(Path("h"), Path("d"), *more) for more in (("cpu",), ("cuda",), ("cuda:0",), ("cpu", 2**30))]
        return {collect.stage(plan, work, "d", "test", HANDLE, HANDLE).key().key for work in works}

    assert len(keys(PLAN)) == 1
    assert len(keys(replace(PLAN, grid=False))) == 3, "cuda and cuda:0 are one kind"


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({"data": {"name": "cifar10", "train": 45000, "split": {"seed": SPLIT_SEED, "calibration": 5000}}}, False),
        ({"data": {"name": "cifar10", "train": 44000, "split": {"seed": SPLIT_SEED, "calibration": 6000}}}, False),
        ({"data": {"name": "cifar10", "train": 49000, "split": {"seed": SPLIT_SEED, "calibration": 1000}}}, True),
        ({"data": {"name": "cifar10", "train": 45000, "split": {"seed": 1, "calibration": 5000}}}, None),
        ({"data": {"name": "cifar10", "train": 40000, "split": {"seed": SPLIT_SEED, "calibration": 5000}}}, None),
        ({"data": {"name": "digits", "train": 45000, "split": {"seed": SPLIT_SEED, "calibration": 5000}}}, None),
        ({"data": {"name": "cifar10", "split": {"seed": SPLIT_SEED}}}, None),
        ({"data": "cifar10"}, None),
        ({}, None),
    ],
)
def test_whether_the_calibration_images_were_trained_on(provenance: dict[str, Any], expected: bool | None) -> None:
    """Known of one's own training, of a given checkpoint only where it says how its images were split."""
    assert collect.trained_on_calibration(provenance, PLAN.data) is expected
    assert collect.trained_on_calibration({"given": "a.pt", "provenance": provenance}, PLAN.data) is expected


def test_a_larger_held_out_part_holds_the_smaller() -> None:
    """What the answer above relies on."""
    assert set(held_out(500, 50)[1].tolist()) < set(held_out(500, 60)[1].tolist())


def test_code_is_read_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most = [0], [0]

    def slow(files: tuple[Path, ...], root: Path) -> str:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.02)
        busy[0] -= 1
        return str(files)

    monkeypatch.setattr(stage_module, "fingerprint", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stage_module.code_fingerprint, [(Path(f"{number}.py"),) for number in range(4)]))
    assert len(set(found)) == 4 and most == [1]


def test_what_changes_the_key_of_a_collection() -> None:
    work = Workplace(Path("home"), Path("data"), "cpu")

    def key(plan: Plan = PLAN, split: str = "test", trained: Handle = HANDLE, snn: Handle = HANDLE) -> str:
        return collect.stage(plan, work, "d", split, trained, snn).key().key

    keys = {key(), key(replace(PLAN, time_steps=8)), key(split="calibration"), key(trained=OTHER), key(snn=OTHER)}
    assert len(keys) == 5
    assert key(replace(PLAN, search=replace(PLAN.search, alpha=3.0))) == key()


def test_what_changes_the_key_of_the_search() -> None:
    key = search.stage(PLAN, HANDLE).key().key
    assert search.stage(PLAN, OTHER).key().key != key
    assert search.stage(replace(PLAN, search=replace(PLAN.search, max_drop=0.01)), HANDLE).key().key != key
    assert search.stage(replace(PLAN, recipe=replace(PLAN.recipe, epochs=99)), HANDLE).key().key == key, "traces are enough"


def test_every_setting_has_its_stages() -> None:
    for name in SETTINGS:
        plan = resolve(name, "smoke")
        assert convert.stage(plan, HANDLE).key().key != train.stage(plan, "d").key().key
        assert evaluate.stage(plan, None, HANDLE, HANDLE, HANDLE).name == "evaluate"
