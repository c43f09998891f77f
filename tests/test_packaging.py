"""What is installed: a wheel that keeps to its own names, the library's public names, extras that are named where missing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from study_cases import made

import dynconf_core

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"dynconf_core": "dynconf_core", "dynconf_flows": "flows", "dynconf_tasks": "tasks"}
HIDE = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hiding())
sys.argv = ["dynconf", *{arguments!r}]
from dynconf_flows.command.entry import main
main()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked as an installation would be."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\n"):
        wanted = name.partition("/")[0] in (*FOLDERS.values(), "pyproject.toml", "README.md", "LICENSE")
        if wanted and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(place),
        ".",
    ]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_the_wheel_keeps_to_its_own_names(site: Path) -> None:
    """Nothing called `flows` or `tasks`, which many a project has at its top."""
    assert {entry.name for entry in site.iterdir() if not entry.name.endswith(".dist-info")} == set(FOLDERS)
    assert (site / "dynconf_core" / "__init__.pyi").is_file() and (site / "dynconf_core" / "py.typed").is_file()
    assert {path.name for path in (site / "dynconf_flows").glob("*.yaml")} == {"automations.yaml", "prefect.yaml"}


def test_the_wheel_holds_every_module(site: Path) -> None:
    for package, folder in FOLDERS.items():
        here = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")}
        assert {path.relative_to(site / package) for path in (site / package).rglob("*.py")} == here


def hostile(folder: Path) -> Path:
    """A folder of somebody's own project, in which names of the checkout's folders mean something else."""
    for name in ("flows", "results"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('not yours')\n")
    (folder / "tasks.py").write_text("raise RuntimeError('not yours')\n")
    return folder


def test_the_command_runs_in_a_folder_with_the_same_names(site: Path, tmp_path: Path) -> None:
    """Also with the folder first on the path."""
    done = subprocess.run(
        [sys.executable, "-c", "from dynconf_flows.command.entry import main; main()", "settings"],
        cwd=hostile(tmp_path),
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "cifar10-resnet18-qcfs" in done.stdout


@pytest.fixture
def small_traces(tmp_path: Path) -> Path:
    return made(40, seed=1).save(tmp_path / "calibration.npz")


def run_hiding(*hidden: str, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The command where some packages are not installed."""
    code = HIDE.format(hidden=hidden, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", ("settings",), "pipeline"),
        ("prefect", ("reproduce", "--setting", "cifar10-vgg16-qffs", "--home", "{home}"), "pipeline"),
        ("scipy", ("compare", "{traces}"), "analysis"),
    ],
)
def test_a_command_names_the_extra_that_it_misses(
    package: str, arguments: tuple[str, ...], extra: str, tmp_path: Path, small_traces: Path
) -> None:
    words = tuple(word.format(home=tmp_path / "home", traces=small_traces) for word in arguments)
    done = run_hiding(package, arguments=words)
    assert done.returncode == 2, done.stderr
    assert f"`dynconf {words[0]}` needs {package}" in done.stderr and f"dynconf[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_public_name_is_there_and_loads_nothing_before_it_is_asked_for() -> None:
    tree = ast.parse((ROOT / "dynconf_core" / "__init__.pyi").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert names == sorted(set(names), key=names.index) and len(names) > 10
    for name in names:
        assert getattr(dynconf_core, name) is not None
        assert name in dir(dynconf_core)
    assert dynconf_core.__version__ == PROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no_such_name"):
        dynconf_core.no_such_name  # noqa: B018
    assert dynconf_core.__all__ == sorted(names)
    everything: dict[str, object] = {}
    exec("from dynconf_core import *", everything)
    assert {name: everything[name] for name in names} == {name: getattr(dynconf_core, name) for name in names}
    asked = "dynconf_core.__version__; dir(dynconf_core); dynconf_core.__all__"
    lean = f"import sys, dynconf_core; {asked}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lean], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_exact_pins_stand_in_the_constraints_alone() -> None:
    project = PROJECT["project"]
    required = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert not [one for one in required if "==" in one]
