"""Writing an analysis as a folder: ``analysis.json``, ``rule.json``, ``front.csv`` and figures."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from dynconf_core.evaluation.analysis import Analysis
from dynconf_core.exit.front import write_front
from dynconf_core.results.records import json_text, plain, to_json

RECORD, RULE, UNCERTIFIED, FRONT = "analysis.json", "rule.json", "rule-uncertified.json", "front.csv"
PICTURES = ("accuracy_against_latency", "rules", "exit_histogram", "robustness", "reliability", "guarantee")
DPI = 150


class Picture(Protocol):
    """A matplotlib figure, as far as it is used here."""

    def savefig(self, path: str | os.PathLike[str], /, *, dpi: int) -> Any: ...


def write_analysis(analysis: Analysis, out: Path, pictures: Mapping[str, Picture]) -> list[Path]:
    """Write an analysis into the folder ``out``.

    All files are written into a temporary folder inside it, then moved: no file under its own name is incomplete. Files of an
    earlier analysis are replaced, or removed if this one has no such file. ``analysis.json`` is removed first and moved last: a
    folder that holds one is complete.

    Args:
        analysis: the analysis.
        out: the folder, created if missing.
        pictures: figures by name, some of ``PICTURES``.

    Returns:
        the paths written, ``analysis.json`` last.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".analysis-") as folder:
        beside = Path(folder)
        _write_rules(analysis, beside)
        write_front(analysis.front, beside / FRONT)
        for name in PICTURES:
            if name in pictures:
                pictures[name].savefig(beside / f"{name}.png", dpi=DPI)
        (beside / RECORD).write_text(json_text(to_json(analysis.record)), encoding="utf-8")
        (out / RECORD).unlink(missing_ok=True)
        written = []
        for name in (RULE, UNCERTIFIED, FRONT, *(f"{name}.png" for name in PICTURES), RECORD):
            if (beside / name).is_file():
                written.append((beside / name).replace(out / name))
            else:
                (out / name).unlink(missing_ok=True)
    return written


def _write_rules(analysis: Analysis, out: Path) -> None:
    """Write the chosen rule or, if a guarantee was asked for, the certified rule and beside it the uncertified one."""
    own, guarantee = analysis.rule.to_json(), analysis.record.guarantee
    beside = {name: value for name, value in plain(analysis.record.rule).items() if name not in own}
    if guarantee is None:
        analysis.rule.save(out / RULE, beside)
        return
    certified = replace(analysis.rule, threshold=guarantee.threshold)
    promise = {name: value for name, value in plain(guarantee).items() if name not in ("test", "halves")}
    certified.save(out / RULE, {"guarantee": promise, "test": plain(guarantee.test)})
    analysis.rule.save(out / UNCERTIFIED, beside)
