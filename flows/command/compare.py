"""``dynconf compare``: exit rules compared at equal accuracy."""

from typing import Annotated

import typer

from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.analyse import Accumulated, Layout, Readout, Seed, Test, TimeSteps, Traces, heading, say, warn
from dynconf_flows.command.options import AsJson, Debug, Home, print_json
from dynconf_flows.command.server import configure
from dynconf_flows.command.terminal import Terminal


def compare(
    traces: Traces,
    test: Test = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="A measure of your own to include, as package.module:Class; repeatable."),
    ] = None,
    readout: Readout = "choose",
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Show accuracies, and the 95 % intervals of all figures, in place of the table.")
    ] = False,
    time_steps: TimeSteps = None,
    layout: Layout = None,
    accumulated: Accumulated = False,
    seed: Seed = 0,
    home: Home = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare exit rules at equal accuracy, rivals among them.

    Thresholds are chosen on the calibration traces for allowed drops of 0, 0.1, 0.5 and 1 point. Other methods are also
    shown at the threshold that they propose themselves.
    """
    configure(home_folder(home))
    from dynconf_core.choosing.candidates import check_readout
    from dynconf_core.choosing.comparison import compare as compared
    from dynconf_core.choosing.comparison import interval_lines, table_lines
    from dynconf_core.confidence.measure import MEASURES, measures_of
    from dynconf_core.evaluation.trace_warnings import trace_warnings
    from dynconf_core.results.records import to_json
    from dynconf_core.results.trace_pairs import pairs
    from dynconf_tasks.analyse import described, loaded

    check_readout(readout)
    measures = measures_of((*MEASURES.names(), *(rule or ())))
    found = pairs(traces, test, home)
    console, tables, own = Terminal(stderr=as_json), {}, {}
    for pair in found:
        calibration, judge, _ = loaded(pair, seed, time_steps, layout, accumulated)
        comparison = compared(calibration, judge, measures=measures, seed=seed, readout=readout)
        tables[pair.name], own[pair.name] = comparison.rows, comparison.own
        if not as_json:
            heading(console, pair.name, described(judge), calibration.samples, judge.samples)
            for line in interval_lines(comparison) if intervals else table_lines(comparison):
                say(console, line)
        warn(console, trace_warnings(calibration, judge))
    if as_json:
        print_json(to_json({"comparisons": tables, "own_thresholds": own}))
