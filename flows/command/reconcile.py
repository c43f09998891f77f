"""``dynconf reconcile``: end the records of killed processes."""

import os
from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.home.running import ended
from dynconf_core.results.records import to_json
from dynconf_core.store.owner import Owner
from dynconf_flows.command.options import AsJson, Home, print_json
from dynconf_flows.command.server import TemporaryServer, configure
from dynconf_flows.command.session import FAILED
from dynconf_flows.command.terminal import Terminal


def reconcile(
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    gone: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A host on which nothing runs any more; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End the records of killed runs.

    Prefect runs become Crashed, MLflow runs KILLED and Optuna trials FAIL if their process has ended, and what it left in the
    home is removed. Records of processes that run, or that ran on other hosts, stay.
    """
    folder = home_folder(home)
    if not folder.is_dir():
        raise InputError(f"home {folder} does not exist: name another --home.")
    configure(folder)
    hosts = set(gone or ())

    def dead(owner: Owner) -> bool:
        return ended(owner) or (owner.alive() is None and owner.host in hosts)

    # Without a database of Prefect's in the home, and without a server of the user's, there are no flow runs to end.
    needed = os.environ.get("PREFECT_API_URL") or (folder / "prefect" / "prefect.db").is_file()
    server = TemporaryServer(folder) if needed else None  # it says at once if the user's does not answer
    try:
        from dynconf_tasks.reconcile import reconcile as reconciled

        if server is not None:
            server.wait()
        done = reconciled(folder, dead=dead, dry_run=dry_run)
    finally:
        if server is not None:
            server.stop()
    if as_json:
        removed = [str(path) for path in done.removed]
        print_json(
            to_json(
                {
                    "home": str(folder),
                    "dry_run": dry_run,
                    "ended": done.ended,
                    "removed": removed,
                    "elsewhere": done.elsewhere,
                    "problems": done.problems,
                }
            )
        )
    else:
        console = Terminal()
        would = "would be " if dry_run else ""
        lines = [f"{would}ended: {text}" for text in done.ended]
        lines += [f"{would}removed: {path.relative_to(folder)}" for path in done.removed]
        lines += [f"on another host, left alone (--gone HOST if nothing runs there): {text}" for text in done.elsewhere]
        lines += [f"failed: {text}" for text in done.problems]
        for line in lines or ["Nothing to do."]:
            console.print(line, soft_wrap=True)
    if done.problems:
        raise typer.Exit(FAILED)
