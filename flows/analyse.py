"""The flow ``analyse``: the analysis of somebody's traces."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from dynconf_core.evaluation.precautions import check_options
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.experiment.request import home_folder
from dynconf_core.results.trace_pairs import analysis_folder, pairs
from dynconf_flows.command.places import check_folder
from dynconf_tasks.analyse import analyse_pair, track_analysis


@flow(name="analyse", flow_run_name="{traces}", persist_result=False)
def analyse(
    traces: str,
    test: str | None = None,
    out: str | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    max_drop: float = 0.0,
    time_steps: int | None = None,
    seed: int = 0,
    home: str | None = None,
) -> list[AnalysisRecord]:
    """Analyse traces: the exit rule, what it saves, its guarantee, the oracles, all rules compared.

    Args:
        traces: calibration traces (.npz, or a folder of .npy files), or a folder of results that holds several.
        test: test traces; without them the one set is split half and half.
        out: folder of the analysis; default: `analysis` beside the traces.
        epsilon: of the guarantee: the accuracy that may be lost.
        delta: of the guarantee: how often the promise may be broken.
        max_drop: what the chosen rule may lose in expectation.
        time_steps: the traces are cut to so many; default: all.
        seed: of splits, folds and bootstraps.
        home: folder of tracking; default DYNCONF_HOME or .dynconf.

    Returns:
        the record of each pair, as its analysis.json holds it.
    """
    from dynconf_tasks.track import TrackingUnavailable

    options: dict[str, Any] = {"epsilon": epsilon, "delta": delta, "max_drop": max_drop, "time_steps": time_steps, "seed": seed}
    check_options(epsilon, delta, max_drop)
    found = pairs(Path(traces), Path(test) if test else None, home)
    check_folder(analysis_folder(Path(traces), out, found[0]), "out")
    records = []
    for pair in found:
        done = analyse_pair(pair, analysis_folder(Path(traces), out, pair), **options)
        records.append(done.analysis.record)
        try:
            track_analysis(done, pair, options, home_folder(home))
        except TrackingUnavailable as error:
            get_run_logger().warning("%s", error)
    return records
