"""The flow ``analyse``: the analysis of an SNN's traces."""

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.logging import get_run_logger

from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.experiment.plan import MAX_DROP
from dynconf_core.experiment.request import check_folder, home_folder
from dynconf_core.results.trace_pairs import asked_folder, pairs
from dynconf_flows.prefect_runs import owned
from dynconf_tasks.analyse import AnalysisOptions, analyse_pair, track_analysis
from dynconf_tasks.parameters import Count, Fraction, Seed
from dynconf_tasks.reconcile import at_work


@flow(name="analyse", flow_run_name="{traces}", persist_result=False)
def analyse(
    traces: str,
    test: str | None = None,
    out: str | None = None,
    epsilon: Fraction | None = None,
    delta: Fraction | None = None,
    max_drop: Fraction = MAX_DROP,
    time_steps: Count | None = None,
    seed: Seed = 0,
    home: str | None = None,
    layout: Literal["NTC", "TNC"] | None = None,
    accumulated: bool = False,
    readout: Literal["plain", "decoded", "choose"] = "choose",
) -> list[AnalysisRecord]:
    """Analyse traces: choose an exit rule, and report its saving, guarantee, oracles and all other rules.

    Args:
        traces: calibration traces (.npz, or a folder of .npy files), or a folder of results with several sets.
        test: test traces; without them the one set is split into random halves.
        out: folder for the analysis; default: one in the home, below `analyses`.
        epsilon: guarantee: the accuracy that may be lost.
        delta: guarantee: the probability that it fails.
        max_drop: the accuracy that the chosen rule may lose in expectation.
        time_steps: number of first time steps to use; default: all.
        seed: seed of splits, folds and bootstraps.
        home: folder of analyses and tracking; default DYNCONF_HOME or .dynconf.
        layout: order of the axes of logits, "TNC" if the time steps come first; default: NTC, if it can be told.
        accumulated: whether the logits are running sums.
        readout: "plain", "decoded" or "choose": whether the rule reads the sum of the logits behind a fitted readout.

    Returns:
        the record of each pair, the content of its analysis.json.
    """
    from dynconf_tasks.tracking.tracker import TrackingUnavailable

    options = AnalysisOptions(
        epsilon, delta, max_drop, time_steps, seed=seed, layout=layout, accumulated=accumulated, readout=readout
    )
    found = pairs(Path(traces), Path(test) if test else None, home)
    if out:
        check_folder(Path(out), "out")
    records = []
    with at_work(home_folder(home), f"analyse {traces}"), owned():
        for pair in found:
            folder = asked_folder(Path(traces), out, pair) if out else None
            done = analyse_pair(pair, folder, options, home_folder(home))
            records.append(done.analysis.record)
            try:
                track_analysis(done, pair, options, home_folder(home), f"flow analyse {traces}")
            except TrackingUnavailable as error:
                get_run_logger().warning("%s", error)
    return records
