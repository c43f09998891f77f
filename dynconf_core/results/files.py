"""The results of a run as files: ``<home>/results/<run>/results.json`` and ``.csv``, and the link ``latest``."""

import csv
import io
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

EXIT_FIGURES = ("accuracy", "mean_steps", "latency_saving")
PACKAGES = ("dynconf", "torch", "torchvision", "numpy", "prefect", "mlflow", "optuna")


def new_run(home: Path, what: str) -> str:
    """The name of a new run, such as ``20261125-230427-quick-seed0``, whose folder is made; two of one second differ."""
    started = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        name = f"{started}-{what}" if number == 1 else f"{started}-{number}-{what}"
        folder = home / "results" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            return name
    raise AssertionError("unreachable")


def write_results(home: Path, run: str, document: Mapping[str, Any], room: str = "results", newest: bool = True) -> Path:
    """Write the run's folder and, where it is the ``newest`` whole one, move the link; the path of results.json."""
    folder = home / room / run
    folder.mkdir(parents=True, exist_ok=True)
    document = _plain(document)
    path = folder / "results.json"
    _replace(path, json.dumps(document, indent=1, allow_nan=False))
    _replace(folder / "results.csv", _csv(document))
    if not newest:
        return path
    link, beside = home / room / "latest", home / room / f".latest-{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(run, target_is_directory=True)
    beside.replace(link)
    return path


def over_seeds(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of each setting's figures over runs with several seeds.

    A setting that failed in one of them has None in their place.
    """
    summary = []
    for rows in zip(*(document["settings"] for document in documents), strict=True):
        entry: dict[str, Any] = {"name": rows[0]["name"], "figures": None}
        if all(row["status"] == "ok" for row in rows):
            figures = {
                "ann_accuracy": [row["ann_accuracy"] for row in rows],
                "snn_accuracy": [row["snn_accuracy"] for row in rows],
                **{
                    f"exit_{name}": [row["exit"][name] for row in rows] for name in ("accuracy", "mean_steps", "latency_saving")
                },
            }
            entry["figures"] = {
                name: {"mean": statistics.fmean(values), "deviation": statistics.stdev(values)}
                for name, values in figures.items()
            }
        summary.append(entry)
    return summary


def write_over_seeds(home: Path, documents: Sequence[Mapping[str, Any]]) -> Path:
    """``over_seeds.json`` beside the last run's results.json; names the runs it is of."""
    path = home / "results" / documents[-1]["run"] / "over_seeds.json"
    runs = [document["run"] for document in documents]
    _replace(path, json.dumps({"schema": 1, "runs": runs, "settings": over_seeds(documents)}, indent=1))
    return path


def environment_facts() -> dict[str, Any]:
    """Versions, hardware and commit, for provenance."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": None,
        "commit": _commit(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _plain(value: Any) -> Any:
    """The same with what JSON cannot say: infinities as text, null for what is no number."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _csv(document: Mapping[str, Any]) -> str:
    rows = [dict(_flat("", row)) for row in document.get("settings", document.get("points", ()))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """Nested names joined by ``_``; a named list by its names; a list of numbers separated by spaces."""
    if isinstance(value, Mapping):
        return [pair for name, inner in value.items() for pair in _flat(f"{prefix}_{name}" if prefix else name, inner)]
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        pairs = []
        for index, inner in enumerate(value):
            rest = {name: part for name, part in inner.items() if name != "name"}
            pairs += _flat(f"{prefix}_{inner.get('name', index)}", rest)
        return pairs
    if isinstance(value, list):
        return [(prefix, " ".join(str(part) for part in value))]
    return [(prefix, value)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout this runs from, marked where files differ from it; None outside a checkout, also where this
    is installed below somebody else's."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--match=") or None
    except (OSError, subprocess.SubprocessError):
        return None
