"""What a stage's key depends on: the code that it reaches and no other, the content of its inputs, the values that matter."""

from dataclasses import replace
from pathlib import Path

import pytest

from dynconf_core.plan import Plan
from dynconf_core.settings import SETTINGS, resolve
from dynconf_core.store.fingerprint import reached
from tasks import collect, convert, evaluate, search, train
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
        {"conversion/graph.py", "conversion/convert.py", "simulation/network.py", "networks/resnet.py"},
        ("training/loop", "training/speed", "data", "exit", "confidence", "evaluation", "simulation/collect"),
    ),
    collect: (
        {"simulation/collect.py", "simulation/network.py", "neurons/signed.py", "conversion/file.py", "data/cifar10.py"},
        ("training/loop", "data/augment", "exit", "confidence", "evaluation", "data/digits"),
    ),
    search: (
        {"exit/front.py", "exit/selection.py", "confidence/scores.py", "traces.py"},
        ("training/loop", "networks", "simulation", "neurons", "conversion", "data", "evaluation"),
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
