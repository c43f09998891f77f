"""``dynconf status``: what runs in a home, what is stale, and how large the home is."""

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.home.sizes import size_text
from dynconf_core.home.state import HomeState, state_of
from dynconf_core.results.records import to_json
from dynconf_core.store.owner import Owner
from dynconf_flows.command.options import AsJson, Home, print_json
from dynconf_flows.command.terminal import Terminal


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what runs in the home, what is stale, and its size.

    Runs of other hosts are listed; whether they still run can be seen only there.
    """
    folder = home_folder(home)
    if not folder.is_dir():
        raise InputError(f"home {folder} does not exist: run `dynconf reproduce` first, or name another --home.")
    found = state_of(folder)
    if as_json:
        print_json(to_json(found.to_json()))
        return
    console = Terminal()
    for line in lines(found):
        console.print(line, soft_wrap=True)


def lines(found: HomeState) -> list[str]:
    """The state of a home, line by line."""
    shown = [f"Home {found.home}"]
    running = [run for run, state in found.runs if state == "running"]
    shown += [f"running: {run.command} ({_process(run.owner)}, since {run.since})" for run in running]
    for claim, state in found.claims:
        if state == "running":
            waiting = "".join(f"; {_process(owner)} waits for it" for owner in claim.waiting)
            shown.append(f"at work: {claim.what} ({_process(claim.owner)}){waiting}")
    elsewhere = [run for run, state in found.runs if state == "on another host"]
    shown += [
        f"on another host: {run.command} ({_process(run.owner)}, since {run.since}); run `dynconf status` there"
        for run in elsewhere
    ]
    stale = [
        f"stale: {run.command} ({_process(run.owner)}, since {run.since})" for run, state in found.runs if state == "ended"
    ]
    stale += [f"stale: claim on {claim.what} ({_process(claim.owner)})" for claim, state in found.claims if state == "ended"]
    shown += stale
    if stale:
        shown.append(f"`dynconf reconcile --home {found.home}` ends the records of stale runs.")
    if len(shown) == 1:
        shown.append("Nothing runs.")
    if found.local_locks is not None:
        shown.append(
            f"Locks here do not reach other machines ({found.local_locks}): mount the home otherwise, set DYNCONF_STORAGE, or "
            "use it from one machine at a time."
        )
    total = sum(found.sizes.values())
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in found.sizes.items() if size)
    shown.append(f"Size without data sets: {size_text(total)}" + (f" ({parts})" if parts else ""))
    return shown


def _process(owner: Owner | None) -> str:
    return "process unknown" if owner is None else f"process {owner.pid} on {owner.host}"
