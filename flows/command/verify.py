"""``dynconf verify``: check every artefact of a home."""

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.home.sizes import size_text
from dynconf_core.home.verification import verified
from dynconf_core.results.records import to_json
from dynconf_flows.command.options import AsJson, Home, print_json
from dynconf_flows.command.places import quoted
from dynconf_flows.command.session import FAILED
from dynconf_flows.command.terminal import Terminal


def verify(home: Home = None, as_json: AsJson = False) -> None:
    """Compare every artefact of the home with its checksums.

    A damaged artefact does no harm: it is never used, and the next run that needs it makes it again.
    """
    folder = home_folder(home)
    if not folder.is_dir():
        raise InputError(f"home {folder} does not exist: name another --home.")
    notes = Terminal(stderr=True)
    columns = (TextColumn("Verifying"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("", total=None)
        found = verified(folder / "artefacts", lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        damaged = [{"path": str(one.path), "why": one.why} for one in found.damaged]
        print_json(to_json({"artefacts": found.artefacts, "size": found.size, "damaged": damaged}))
    else:
        console = Terminal()
        for one in found.damaged:
            console.print(f"damaged: {one.why}", soft_wrap=True)
        how = (
            f"{len(found.damaged)} damaged: `dynconf gc --contents --delete --home {quoted(folder)}` removes them"
            if found.damaged
            else "all whole"
        )
        console.print(f"{found.artefacts} artefacts, {size_text(found.size)}, {how}.", soft_wrap=True)
    if found.damaged:
        raise typer.Exit(FAILED)
