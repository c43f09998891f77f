"""Registries of implementations (measures, neuron models, schemes, architectures, data sets), by name and loaded on demand.

An entry is text of the form ``module:attribute``, so that a registry imports nothing and code that uses one implementation does
not depend on the others. Other packages add entries through a Python entry-point group; users name their own objects as
``package.module:attribute`` (the current folder is searched too) or add them with ``register``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar, cast

from dynconf_core.errors import InputError
from dynconf_core.wording import told

T = TypeVar("T")
Fault = Callable[[object], str | None]


class Registry(Generic[T]):
    """Implementations of one protocol, by name.

    Args:
        kind: what an entry is called in messages, such as "data set".
        group: the entry-point group through which other packages add entries, such as "dynconf.data_sets".
        entries: the built-in entries, each name with its ``module:attribute``; an entry of another package never replaces one.
        fault: what is wrong with an object that cannot be an entry, in words that follow its name; None if nothing is.
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, str], fault: Fault | None = None) -> None:
        self.kind, self.group = kind, group
        self._own = dict(entries)
        self._fault = fault
        self._given: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """All known names: the built-in ones, those of installed packages, then those added with ``register``."""
        return tuple(dict.fromkeys((*self._own, *self._installed, *self._given)))

    def own(self, name: str) -> bool:
        """Whether the name is one of the project's own."""
        return name in self._own

    def lasting(self, name: str) -> bool:
        """Whether every process of this installation knows the name, that is, whether it was not added with ``register``."""
        return name in self._own or name in self._installed

    def get(self, name: str) -> T:
        """The entry called ``name``, or the object that ``package.module:attribute`` refers to.

        Raises:
            InputError: for an unknown name (the message lists the known ones), a module or attribute that cannot be loaded, or
                an object that is not such an entry.
        """
        if not isinstance(name, str):
            raise InputError(
                f"{self.kind}: {told('name', name)}: give one of {', '.join(self.names())}, or package.module:NAME."
            )
        found = self._given[name] if name in self._given else loaded(self.kind, self.origin(name))
        if self._fault is not None and (fault := self._fault(found)) is not None:
            raise InputError(f"{self.kind} {name!r} {fault}.")
        return cast(T, found)

    def usable(self) -> dict[str, T]:
        """Every entry by name; those of other packages that cannot be loaded are left out, and say why where they are used."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except InputError:
                if self.own(name):
                    raise
        return found

    def origin(self, name: str) -> str:
        """Where the entry comes from, as ``module:attribute``.

        Raises:
            InputError: for an unknown name (the message lists the known ones), or one that several packages provide.
        """
        if name in self._given:
            given = self._given[name]
            named = given if isinstance(given, type) else type(given)
            return f"{named.__module__}:{named.__qualname__}"
        if name in self._own:
            return self._own[name]
        if name in self._installed:
            found = self._installed[name]
            if len(found) > 1:
                raise InputError(
                    f"{self.kind} {name!r} is given by several packages: write the one you mean, {' or '.join(found)}."
                )
            return found[0]
        if ":" in name:
            return name
        raise InputError(unknown(self.kind, name, self.names(), "or your own as package.module:NAME"))

    def source(self, name: str) -> Path:
        """The file that defines the entry; a stage's code fingerprint starts there."""
        module = self.origin(name).partition(":")[0]
        _with_current_folder()
        try:
            found = sys.modules[module].__file__ if module in sys.modules else getattr(find_spec(module), "origin", None)
        except Exception as error:  # of the package that the module is in, which is imported
            raise _not_imported(self.kind, name, module, error) from error
        if found is None:
            raise InputError(f"{self.kind} {name!r}: module {module} has no file.")
        return Path(found).resolve()

    def register(self, name: str, entry: T) -> None:
        """Add an entry for the rest of this process. It may replace an entry that was registered before, but no other."""
        if name in self._own or name in self._installed:
            raise InputError(f"{self.kind} {name!r} exists already: register yours under another name.")
        self._given[name] = entry

    @cached_property
    def _installed(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for point in entry_points(group=self.group):
            if point.name not in self._own and point.value not in found.setdefault(point.name, []):
                found[point.name].append(point.value)
        return found


def no_instance_of(kind: type) -> Fault:
    """The fault of what is no object of this class."""

    def fault(found: object) -> str | None:
        if isinstance(found, kind):
            return None
        given = "a class" if isinstance(found, type) else f"of the type {type(found).__name__}"
        return f"is {given}: name an object of the class {kind.__module__}.{kind.__qualname__}"

    return fault


def no_subclass_of(kind: type) -> Fault:
    """The fault of what is no subclass of this class."""

    def fault(found: object) -> str | None:
        if isinstance(found, type) and issubclass(found, kind):
            return None
        return f"is none: name a subclass of {kind.__module__}.{kind.__qualname__}"

    return fault


def unknown(kind: str, name: str, known: tuple[str, ...], besides: str = "") -> str:
    """The message for a name that is not among ``known``, with the closest match and what else may be given."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{kind} {name!r} is unknown{hint}: choose one of {', '.join(known)}{besides and f', {besides}'}."


def loaded(kind: str, origin: str) -> object:
    """The object that ``origin``, written ``package.module:attribute``, refers to.

    Raises:
        InputError: if there is no such module or attribute; ``kind`` says in the message what was asked for.
    """
    module, _, attribute = origin.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise InputError(f"{kind} {origin!r}: write it as package.module:NAME.")
    _with_current_folder()
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise InputError(f"{kind} {origin!r}: there is no module {error.name}, in {Path.cwd()} or installed.") from None
        if module.startswith(f"{__package__}."):
            raise  # of one of our own libraries; the command knows how it is installed
        raise InputError(f"{kind} {origin!r}: module {module} needs {error.name}, which is not installed.") from error
    except (Exception, SystemExit) as error:
        raise _not_imported(kind, origin, module, error) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise InputError(f"{kind} {origin!r}: module {module} has no {attribute!r}.") from None
    return found


def _not_imported(kind: str, name: str, module: str, error: BaseException) -> InputError:
    reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return InputError(f"{kind} {name!r}: module {module} cannot be imported: {reason.rstrip('.')}.")


def _with_current_folder() -> None:
    """Make modules in the current folder importable, after everything installed, so that they shadow nothing."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
