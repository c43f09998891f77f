"""``dynconf doctor``: whether everything that dynconf needs is there, and what is missing."""

import typer
from rich.text import Text

from dynconf_core.experiment.request import data_folder, home_folder
from dynconf_core.results.records import to_json
from dynconf_flows.command.options import AsJson, Data, Home, print_json
from dynconf_flows.command.session import FAILED
from dynconf_flows.command.terminal import Terminal, visible

STYLES = {"ok": "green", "note": "yellow", "broken": "red"}


def doctor(home: Home = None, data: Data = None, as_json: AsJson = False) -> None:
    """Check versions, hardware, home, servers and data sets.

    Writes nothing. Ends with exit code 1 if something is broken; notes are worth knowing and stop nothing.
    """
    from dynconf_flows.command.diagnosis import Finding, findings, healthy

    folder = home_folder(home)
    console, found = Terminal(), list[Finding]()
    for one in findings(folder, data_folder(data, folder)):
        found.append(one)
        if as_json:
            continue
        remedy = f" → {one.remedy}" if one.remedy else ""
        line = Text.assemble((f"{one.state:<7}", STYLES[one.state]), f"{one.name}: {visible(one.text)}{visible(remedy)}")
        console.print(line, soft_wrap=True)
    if as_json:
        print_json(to_json({"healthy": healthy(found), "findings": found}))
    elif healthy(found):
        console.print("Everything that is needed is there.")
    if not healthy(found):
        raise typer.Exit(FAILED)
