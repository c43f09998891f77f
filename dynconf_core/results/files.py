"""Writing the results of runs: ``<home>/results/<run>/results.json`` and ``.csv``, and the link ``latest``."""

import csv
import io
import itertools
import logging
import operator
import statistics
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.failing import failure_point
from dynconf_core.files import NotWritten, link, make_folder, naming, write_text
from dynconf_core.results.records import flat, json_text, plain, read, to_json
from dynconf_core.results.types import (
    AnyPoint,
    AnySetting,
    FailedPoint,
    FiguresOverSeeds,
    OverSeeds,
    RunResult,
    SettingOverSeeds,
    SettingResult,
    Spread,
    SweepPoint,
    SweepResult,
)

REPORT = "report.html"
"""The report in a folder of results, where there is one."""
RESULTS, CSV, OVER_SEEDS, LATEST = "results.json", "results.csv", "over_seeds.json", "latest"
_log = logging.getLogger(__name__)


def new_run(home: Path, what: str) -> str:
    """Create the folder of a new run; returns its unique name, such as ``20261125-230427-quick-seed0``."""
    started = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        name = f"{started}-{what}" if number == 1 else f"{started}-{number}-{what}"
        folder = home / "results" / name
        with naming(folder), suppress(FileExistsError):
            make_folder(folder.parent)
            folder.mkdir()
            return name
    raise AssertionError("unreachable")


def results_file(home: Path, run: str) -> Path:
    """The path of a reproduction's results.json."""
    return home / "results" / run / RESULTS


def sweep_file(home: Path, run: str) -> Path:
    """The path of a sweep's results.json."""
    return home / "sweeps" / run / RESULTS


def write_results(home: Path, result: RunResult, newest: bool = True) -> Path:
    """Write the results of a run, and link it as ``latest`` if it is the ``newest``; returns the path of results.json."""
    return _written(home / "results", result, newest)


def write_sweep(home: Path, result: SweepResult, newest: bool = True) -> Path:
    """Write the results of a sweep below ``sweeps``; see ``write_results``."""
    return _written(home / "sweeps", result, newest)


def over_seeds(results: Sequence[RunResult]) -> OverSeeds:
    """Mean and sample standard deviation of each setting's figures over runs with several seeds."""
    rows = zip(*(result.settings for result in results), strict=True)
    return OverSeeds(tuple(result.run for result in results), tuple(map(_over_seeds, rows)))


def write_over_seeds(home: Path, results: Sequence[RunResult]) -> Path:
    """Write ``over_seeds.json``, which names its runs, beside the last run's results.json."""
    path = home / "results" / results[-1].run / OVER_SEEDS
    write_text(path, json_text(to_json(over_seeds(results))))
    return path


def read_over_seeds(home: Path, run: str) -> OverSeeds | None:
    """The newest ``over_seeds.json`` of the home that names a run; None if there is none that can be read."""
    for path in sorted((home / "results").glob(f"[!.]*/{OVER_SEEDS}"), reverse=True):
        with suppress(InputError):
            found = read(OverSeeds, path)
            if run in found.runs:
                return found
    return None


def csv_text(result: RunResult | SweepResult) -> str:
    """A CSV with one line per setting or point and flat names as columns; lists are separated by spaces.

    The last columns are those of the run: its name, profile, seed and overrides. Figures by class, a table of their own, are
    left out.
    """
    rows = _rows(result)
    figures, asked = [flat({**plain(row), "by_class": {}}) for row in rows], [flat(_asked(result, row)) for row in rows]
    names = list(dict.fromkeys(name for entry in (*figures, *asked) for name in entry))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    for entry in map(operator.or_, figures, asked):
        writer.writerow(
            {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in entry.items()}
        )
    return text.getvalue()


def _rows(result: RunResult | SweepResult) -> Sequence[AnySetting | AnyPoint]:
    """The settings of a run, the points of a sweep."""
    return result.settings if isinstance(result, RunResult) else result.points


def _asked(result: RunResult | SweepResult, row: AnySetting | AnyPoint) -> dict[str, Any]:
    """What tells a row from those of other runs; a sweep's points may have seeds of their own."""
    seed = row.values.get("seed", result.seed) if isinstance(row, SweepPoint | FailedPoint) else result.seed
    return {"run": result.run, "profile": result.profile, "seed": seed, "overrides": dict(result.overrides)}


def _written(room: Path, result: RunResult | SweepResult, newest: bool) -> Path:
    folder = room / result.run
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RESULTS, json_text(to_json(result)))
    write_text(folder / CSV, csv_text(result))
    failure_point("results.written")
    if newest:
        try:
            link(room / LATEST, result.run)
        except NotWritten as error:  # such as a folder of that name, which is somebody's own
            _log.warning("%s The results are complete, but %s does not lead to them.", error, LATEST)
    return folder / RESULTS


def _over_seeds(rows: Sequence[AnySetting]) -> SettingOverSeeds:
    finished = [row for row in rows if isinstance(row, SettingResult)]
    if len(finished) < len(rows):
        return SettingOverSeeds(rows[0].name, None)
    ann = [row.ann_accuracy for row in finished if row.ann_accuracy is not None]
    figures = FiguresOverSeeds(
        ann_accuracy=_spread(ann) if len(ann) == len(rows) else None,
        snn_accuracy=_spread([row.snn_accuracy for row in finished]),
        exit_accuracy=_spread([row.exit.accuracy for row in finished]),
        exit_mean_steps=_spread([row.exit.mean_steps for row in finished]),
        exit_latency_saving=_spread([row.exit.latency_saving for row in finished]),
    )
    return SettingOverSeeds(rows[0].name, figures)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values))
