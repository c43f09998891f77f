"""What the core imports: never an orchestrator, and only torch and numpy where it has to run on any machine."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import numpy as np
import pytest
import torch

import dynconf_core
from dynconf_core import (
    activations,
    conversion,
    data,
    experiment,
    graph,
    libraries,
    machine,
    networks,
    neurons,
    schemes,
    simulation,
    traces,
    training,
)

ROOT = Path(__file__).resolve().parent.parent
ORCHESTRATORS = ("prefect", "mlflow", "optuna")
LEAN = (networks, schemes, activations, training, graph, conversion, neurons, simulation, data, traces)
"""Rooms that train, convert and simulate: `python -m dynconf_core.training` runs where nothing else is installed."""
LEAN_TOO = (experiment, machine, libraries)
HEAVY = ("scipy", "matplotlib", "pydantic", "torchvision", "sklearn", "pandas", "PIL", *ORCHESTRATORS, "typer", "rich")

BLOCKER = f"""
import sys

class Hiding:
    # As if the packages were not installed: find_spec answers None, as torch's own look-ups expect.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {HEAVY!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
try:
    import PIL
except ImportError:
    pass
else:
    raise SystemExit("the blocker does not block")
"""


def modules(place: ModuleType) -> list[str]:
    """A module's name; for a package also the names of all modules in it."""
    return [place.__name__, *(found.name for found in walk_packages(getattr(place, "__path__", ()), f"{place.__name__}."))]


def packages() -> list[str]:
    """The core and every room in it."""
    return ["dynconf_core", *(found.name for found in walk_packages(dynconf_core.__path__, "dynconf_core.") if found.ispkg)]


def test_every_file_of_the_core_is_a_module_that_is_found() -> None:
    assert len(modules(dynconf_core)) == len(list((ROOT / "dynconf_core").rglob("*.py"))) > 50


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_the_core_loads_no_orchestrator() -> None:
    imports = "\n".join(f"import {name}" for name in modules(dynconf_core))
    done = run(f"import sys\n{imports}\nprint(sorted({{n.partition('.')[0] for n in sys.modules}} & set({ORCHESTRATORS!r})))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_core_names_no_orchestrator() -> None:
    """Not inside a function either."""
    for path in sorted((ROOT / "dynconf_core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.partition(".")[0] for name in names} & {*ORCHESTRATORS, "dynconf_tasks", "dynconf_flows"}
            assert not found, f"{path.name} imports {found}"


def test_the_lean_rooms_import_with_torch_and_numpy_alone() -> None:
    wanted = [name for place in (*LEAN, *LEAN_TOO) for name in modules(place)]
    done = run(BLOCKER + "\n".join(f"import {name}" for name in wanted))
    assert done.returncode == 0, done.stderr


def test_training_to_traces_runs_with_torch_and_numpy_alone() -> None:
    """Not only the imports: a training, a conversion and a collection of in-memory images."""
    done = run(BLOCKER + WALK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(6, 4, 10)"


WALK = """
import tempfile
from pathlib import Path
import torch
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.schemes.network import described
from dynconf_core.simulation.collect import collect
from dynconf_core.traces.schema import Traces
from dynconf_core.training.loop import train
from dynconf_core.experiment.recipe import Recipe

pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
images = TensorImages(pixels, torch.arange(6), 10, Normalisation((0.5,) * 3, (0.25,) * 3))
net = described(dict(architecture="resnet18", stem="cifar", classes=10, resolution=16, width=1 / 16, method="qffs",
                     bits=2), seed=0)
names = ("crop", "flip", "autoaugment", "jitter", "cutout")
recipe = Recipe(epochs=1, batch_size=3, learning_rate=0.1, augmentation=names, initial_threshold=4.0)
train(net, images, recipe, seed=0, device=torch.device("cpu"))
with tempfile.TemporaryDirectory() as folder:
    snn = convert(net, images.normalisation(images.pixels), time_steps=4, image_limit=images.normalisation.limit())
    save_snn(snn, Path(folder) / "snn.pt")
    (out := Path(folder) / "traces").mkdir()
    collect(load_snn(Path(folder) / "snn.pt"), net, images, 4, out, batch=4)
    print(Traces.load(out).logits.shape)
"""


def command(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m dynconf_core.training`` where nothing but torch and numpy is installed."""
    words = ["training", *arguments]
    start = "import runpy\nrunpy.run_module('dynconf_core.training', run_name='__main__')"
    return run(f"{BLOCKER}\nsys.argv = {words!r}\n{before}\n{start}")


def test_the_trainer_prints_its_options_with_torch_and_numpy_alone() -> None:
    done = command("--help")
    assert done.returncode == 0, done.stderr
    assert "--setting" in done.stdout and "cifar10-vgg16-qcfs" in done.stdout


def test_the_trainer_runs_the_paper_recipe_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    """CIFAR-10's layout and AutoAugment included; the digests, which made-up batches cannot have, are not checked."""
    batches = tmp_path / "data" / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (1040, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(batches / f"{name}.bin")
    done = command(
        *("--setting", "cifar10-resnet18-qcfs", "--profile", "paper", "--device", "cpu", "--threads", "1"),
        *("--set", "epochs=1", "--set", "width=0.03", "--set", "batch_size=100"),
        *("--data", str(tmp_path / "data"), "--out", str(tmp_path / "net.pt")),
        before="from dynconf_core.data import cifar10\ncifar10.verify_cifar10 = lambda root: None",
    )
    assert done.returncode == 0, done.stderr
    provenance = torch.load(tmp_path / "net.pt", weights_only=True)["provenance"]
    assert "autoaugment" in provenance["recipe"]["augmentation"] and provenance["data"]["train"] == 200


@pytest.mark.parametrize(
    ("setting", "profile", "words"),
    [
        (
            "cifar10-vgg16-qcfs",
            "smoke",
            "Reading the handwritten digits needs scikit-learn, which is not installed: `pip install",
        ),
        ("imagenet-vgg16-qcfs", "paper", "Reading image files needs pillow, which is not installed: `pip install pillow`"),
    ],
    ids=["digits", "imagenet"],
)
def test_the_trainer_says_which_library_a_data_set_needs(setting: str, profile: str, words: str, tmp_path: Path) -> None:
    for number in range(1000):
        (folder := tmp_path / "imagenet" / "train" / f"n{number:04}").mkdir(parents=True)
        for image in range(11):
            (folder / f"{image}.JPEG").touch()
    done = command("--setting", setting, "--profile", profile, "--data", str(tmp_path), "--out", str(tmp_path / "net.pt"))
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize("package", packages())
def test_packages_import_nothing(package: str) -> None:
    """An `__init__` that re-exports would tie every stage's fingerprint to every file; public names are listed in the
    `.pyi`."""
    tree = ast.parse(Path(inspect.getfile(import_module(package))).read_text())
    assert ast.get_docstring(tree)
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names]
    assert len(tree.body) == 1 or package == "dynconf_core"
