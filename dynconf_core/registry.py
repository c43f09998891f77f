"""Registries of implementations (measures, neuron models, schemes, architectures, data sets), by name and loaded on demand.

An entry is text of the form ``module:attribute``, so that a registry imports nothing and code that uses one implementation does
not depend on the others. Other packages add entries through a Python entry-point group; users name their own objects as
``package.module:attribute`` (the current folder is searched too) or add them with ``register``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar, cast

from dynconf_core.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Implementations of one protocol, by name.

    Args:
        kind: what an entry is called in messages, such as "data set".
        group: the entry-point group through which other packages add entries, such as "dynconf.data_sets".
        entries: the built-in entries, each name with its ``module:attribute``.
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._own = dict(entries)
        self._given: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """All known names: the built-in ones, those of installed packages, then those added with ``register``."""
        return tuple(dict.fromkeys((*self._own, *self._installed, *self._given)))

    def lasting(self, name: str) -> bool:
        """Whether every process of this installation knows the name, that is, whether it was not added with ``register``."""
        return name in self._own or name in self._installed

    def get(self, name: str) -> T:
        """The entry called ``name``, or the object that ``package.module:attribute`` refers to.

        Raises:
            InputError: for an unknown name (the message lists the known ones), or a module or attribute that cannot be loaded.
        """
        if name in self._given:
            return self._given[name]
        return cast(T, loaded(self.kind, self.origin(name)))

    def origin(self, name: str) -> str:
        """Where the entry comes from, as ``module:attribute``.

        Raises:
            InputError: for an unknown name; the message lists the known ones.
        """
        if name in self._given:
            given = self._given[name]
            named = given if isinstance(given, type) else type(given)
            return f"{named.__module__}:{named.__qualname__}"
        if name in self._own:
            return self._own[name]
        if name in self._installed:
            return self._installed[name]
        if ":" in name:
            return name
        raise InputError(unknown(self.kind, name, self.names()))

    def source(self, name: str) -> Path:
        """The file that defines the entry; a stage's code fingerprint starts there."""
        module = self.origin(name).partition(":")[0]
        _with_current_folder()
        found = sys.modules[module].__file__ if module in sys.modules else getattr(find_spec(module), "origin", None)
        if found is None:
            raise InputError(f"{self.kind} {name!r}: module {module} has no file.")
        return Path(found).resolve()

    def register(self, name: str, entry: T) -> None:
        """Add an entry for the rest of this process. It may replace an entry that was registered before, but no other."""
        if name in self._own or name in self._installed:
            raise InputError(f"{self.kind} {name!r} exists already: register yours under another name.")
        self._given[name] = entry

    @cached_property
    def _installed(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=self.group) if point.name not in self._own}


def unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    """The message for a name that is not among ``known``, with the closest match."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{kind} {name!r} is unknown{hint}: choose one of {', '.join(known)}."


def loaded(kind: str, origin: str) -> object:
    """The object that ``origin``, written ``package.module:attribute``, refers to.

    Raises:
        InputError: if there is no such module or attribute; ``kind`` says in the message what was asked for.
    """
    module, _, attribute = origin.partition(":")
    _with_current_folder()
    try:
        found: object = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise InputError(f"{kind} {origin!r}: there is no module {error.name}, in {Path.cwd()} or installed.") from None
        raise
    except AttributeError:
        raise InputError(f"{kind} {origin!r}: module {module} has no {attribute!r}.") from None
    return found


def _with_current_folder() -> None:
    """Make modules in the current folder importable, after everything installed, so that they shadow nothing."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
