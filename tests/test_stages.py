"""What a stage's key depends on: the code that it reaches and no other, the content of its inputs, the values that matter."""

import inspect
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import dynconf_flows
from dynconf_core import confidence, conversion, data, evaluation, graph, networks, neurons, simulation
from dynconf_core import exit as exit_room
from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
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
from dynconf_core.data.fetch_cifar10 import fetch_cifar10
from dynconf_core.data.images import SPLIT_SEED, held_out
from dynconf_core.evaluation.energy import energy_estimate
from dynconf_core.evaluation.metrics import evaluate as figures_of_a_setting
from dynconf_core.exit.front import exact_front
from dynconf_core.exit.oracles import oracles
from dynconf_core.experiment import overrides
from dynconf_core.experiment import stages as stage_module
from dynconf_core.experiment.images import trained_on_calibration
from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.experiment.stages import ROOT, STAGES, code_fingerprint, stage
from dynconf_core.figures.accuracy import exit_histogram
from dynconf_core.figures.canvas import canvas
from dynconf_core.graph.trace import traced
from dynconf_core.networks.resnet import ResNet
from dynconf_core.networks.vgg import VGG
from dynconf_core.neurons import integrate_and_fire, signed
from dynconf_core.schemes.qcfs import QCFSScheme
from dynconf_core.simulation.collect import collect as collect_traces
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.store.fingerprint import reached
from dynconf_core.traces.checks import check_forms
from dynconf_core.traces.compact import compact
from dynconf_core.traces.duplicates import duplicates
from dynconf_core.traces.files import save_archive
from dynconf_core.traces.schema import Traces
from dynconf_core.training.fine_tuning import fine_tune as fine_tune_network
from dynconf_core.training.loop import train as train_network
from dynconf_core.training.speed import probe
from dynconf_core.training.spiking import Spiking

TRACES = (Traces, check_forms, compact, duplicates, save_archive)
PLAN = resolve("cifar10-resnet18-qcfs", "quick")
HANDLE = Handle("x", "0" * 64, "1" * 64, "ran")
OTHER = replace(HANDLE, digest="2" * 64)

# By stage: what its code reaches, and what it must not reach: functions, classes, modules and whole rooms of the core.
REACH: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "train": (
        (train_network, probe, augmented, cifar10, ResNet, QCFS),
        (simulation, neurons, conversion, exit_room, confidence, evaluation, *TRACES, digits, imagenet, imagenette, LSQ, VGG),
    ),
    "fine_tune": (
        (fine_tune_network, Spiking, probe, augmented, traced, cifar10, ResNet, QCFS, integrate_and_fire),
        (exit_room, confidence, evaluation, *TRACES, digits, imagenet, imagenette, LSQ, VGG, signed, collect_traces),
    ),
    "convert": (
        (with_fixed_point_weights, convert_network, traced, SpikingNetwork, ResNet, cifar10),
        (
            *(train_network, probe, augmented, digits, imagenet, imagenette),
            *(exit_room, confidence, evaluation, collect_traces, run_until_confident),
        ),
    ),
    "collect_test": (
        (collect_traces, Counter, SpikingNetwork, integrate_and_fire, load_snn, cifar10),
        (
            *(train_network, augmented, digits, signed, convert_network, traced, run_until_confident),
            *(exit_room, confidence, evaluation),
        ),
    ),
    "search": (
        (exact_front, operating_point, cross_fitted_choice, MaxSoftmax, Traces),
        (
            *(train_network, networks, simulation, neurons, conversion, graph, data),
            *(figures_of_a_setting, energy_estimate, exit_histogram, canvas),
            *(Learned, Entropy, Patience),
        ),
    ),
    "evaluate": (
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
def code_of(name: str) -> list[Path]:
    return stage(name).code(PLAN)


def reaches(name: str, part: Any) -> bool:
    """Whether the code of a stage reaches a function, class or module, or anything in a package but the package itself."""
    return any(file.is_relative_to(place(part)) for file in code_of(name) if file.name != "__init__.py")


@pytest.mark.parametrize("name", REACH)
def test_a_stage_reaches_its_code_and_no_other(name: str) -> None:
    wanted, unwanted = REACH[name]
    assert not [part for part in wanted if not reaches(name, part)]
    assert not [part for part in unwanted if reaches(name, part)]
    assert not [part for part in OF_SETTINGS if reaches(name, part)], "a new setting makes nothing stale"
    beyond = (place(dynconf_flows), Path(__file__).parent)
    assert not [file for file in code_of(name) if any(file.is_relative_to(folder) for folder in beyond)]


def test_a_search_among_all_measures_reaches_them_all() -> None:
    best = replace(PLAN, search=replace(PLAN.search, rule="best"))
    found = stage("search").code(best)
    assert {place(measure) for measure in (MaxSoftmax, Entropy, Gap, Patience, Learned)} <= set(found)


def test_what_is_out_of_reach_is_there_to_be_reached() -> None:
    """Each of the parts above is a file that would be found, and each room holds files."""
    for part in {part for wanted, unwanted in REACH.values() for part in (*wanted, *unwanted)} | {*OF_SETTINGS, dynconf_flows}:
        own = place(part)
        assert own.is_relative_to(ROOT)
        files = [own] if own.is_file() else [file for file in own.glob("*.py") if file.name != "__init__.py"]
        assert files and set(files) <= set(reached(files, ROOT))


def key(name: str, plan: Plan = PLAN, digest: str = "d", **inputs: Handle) -> str:
    """The key of a stage whose inputs are all the same artefact but for those given, by role."""
    job = Job(plan, RunContext(Path("home"), Path("data"), "cpu"), digest)
    return stage(name).key(job, {**dict.fromkeys(stage(name).inputs, HANDLE), **inputs}).key


def with_levels(levels: int) -> Plan:
    return replace(PLAN, scheme=QCFSScheme(levels))


def test_what_changes_the_key_of_training() -> None:
    assert key("train") == key("train")
    changed = [
        replace(PLAN, seed=1),
        with_levels(8),
        replace(PLAN, width=0.5),
        replace(PLAN, recipe=replace(PLAN.recipe, epochs=16)),
        replace(PLAN, data=replace(PLAN.data, calibration=1000)),
        replace(PLAN, data=replace(PLAN.data, normalisation="imagenet")),
    ]
    keys = {key("train", plan) for plan in changed} | {key("train", digest="e")}
    assert len(keys) == 7 and key("train") not in keys
    same = [
        replace(PLAN, time_steps=4),
        replace(PLAN, search=replace(PLAN.search, max_drop=0.5)),
        replace(PLAN, profile="paper"),
        replace(PLAN, scheme=replace(PLAN.scheme, initial_potential=0.25)),  # type: ignore[type-var]
    ]
    assert {key("train", plan) for plan in same} == {key("train")}


def test_a_given_checkpoint_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"a")
    (tmp_path / "b.pt").write_bytes(b"b")
    (tmp_path / "again.pt").write_bytes(b"a")
    context = RunContext(tmp_path, tmp_path)
    found = [stage("train").key(Job(PLAN, context, "d", tmp_path / f"{name}.pt"), {}).key for name in ("a", "b", "again")]
    assert found[0] == found[2] != found[1]


def test_what_changes_the_key_of_a_conversion() -> None:
    changed = [
        replace(PLAN, time_steps=8),
        replace(PLAN, fixed_point=False),
        replace(PLAN, width=0.5),
        replace(PLAN, data=replace(PLAN.data, name="imagenette")),
        replace(PLAN, scheme=replace(PLAN.scheme, initial_potential=0.25)),  # type: ignore[type-var]
    ]
    keys = {key("convert", plan) for plan in changed} | {key("convert", train=OTHER)}
    assert len(keys) == 6 and key("convert") not in keys
    same = [replace(PLAN, search=replace(PLAN.search, alpha=3.0)), replace(PLAN, profile="paper"), replace(PLAN, seed=1)]
    assert {key("convert", plan) for plan in same} == {key("convert")}
    assert key("convert", digest="e") != key("convert"), "the report shows how well both networks agree on images"


def test_device_and_memory_are_in_a_collections_key_where_they_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fixed-point weights they cannot."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def keys(plan: Plan) -> set[str]:
        contexts = [RunContext(Path("h"), Path("d"), *more) for more in (("cpu",), ("cuda",), ("cuda:0",), ("cpu", 2**30))]
        inputs = {"train": HANDLE, "convert": HANDLE}
        return {stage("collect_test").key(Job(plan, context, "d"), inputs).key for context in contexts}

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
    assert trained_on_calibration(provenance, PLAN.data) is expected


def test_a_larger_held_out_part_holds_the_smaller() -> None:
    """What the answer above relies on."""
    assert set(held_out(500, 50)[1].tolist()) < set(held_out(500, 60)[1].tolist())


def test_code_is_read_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most = [0], [0]

    def slow(files: list[Path], *given: object, **more: object) -> str:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.02)
        busy[0] -= 1
        return str(files)

    monkeypatch.setattr(stage_module, "fingerprint", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(code_fingerprint, [{f"m{number}": Path(f"{number}.py")} for number in range(4)]))
    assert len(set(found)) == 4 and most == [1]


def test_what_changes_the_key_of_a_collection() -> None:
    keys = {
        key("collect_test"),
        key("collect_test", replace(PLAN, time_steps=8)),
        key("collect_calibration"),
        key("collect_test", train=OTHER),
        key("collect_test", convert=OTHER),
    }
    assert len(keys) == 5
    assert key("collect_test", replace(PLAN, search=replace(PLAN.search, alpha=3.0))) == key("collect_test")


def test_what_changes_the_key_of_the_search() -> None:
    assert key("search", calibration=OTHER) != key("search")
    assert key("search", replace(PLAN, search=replace(PLAN.search, max_drop=0.01))) != key("search")
    assert key("search", replace(PLAN, recipe=replace(PLAN.recipe, epochs=99))) == key("search"), "traces are enough"


def test_every_setting_has_its_stages() -> None:
    """Each stage's task is there, reads stages that stand before it, and has a key of its own."""
    for number, one in enumerate(STAGES):
        assert set(one.inputs.values()) <= {before.name for before in STAGES[:number]}
        module, _, function = one.task.partition(":")
        assert callable(getattr(import_module(module), function))
    for name in SETTINGS:
        plan = resolve(name, "smoke")
        assert len({key(one.name, plan) for one in STAGES}) == len(STAGES)


def test_a_key_does_not_depend_on_where_the_tasks_lie(tmp_path: Path) -> None:
    """A checkout holds them in ``tasks/``, an installed package in ``dynconf_tasks/``."""
    modules = stage("convert").modules(PLAN)
    moved = tmp_path / "elsewhere.py"
    moved.write_text(modules["dynconf_tasks.convert"].read_text())
    assert set(modules) == {
        "dynconf_tasks.convert",
        "dynconf_core.data.cifar10:CIFAR10",
        "dynconf_core.networks.resnet:RESNET18",
        "dynconf_core.schemes.qcfs:QCFSScheme",
        "dynconf_core.neurons.integrate_and_fire:IntegrateAndFire",
    }
    assert code_fingerprint({**modules, "dynconf_tasks.convert": moved}) == code_fingerprint(modules)
