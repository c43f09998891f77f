"""Where a report finds what results.json does not hold: in the store of a home, or beside the results in an exported folder."""

from __future__ import annotations

import logging
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.evaluation.curves import CURVES, Curves, curves_of
from dynconf_core.exit.rule import Rule
from dynconf_core.results.records import read
from dynconf_core.results.types import SettingResult
from dynconf_core.store.artefacts import Store
from dynconf_core.strict_json import read_json
from dynconf_core.traces.schema import Traces

_log = logging.getLogger(__name__)
CONVERSION = "report.json"
"""The file of a conversion report in its artefact."""


@dataclass(frozen=True)
class Sources:
    """The files that belong to the results in a folder.

    Attributes:
        folder: the folder of the results.
        store: the store of the run's home.
        compute: whether curves that nobody kept are computed from traces, which may take minutes.
    """

    folder: Path
    store: Store
    compute: bool = False

    def curves(self, row: SettingResult) -> Curves | None:
        """The curves of a setting; None if neither they nor the traces are there."""
        kept = self._in_store(row, "evaluate", CURVES) or self._beside(f"{row.name}-{CURVES}")
        try:
            if kept is not None:
                return read(Curves, kept)
            return self._computed(row) if self.compute else None
        except InputError as error:
            _log.warning("%s: its curves are left out of the report: %s", row.name, error)
            return None

    def conversion(self, row: SettingResult) -> dict[str, Any] | None:
        """The conversion report of a setting; None if it is not there."""
        kept = self._in_store(row, "convert", CONVERSION) or self._beside(f"{row.name}-conversion.json")
        if kept is None:
            return None
        with suppress(InputError):
            found: dict[str, Any] = read_json(kept)
            return found
        return None

    def where(self) -> str:
        """Where was looked, for a sentence in the place of what is missing."""
        return f"neither the store {self.store.root} nor {self.folder} holds it"

    def command(self) -> str:
        """The command that writes the report anew, from any folder."""
        return report_command(self.folder, self.store)

    def _in_store(self, row: SettingResult, stage: str, name: str) -> Path | None:
        artefact = self.store.get(row.artefacts[stage]) if stage in row.artefacts else None
        return artefact.file(name) if artefact is not None and name in artefact.manifest["files"] else None

    def _beside(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None

    def _computed(self, row: SettingResult) -> Curves | None:
        rule = self._in_store(row, "evaluate", "rule.json") or self._beside(f"{row.name}-rule.json")
        stored = self._in_store(row, "collect_test", "logits.npy")
        traces = stored.parent if stored is not None else self._beside(f"{row.name}-test.npz")
        return None if rule is None or traces is None else curves_of(Traces.load(traces), Rule.load(rule))


def report_command(folder: Path, store: Store) -> str:
    """The command that writes the report of a folder anew: with absolute paths in a home, by the folder's name elsewhere, since
    an exported run is published, and read on other machines."""
    home, own = store.root.parent.absolute(), folder.resolve()
    if not own.is_relative_to(home.resolve()):
        return shlex.join(["dynconf", "report", own.name])
    return shlex.join(["dynconf", "report", str(own), "--home", str(home)])
