"""Exporting a run as a folder for publication: its table, JSON, figures, training records and compressed traces.

``dynconf analyse`` repeats the analyses from such a folder, on any machine and without the run's home.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynconf_core.confidence.measure import MeasureLike
from dynconf_core.errors import InputError
from dynconf_core.evaluation.curves import CURVES
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.request import home_folder
from dynconf_core.experiment.stages import FINE_TUNE, STAGES
from dynconf_core.files import copy, write_text
from dynconf_core.results.files import CSV, RESULTS, csv_text
from dynconf_core.results.page import run_page
from dynconf_core.results.records import read
from dynconf_core.results.trace_pairs import store_of
from dynconf_core.results.types import RunResult, SettingResult
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.traces.compact import compact
from dynconf_core.traces.schema import Traces

NEEDED = tuple(stage.name for stage in STAGES if stage.published)


def export(
    run: Path | None, out: Path, home: str | None = None, traces: bool = True, measure: MeasureLike | None = None
) -> list[Path]:
    """Export the finished settings of a run.

    Args:
        run: the folder of the run's ``results.json``; None takes the newest run of the home.
        out: the folder to write, new or empty.
        home: the home of the run's artefacts, if not the one that contains the run's folder.
        traces: whether to write the traces, which take up most of the folder.
        measure: the measure of the rules, if it comes from outside the project; it determines where samples exit, which the
            compressed traces preserve.

    Returns:
        the files written.

    Raises:
        InputError: if the run or part of it is missing, or ``out`` is not empty.
    """
    folder = (home_folder(home) / "results" / "latest") if run is None else run
    result = read(RunResult, folder / RESULTS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not empty: name a new folder.")
    store = store_of(folder, home)
    if not result.finished:
        raise InputError(f"{folder} holds no finished setting, so there is nothing to export.")
    parts = {row.name: _artefacts(row, store) for row in result.finished}
    rules = {name: Rule.load(found["evaluate"].file("rule.json"), measure) for name, found in parts.items() if traces}
    try:
        training = {name: _training(found["train"]) for name, found in parts.items()}
        page = run_page(result, training, traces)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: the provenance of its checkpoints is none of ours ({error!r}).") from error
    for name, found in parts.items():
        _write(out, name, found, training[name])
    for name, rule in rules.items():
        _write_traces(out, name, parts[name], rule)
    copy(folder / RESULTS, out / RESULTS)
    write_text(out / CSV, csv_text(result))
    write_text(out / "README.md", page)
    return sorted(path for path in out.rglob("*") if path.is_file())


def _artefacts(row: SettingResult, store: Store) -> dict[str, Artefact]:
    """The artefacts that are exported of a setting, by stage."""
    keys, found = row.artefacts, {}
    needed = (*NEEDED, *([FINE_TUNE.name] if row.tuned_here else []))
    for stage in needed:
        artefact = store.get(keys[stage]) if stage in keys else None
        if artefact is None:
            raise InputError(
                f"{row.name}: the artefact of stage {stage} is not in {store.root}: name the run's --home, or run "
                "`dynconf reproduce` again."
            )
        found[stage] = artefact
    return found


def _write(out: Path, name: str, parts: Mapping[str, Artefact], training: Mapping[str, Any]) -> None:
    """Write a setting's files except for its traces."""
    evaluation = parts["evaluate"]
    copy(evaluation.file("rule.json"), out / f"{name}-rule.json")
    copy(parts["convert"].file("report.txt"), out / f"{name}-conversion.txt")
    copy(parts["convert"].file("report.json"), out / f"{name}-conversion.json")
    if FINE_TUNE.name in parts:
        write_text(
            out / f"{name}-fine-tuning.json", json.dumps(parts[FINE_TUNE.name].manifest["provenance"]["facts"], indent=1)
        )
    copy(evaluation.file(CURVES), out / f"{name}-{CURVES}")
    for picture in sorted(evaluation.folder.glob("*.png")):
        copy(picture, out / "figures" / f"{name}-{picture.name}")
    write_text(out / f"{name}-training.json", json.dumps(training, indent=1))


def _training(artefact: Artefact) -> dict[str, Any]:
    """The facts of a training, from the manifest; those of a given checkpoint's, as far as it holds them."""
    facts: dict[str, Any] = artefact.manifest["provenance"]["facts"]
    if "given" not in facts:
        return facts
    from dynconf_core.networks.checkpoint import read as checkpoint

    return dict(checkpoint(artefact.file("checkpoint.pt"))["provenance"])


def _write_traces(out: Path, name: str, parts: Mapping[str, Artefact], rule: Rule) -> None:
    """Write compressed traces, which preserve all predictions and, on the test split, the exits of the chosen rule."""
    compact(Traces.load(parts["collect_calibration"].folder)).save(out / f"{name}-calibration.npz", compressed=True)
    compact(Traces.load(parts["collect_test"].folder), lambda traces: _read_by(rule, traces)).save(
        out / f"{name}-test.npz", compressed=True
    )


def _read_by(rule: Rule, traces: Traces) -> NDArray[np.int64]:
    """(N, 1 + T): the exit step of each sample, and its prediction at each step, behind the rule's readout."""
    return np.column_stack([rule.exit_steps(traces), rule.decoded(traces).predictions()])
