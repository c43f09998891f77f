"""``dynconf export-nir``: write a converted network as NIR."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynconf_core.experiment.request import check_file
from dynconf_flows.command.options import AsJson, Debug, print_json
from dynconf_flows.command.terminal import Terminal


def export_nir(
    snn: Annotated[Path, typer.Argument(help="The file of a converted network, of `dynconf convert` or save_snn.")],
    out: Annotated[Path, typer.Argument(help="The file to write, OUT.nir.")],
    units: Annotated[
        str,
        typer.Option(help="threshold: every neuron fires at 1; physical: at its threshold in units of the ANN's activations."),
    ] = "threshold",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write an SNN as NIR, for other simulators and chips.

    Says what NIR cannot express and a reader must add.
    """
    check_file(out, "OUT")
    from dynconf_core.conversion.file import load_snn
    from dynconf_core.exchange.nir_file import write_nir
    from dynconf_core.exchange.nir_summary import nir_summary
    from dynconf_core.exchange.to_nir import to_nir

    graph = to_nir(load_snn(snn), units)
    write_nir(graph, out)
    summary = nir_summary(graph)
    if as_json:
        print_json({"schema": 2, "nir": str(out), **summary.to_json()})
        return
    console = Terminal()
    console.print(f"{out}: {summary}.", soft_wrap=not console.is_terminal)
    console.print("In its metadata alone, and so for a reader to do:", soft_wrap=True)
    for line in summary.for_readers:
        console.print(f"- {line}", soft_wrap=not console.is_terminal)
