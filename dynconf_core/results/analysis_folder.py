"""Writing an analysis as a folder: ``analysis.json``, ``rule.json``, ``front.csv`` and figures."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from dynconf_core.evaluation.analysis import Analysis
from dynconf_core.exit.front import write_front
from dynconf_core.files import make_folder, naming, write_text, written
from dynconf_core.results.records import json_text, plain, to_json

RECORD, RULE, UNCERTIFIED, FRONT = "analysis.json", "rule.json", "rule-uncertified.json", "front.csv"
PICTURES = ("accuracy_against_latency", "rules", "exit_histogram", "robustness", "reliability", "guarantee")
DPI = 150
ANALYSES = "analyses"
"""The folder in a home for analyses that nobody asked to be put elsewhere."""
LONGEST_NAME = 100


class Picture(Protocol):
    """A matplotlib figure, as far as it is used here."""

    def savefig(self, stream: BinaryIO, /, *, format: str, dpi: int) -> Any: ...


def analysis_key(name: str, analysis: Analysis) -> str:
    """A hash that tells analyses apart: of the traces' name and the whole record."""
    return hashlib.sha256(f"{name}\n{json_text(analysis.record)}".encode()).hexdigest()


def kept_folder(home: Path, name: str, analysis: Analysis) -> Path:
    """The folder in a home for an analysis of the traces called ``name``: the same for the same result, another for another."""
    plain_name = name.replace("/", "-").replace("\\", "-")[:LONGEST_NAME]
    return home / ANALYSES / f"{plain_name}-{analysis_key(name, analysis)[:8]}"


def write_analysis(analysis: Analysis, out: Path, pictures: Mapping[str, Picture]) -> list[Path]:
    """Write an analysis into the folder ``out``.

    All files are written into a temporary folder inside it, then moved: no file under its own name is incomplete, and an
    earlier analysis stays until this one is complete. Its files are replaced, or removed if this one has no such file.
    ``analysis.json`` is removed first and moved last: a folder that holds one is complete.

    Args:
        analysis: the analysis.
        out: the folder, created if missing.
        pictures: figures by name, some of ``PICTURES``.

    Returns:
        the paths written, ``analysis.json`` last.
    """
    with naming(out):
        make_folder(out)
        with tempfile.TemporaryDirectory(dir=out, prefix=".analysis-") as folder:
            beside = Path(folder)
            _write_rules(analysis, beside)
            write_front(analysis.front, beside / FRONT)
            for name in PICTURES:
                if name in pictures:
                    with written(beside / f"{name}.png") as stream:
                        pictures[name].savefig(stream, format="png", dpi=DPI)
            write_text(beside / RECORD, json_text(to_json(analysis.record)))
            (out / RECORD).unlink(missing_ok=True)
            moved = []
            for name in (RULE, UNCERTIFIED, FRONT, *(f"{name}.png" for name in PICTURES), RECORD):
                if (beside / name).is_file():
                    moved.append((beside / name).replace(out / name))
                else:
                    (out / name).unlink(missing_ok=True)
    return moved


def _write_rules(analysis: Analysis, out: Path) -> None:
    """Write the chosen rule or, if a guarantee was asked for, the certified rule and beside it the uncertified one."""
    chosen, guarantee = analysis.uncertified, analysis.record.guarantee
    own = chosen.to_json()
    beside = {name: value for name, value in plain(analysis.record.rule).items() if name not in own}
    if guarantee is None:
        chosen.save(out / RULE, beside)
        return
    promise = {name: value for name, value in plain(guarantee).items() if name not in ("test", "halves")}
    certified = {"certified": guarantee.certified, "guarantee": promise, "test": plain(guarantee.test)}
    analysis.rule.save(out / RULE, certified)
    chosen.save(out / UNCERTIFIED, {"certified": False, **beside})
