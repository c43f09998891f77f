"""``dynconf resend``: log to MLflow what is missing there of the results of a home."""

from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_flows.command.options import Debug, Home
from dynconf_flows.command.server import configure
from dynconf_flows.command.session import FAILED
from dynconf_flows.command.terminal import Terminal, labelled


def resend(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Reproductions or sweeps, by name or folder [default: all of the home]."),
    ] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Log to MLflow what is missing there of the results of a home.

    After a run whose tracking failed: repeating it does no harm.
    """
    folder = home_folder(home)
    configure(folder)
    from dynconf_tasks.resend import resend as sent_by

    console, notes = Terminal(), Terminal(stderr=True)
    count, unreadable = 0, list[InputError]()
    for sent in sent_by(folder, runs or [], unreadable.append):
        count += 1
        what = ", ".join(sent.children) or "the run itself"
        console.print(f"{sent.run}: sent {what}", soft_wrap=True)
        if sent.without_files:
            names = ", ".join(sent.without_files)
            text = f"  figures only, without files, of {names}: their artefacts are not in the store any more"
            console.print(text, soft_wrap=True)
    for error in unreadable:
        notes.print(labelled("failed:", "red", str(error)), soft_wrap=True)
    if not count:
        console.print(f"Nothing to send: MLflow has all results{' that can be read' if unreadable else ''}.")
    if unreadable:
        raise typer.Exit(FAILED)
