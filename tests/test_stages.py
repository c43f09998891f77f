"""What a stage's key depends on: the code that it reaches and no other, the content of its inputs, the values that matter."""

import inspect
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import dynconf_flows
from dynconf_core import confidence, conversion, data, evaluation, graph, networks, neurons, simulation
from dynconf_core import exit as exit_room
from dynconf_core.activations.lsq import LSQ
from dynconf_core.choosing.cross_fitting import cross_fitted_choice
from dynconf_core.choosing.selection import operating_point
from dynconf_core.confidence.entropy import Entropy
from dynconf_core.confidence.gap import Gap
from dynconf_core.confidence.learned import Learned
from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.patience import Patience
from dynconf_core.conversion.convert import convert as convert_network
from dynconf_core.conversion.file import load_snn
from dynconf_core.conversion.fixed_point import with_fixed_point_weights
from dynconf_core.data import cifar10, digits, imagenet, imagenette
from dynconf_core.data.augment import augmented
from dynconf_core.data.fetch import fetch_cifar10
from dynconf_core.data.splits import SPLIT_SEED, held_out
from dynconf_core.evaluation.energy import energy_estimate
from dynconf_core.evaluation.metrics import evaluate as figures_of_a_setting
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.oracles import oracles
from dynconf_core.experiment import overrides
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.settings import SETTINGS, resolve
from dynconf_core.figures.accuracy import exit_histogram
from dynconf_core.figures.canvas import canvas
from dynconf_core.graph.trace import traced
from dynconf_core.networks.resnet import ResNet
from dynconf_core.neurons import signed
from dynconf_core.simulation.collect import collect as collect_traces
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.store.fingerprint import reached
from dynconf_core.traces.checks import check_forms
from dynconf_core.traces.compact import compact
from dynconf_core.traces.duplicates import duplicated
from dynconf_core.traces.files import save_archive
from dynconf_core.traces.schema import Traces
from dynconf_core.training.loop import train as train_network
from dynconf_core.training.speed import probe
from dynconf_tasks import collect, convert, evaluate, search, train
from dynconf_tasks import stage as stage_module
from dynconf_tasks.stage import ROOT, Handle, Stage, Workplace

TRACES = (Traces, check_forms, compact, duplicated, save_archive)
PLAN = resolve("cifar10-resnet18-qcfs", "quick")
HANDLE = Handle("x", "0" * 64, "1" * 64, Path("nowhere"), "ran")
OTHER = replace(HANDLE, digest="2" * 64)

# By stage: what its code reaches, and what it must not reach: functions, classes, modules and whole rooms of the core.
REACH: dict[ModuleType, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    train: (
        (train_network, probe, augmented, cifar10, ResNet, LSQ),
        (simulation, neurons, conversion, exit_room, confidence, evaluation, *TRACES, digits, imagenet, imagenette),
    ),
    convert: (
        (with_fixed_point_weights, convert_network, traced, SpikingNetwork, ResNet, cifar10),
        (
            *(train_network, probe, augmented, digits, imagenet, imagenette),
            *(exit_room, confidence, evaluation, collect_traces, run_until_confident),
        ),
    ),
    collect: (
        (collect_traces, Counter, SpikingNetwork, signed, load_snn, cifar10),
        (
            *(train_network, augmented, digits, convert_network, traced, run_until_confident),
            *(exit_room, confidence, evaluation),
        ),
    ),
    search: (
        (exact_front, operating_point, cross_fitted_choice, MaxSoftmax, Traces),
        (
            *(train_network, networks, simulation, neurons, conversion, graph, data),
            *(figures_of_a_setting, energy_estimate, exit_histogram, canvas),
            *(Learned, Entropy, Patience),
        ),
    ),
    evaluate: (
        (figures_of_a_setting, exit_histogram, oracles, exact_front, Traces, MaxSoftmax, Learned, Entropy, Patience),
        (train_network, networks, simulation, neurons, conversion, data),
    ),
}
OF_SETTINGS = (resolve, overrides.parse, fetch_cifar10)


def place(part: Any) -> Path:
    """The file of a function, class or module; the folder of a package."""
    module = part if isinstance(part, ModuleType) else sys.modules[part.__module__]
    file = Path(inspect.getfile(module)).resolve()
    return file.parent if file.name == "__init__.py" else file


@cache
def code_of(stage: ModuleType) -> list[Path]:
    return reached(stage.code(PLAN), ROOT)


def reaches(stage: ModuleType, part: Any) -> bool:
    """Whether the code of a stage reaches a function, class or module, or anything in a package but the package itself."""
    return any(file.is_relative_to(place(part)) for file in code_of(stage) if file.name != "__init__.py")


@pytest.mark.parametrize("stage", REACH, ids=lambda module: module.__name__.split(".")[-1])
def test_a_stage_reaches_its_code_and_no_other(stage: ModuleType) -> None:
    wanted, unwanted = REACH[stage]
    assert not [part for part in wanted if not reaches(stage, part)]
    assert not [part for part in unwanted if reaches(stage, part)]
    assert not [part for part in OF_SETTINGS if reaches(stage, part)], "a new setting makes nothing stale"
    beyond = (place(dynconf_flows), Path(__file__).parent)
    assert not [file for file in code_of(stage) if any(file.is_relative_to(folder) for folder in beyond)]


def test_a_search_among_all_measures_reaches_them_all() -> None:
    best = replace(PLAN, search=replace(PLAN.search, rule="best"))
    found = reached(search.code(best), ROOT)
    assert {place(measure) for measure in (MaxSoftmax, Entropy, Gap, Patience, Learned)} <= set(found)


def test_what_is_out_of_reach_is_there_to_be_reached() -> None:
    """Each of the parts above is a file that would be found, and each room holds files."""
    for part in {part for wanted, unwanted in REACH.values() for part in (*wanted, *unwanted)} | {*OF_SETTINGS, dynconf_flows}:
        own = place(part)
        assert own.is_relative_to(ROOT)
        files = [own] if own.is_file() else [file for file in own.glob("*.py") if file.name != "__init__.py"]
        assert files and set(files) <= set(reached(files, ROOT))


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
        replace(PLAN, fixed_point=False),
        replace(PLAN, width=0.5),
        replace(PLAN, data=replace(PLAN.data, name="imagenette")),
    ]
    keys = {convert.stage(plan, HANDLE).key().key for plan in changed} | {convert.stage(PLAN, OTHER).key().key}
    assert len(keys) == 5 and key not in keys
    same = [replace(PLAN, search=replace(PLAN.search, alpha=3.0)), replace(PLAN, profile="paper"), replace(PLAN, seed=1)]
    assert {convert.stage(plan, HANDLE).key().key for plan in same} == {key}


def test_device_and_memory_are_in_a_collections_key_where_they_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fixed-point weights they cannot."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def keys(plan: Plan) -> set[str]:
        works = [Workplace(Path("h"), Path("d"), *more) for more in (("cpu",), ("cuda",), ("cuda:0",), ("cpu", 2**30))]
        return {collect.stage(plan, work, "d", "test", HANDLE, HANDLE).key().key for work in works}

    assert len(keys(PLAN)) == 1
    assert len(keys(replace(PLAN, fixed_point=False))) == 3, "cuda and cuda:0 are one kind"


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
