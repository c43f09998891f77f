"""The code fingerprint follows imports and changes with the code, and only with the code."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dynconf_core
from dynconf_core import store, strict_json, wording
from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_core.files import NotWritten
from dynconf_core.names import is_plain
from dynconf_core.store import clock, locks, owner, storage, writer
from dynconf_core.store.artefacts import Store
from dynconf_core.store.fingerprint import fingerprint, reached
from dynconf_core.store.keys import stage_key
from dynconf_core.store.manifest import Damaged
from dynconf_core.store.use import note_use

FILES = {
    "core/__init__.py": '"""The core."""\n',
    "core/alone.py": "LONELY = 1\n",
    "core/base.py": "BASE = 1\n",
    "core/deep/__init__.py": '"""Deep."""\n',
    "core/deep/lazy.py": "def use():\n    from ..base import BASE\n    return BASE\n",
    "core/deep/side.py": "from . import lazy\n",
    "core/train.py": "import core.deep.lazy\n",
    "core/circle_a.py": "from core import circle_b\n",
    "core/circle_b.py": "from core.circle_a import thing\n",
    "other/helper.py": "from core.alone import LONELY\n",
    "tasks/__init__.py": '"""Tasks."""\n',
    "tasks/train.py": "import os\nfrom core.train import x\nfrom other import helper\n",
    "tasks/lonely.py": "def f():\n    import core.alone as a\n    return a\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, source in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path


@pytest.fixture
def names(tree: Path) -> Callable[..., list[str]]:
    def reached_names(entry: str) -> list[str]:
        return [path.relative_to(tree).as_posix() for path in reached([tree / entry], tree, ["core"])]

    return reached_names


def prints(tree: Path) -> dict[str, str]:
    return {name: fingerprint([tree / name], tree, ["core"]) for name in FILES}


def test_imports_are_followed_with_their_packages(names: Callable[..., list[str]]) -> None:
    assert names("tasks/train.py") == [
        "core/__init__.py",
        "core/base.py",  # inside a function, relative
        "core/deep/__init__.py",
        "core/deep/lazy.py",
        "core/train.py",
        "tasks/train.py",  # and not other/helper.py: not one of the packages
    ]
    assert names("tasks/lonely.py") == ["core/__init__.py", "core/alone.py", "tasks/lonely.py"]
    assert names("core/deep/side.py") == [
        "core/__init__.py",
        "core/base.py",
        "core/deep/__init__.py",
        "core/deep/lazy.py",
        "core/deep/side.py",
    ]
    assert names("core/circle_a.py") == ["core/__init__.py", "core/circle_a.py", "core/circle_b.py"]


def test_imports_for_type_checkers_alone_are_not_followed(tree: Path, names: Callable[..., list[str]]) -> None:
    for test in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        (tree / "core/train.py").write_text(f"if {test}:\n    import core.alone\nelse:\n    import core.base\n")
        assert names("core/train.py") == ["core/__init__.py", "core/base.py", "core/train.py"]


def test_the_names_of_entry_files_count_and_not_their_location(tree: Path) -> None:
    (tree / "elsewhere.py").write_text(FILES["tasks/train.py"])
    here, there = tree / "tasks/train.py", tree / "elsewhere.py"
    assert fingerprint([here], tree, ["core"]) != fingerprint([there], tree, ["core"])
    called = [fingerprint([file], tree, ["core"], {file: "tasks.train"}) for file in (here, there)]
    assert called[0] == called[1] != fingerprint([here], tree, ["core"], {here: "tasks.convert"})


@pytest.mark.parametrize("changed", ["core/base.py", "core/alone.py", "core/deep/__init__.py"])
def test_a_changed_file_changes_exactly_what_reaches_it(tree: Path, changed: str) -> None:
    before = prints(tree)
    reaching = {name for name in FILES if tree / changed in reached([tree / name], tree, ["core"])}
    with (tree / changed).open("a") as out:
        out.write("MORE = 2\n")
    after = prints(tree)
    assert {name for name in FILES if before[name] != after[name]} == reaching
    assert reaching and reaching != set(FILES)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x = 1\n", "# why\n\nx  =  (1)  # because\n", True),
        ("def f(a, b):\n    return a\n", 'def f(\n    a,\n    b,\n):\n    "Doc."\n    return a\n', True),
        ('class A:\n    "One."\n    x: int = 1\n', 'class A:\n    """Two."""\n\n    x: int = 1\n', True),
        ("x = 'a'\n", 'x = "a"\n', True),
        ("x = 1\r\ny = 2\r\n", "x = 1\ny = 2\n", True),
        ("async def f():\n    'd'\n    pass\n", "async def f():\n    pass\n", True),
        ("x = 1\n", "x = 1.0\n", False),
        ("x = 1\n", "x = True\n", False),
        ("x = 1\n", "x = '1'\n", False),
        ("x = 1\n", "y = 1\n", False),
        ("x = a + b\n", "x = a - b\n", False),
        ("def f(a, b=1): pass\n", "def f(a=1, b=1): pass\n", False),
        ("def f(*, b): pass\n", "def f(b): pass\n", False),
        ("def f(*, a, b=1): pass\n", "def f(*, a=1, b): pass\n", False),
        ("def f(a) -> int: pass\n", "def f(a: int): pass\n", True),
        ("class A:\n    x: int = 1\n", "class A:\n    x: float = 1\n", False),
        ("raise E('a')\n", "raise E(f'b {x} {g(x)}')\n", True),
        ("raise E('a', 1)\n", "raise E('a', 2)\n", False),
        ("raise E('a')\n", "raise F('a')\n", False),
        ("raise E('; '.join(a))\n", "raise E(', '.join(a))\n", True),
        ("raise E('a') from b\n", "raise E('a') from None\n", False),
        ("assert x, 'a'\n", "assert x, f'b {y}'\n", True),
        ("assert x, 'a'\n", "assert y, 'a'\n", False),
        ("logger.info('a %d', x)\n", "logger.info('b %s', x)\n", True),
        ("logger.info('a %d', x)\n", "logger.info('a %d', y)\n", False),
        ("logger.info(f'a {x}')\n", "logger.info(f'b {y}')\n", True),
        ("logger.info(f'a {next(x)}')\n", "logger.info(f'a {y}')\n", False),
        ("x = logger.info('a')\n", "x = logger.info('b')\n", False),
        ("warnings.warn('a', stacklevel=2)\n", "warnings.warn('b', stacklevel=2)\n", True),
        ("progress(1, 2, 'a')\n", "progress(1, 2, f'b {x}')\n", True),
        ("progress(1, 2, 'a')\n", "progress(1, 3, 'a')\n", False),
        ("f(1, 2, 'a')\n", "f(1, 2, 'b')\n", False),
        (
            "class E(ValueError):\n    def __init__(self):\n        super().__init__('a')\n",
            "class E(ValueError):\n    def __init__(self):\n        super().__init__('b')\n",
            True,
        ),
        (
            "class E(Base):\n    def __init__(self):\n        super().__init__('a')\n",
            "class E(Base):\n    def __init__(self):\n        super().__init__('b')\n",
            False,
        ),
        ("R = Registry('a', 'b', {'c': 'd:E'}, f)\n", "R = Registry('a', 'b', {'c': 'd:E', 'g': 'h:I'}, f)\n", True),
        ("R = Registry('a', 'b', {}, f)\n", "R = Registry('a', 'b', {}, g)\n", False),
        ("@cache\ndef f(): pass\n", "def f(): pass\n", False),
        ("{**a, 'b': 1}\n", "{None: a, 'b': 1}\n", False),
        ("f'{x}'\n", "f'{x:.2f}'\n", False),
        ("x[1:]\n", "x[:1]\n", False),
        ("return_ = 1\n", "return_ = None\n", False),
        ("x = ['a']\n", "x = []\n", False),
        ("import a\n", "from . import a\n", False),
        ("if x:\n    a()\nb()\n", "if x:\n    a()\n    b()\n", False),
        ("a()\nb()\n", "b()\na()\n", False),
    ],
)
def test_only_code_counts(tmp_path: Path, before: str, after: str, same: bool) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(before.encode())
    first = fingerprint([file], tmp_path)
    file.write_bytes(after.encode())
    assert (fingerprint([file], tmp_path) == first) is same


def test_renaming_a_file_counts_and_moving_the_tree_does_not(tree: Path) -> None:
    before = fingerprint([tree / "tasks/train.py"], tree, ["core"])
    moved = tree.rename(tree.with_name("moved"))
    assert fingerprint([moved / "tasks/train.py"], moved, ["core"]) == before
    (moved / "tasks/train.py").rename(moved / "tasks/training.py")
    assert fingerprint([moved / "tasks/training.py"], moved, ["core"]) != before


def test_star_dynamic_and_shadowed_imports(tree: Path) -> None:
    (tree / "star.py").write_text("from core.deep import *\n")
    (tree / "named.py").write_text("import importlib\nimportlib.import_module('core.alone')\n")
    (tree / "core/base").mkdir()
    (tree / "core/base/__init__.py").write_text("BASE = 2\n")
    (tree / "shadow.py").write_text("import core.base\n")
    found = {
        entry: {path.relative_to(tree).as_posix() for path in reached([tree / entry], tree, ["core"])}
        for entry in ("star.py", "named.py", "shadow.py")
    }
    assert {"core/deep/lazy.py", "core/deep/side.py"} <= found["star.py"]
    assert "core/alone.py" in found["named.py"]
    assert found["shadow.py"] == {"shadow.py", "core/__init__.py", "core/base/__init__.py"}


def test_a_file_that_does_not_parse_or_is_missing_is_named(tree: Path) -> None:
    (tree / "core/base.py").write_text("def f(:\n")
    with pytest.raises(InputError, match=r"core/base\.py does not parse"):
        fingerprint([tree / "tasks/train.py"], tree, ["core"])
    with pytest.raises(InputError, match=r"gone\.py cannot be read"):
        reached([tree / "gone.py"], tree, ["core"])


def test_the_same_in_another_process(tree: Path) -> None:
    here = fingerprint([tree / "tasks/train.py"], tree, ["core"])
    program = (
        "import sys; from pathlib import Path; from dynconf_core.store.fingerprint import fingerprint\n"
        "tree = Path(sys.argv[1]); print(fingerprint([tree / 'tasks/train.py'], tree, ['core']))"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, str(tree)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here


def test_it_reads_the_projects_own_files() -> None:
    """The files that make up the store, and their packages."""
    root = Path(dynconf_core.__file__).parent.parent
    expected = [
        Path(inspect.getfile(part))
        for part in (
            dynconf_core,
            store,
            InputError,
            failure_point,
            NotWritten,
            is_plain,
            strict_json.read_json,
            wording,
            Store,
            stage_key,
            Damaged,
            note_use,
            clock,
            locks,
            owner,
            storage,
            writer,
        )
    ]
    found = reached([Path(inspect.getfile(Store))], root)
    assert found == sorted(expected, key=lambda path: path.relative_to(root).as_posix())
