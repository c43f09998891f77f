"""Which source files can change a stage's result, and a fingerprint of them.

Starting from a stage's entry files, imports are followed through the project's own packages by reading the source; nothing is
executed. Imports count wherever they stand in a file, inside functions too, and so do relative ones; those below `if
TYPE_CHECKING:` are for type checkers only and are ignored. `dynconf_core.store.source` says which parts of a file count.

Not covered: imports whose names are computed at run time, and files that are not Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath

from dynconf_core.errors import InputError
from dynconf_core.store.source import Import, digest_and_imports

PACKAGES = ("dynconf_core",)


def fingerprint(
    entry_files: Sequence[Path],
    root: Path,
    packages: Sequence[str] = PACKAGES,
    names: Mapping[Path, str] | None = None,
    without: Collection[str] = (),
    equal: Mapping[str, str] | None = None,
) -> str:
    """The sha256 (hexadecimal) of all source that the entry files reach, with file names relative to `root`.

    It is the same in every process and on every machine; see `reached` for the arguments and errors. `names` gives entry files
    other names, so that their location does not matter. `equal` gives digests of source that stand for others, because the
    results are known to be the same.
    """
    root = Path(root).resolve()
    called = {Path(path).resolve(): name for path, name in (names or {}).items()}
    whole = hashlib.sha256()
    for name, path in sorted(
        (called.get(path) or _name(path, root), path) for path in reached(entry_files, root, packages, without)
    ):
        digest, _ = _parsed(path)
        whole.update(f"{name}\0{(equal or {}).get(digest, digest)}\n".encode())
    return whole.hexdigest()


def reached(
    entry_files: Sequence[Path], root: Path, packages: Sequence[str] = PACKAGES, without: Collection[str] = ()
) -> list[Path]:
    """The entry files and every file of `packages` (folders in `root`) that they import, directly or indirectly; sorted.

    Importing `a.b.c` also runs `a/__init__.py` and `a/b/__init__.py`, so these are included. Entry files may lie outside the
    packages; their imports are followed only into the packages. The files named in `without`, relative to `root`, are left out,
    and what they import is not followed.

    Raises InputError naming a file that is missing or does not parse.
    """
    root = Path(root).resolve()
    found: set[Path] = set()
    left_out = {root / name for name in without}
    waiting = [Path(entry).resolve() for entry in entry_files]
    files_of = cache(partial(_files_of, root=root, packages=packages))  # most modules are imported by many others
    for entry in list(waiting):
        if entry.is_relative_to(root):
            waiting += files_of(".".join(entry.relative_to(root).parts[:-1]))
    while waiting:
        path = waiting.pop()
        if path in found or path in left_out:
            continue
        found.add(path)
        _, imports = _parsed(path)
        for level, module, names in imports:
            for target in _targets(path, root, level, module, names):
                waiting += files_of(target)
    return sorted(found, key=lambda path: _name(path, root))


def _targets(path: Path, root: Path, level: int, module: str, names: tuple[str, ...]) -> Iterator[str]:
    """The dotted names that one import statement may load; an imported name may be a module or an object inside one."""
    if level:
        if not path.is_relative_to(root):
            return
        package = path.relative_to(root).parts[:-1]
        if level - 1 > len(package):
            return
        base = ".".join(package[: len(package) - (level - 1)])
        module = f"{base}.{module}" if module and base else base or module
    if module:
        yield module
    for name in names:
        if name == "*":
            # `*` may include submodules (`__all__`): all of them count.
            folder = root.joinpath(*module.split("."))
            yield from (f"{module}.{file.stem}" for file in sorted(folder.glob("*.py")))
            yield from (f"{module}.{file.parent.name}" for file in sorted(folder.glob("*/__init__.py")))
        else:
            yield f"{module}.{name}" if module else name


def _files_of(module: str, root: Path, packages: Sequence[str]) -> list[Path]:
    """The files that importing the dotted name runs: each parent's `__init__.py` and the module's own."""
    parts = module.split(".")
    if not any(parts[: len(package.split("."))] == package.split(".") for package in packages):
        return []
    files = []
    for depth in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:depth])
        # As in Python, a package takes precedence over a module of the same name.
        for candidate in (stem / "__init__.py", stem.with_name(stem.name + ".py")):
            if candidate.is_file():
                files.append(candidate.resolve())
                break
    return files


def _name(path: Path, root: Path) -> str:
    return str(PurePosixPath(path.relative_to(root))) if path.is_relative_to(root) else path.name


def _parsed(path: Path) -> tuple[str, tuple[Import, ...]]:
    """The digest of the file's source, and its imports."""
    try:
        source = path.read_bytes()
    except OSError as fault:
        raise InputError(f"the source file {path} cannot be read ({fault.strerror}); is the installation complete?") from fault
    try:
        return digest_and_imports(source)
    except (SyntaxError, ValueError) as fault:
        raise InputError(f"the source file {path} does not parse ({fault}); a stage's key needs source that parses") from fault
