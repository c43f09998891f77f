"""``dynconf status``: what runs in a home, what is stale, and how large the home is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.home.running import Run
from dynconf_core.home.sizes import size_text
from dynconf_core.home.state import HomeState, state_of
from dynconf_core.results.records import to_json
from dynconf_core.store.owner import Owner
from dynconf_flows.command.display import duration
from dynconf_flows.command.options import AsJson, Home, print_json
from dynconf_flows.command.places import quoted
from dynconf_flows.command.terminal import Terminal

PARTICIPANT = "participant-"
"""Begins the name of the claim that shows that a process takes part in a study; its running file says more."""
SILENT = 60.0
"""Seconds after which it is said how old a run's progress is."""


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what runs in the home and how far it is.

    Also what is stale, and the size of the home. Runs of other hosts are listed; whether they still run can be seen only there.
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
    shown_runs = [run.owner for run, state in found.runs if state == "running"]
    for run, state in found.runs:
        if state == "running":
            shown.append(f"running: {run.command} ({_process(run.owner)}, {_since(run)})")
            shown += [f"    {line}" for line in progress_lines(run.progress)]
    for claim, state in found.claims:
        if state == "running" and not (claim.name.startswith(PARTICIPANT) and claim.owner in shown_runs):
            waiting = "".join(f"; {_process(owner)} waits for it" for owner in claim.waiting)
            shown.append(f"at work: {claim.what} ({_process(claim.owner)}){waiting}")
    for run, state in found.runs:
        if state == "on another host":
            shown.append(f"on another host: {run.command} ({_process(run.owner)}, {_since(run)}); run `dynconf status` there")
            shown += [f"    {line}" for line in progress_lines(run.progress)]
    stale = [f"stale: {run.command} ({_process(run.owner)}, {_since(run)})" for run, state in found.runs if state == "ended"]
    stale += [f"stale: claim on {claim.what} ({_process(claim.owner)})" for claim, state in found.claims if state == "ended"]
    shown += stale
    if stale:
        shown.append(f"`dynconf reconcile --home {quoted(found.home)}` ends the records of stale runs.")
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


def progress_lines(progress: Mapping[str, Any] | None) -> list[str]:
    """What a run says of its progress: how many settings are done, and its running stages; it may be anybody's JSON."""
    if progress is None:
        return []
    found = []
    if isinstance(progress.get("points"), int):
        others = f", {progress['by_others']} of them by others" if progress.get("by_others") else ""
        found.append(f"{progress.get('done')} of {progress['points']} done{others}")
    stages = progress.get("stages")
    for one in stages if isinstance(stages, list) else []:
        if isinstance(one, Mapping):
            part = f" {one['done']}/{one['total']}" if one.get("total") else ""
            text = f", {one['text']}" if one.get("text") else ""
            stage = str(one.get("stage")).replace("_", " ")
            passed = seconds_since(str(one.get("since")))
            so_far = f", for {duration(passed)}" if passed is not None else ""
            found.append(f"{one.get('name')} {stage}{part}{so_far}{text}")
    silent = seconds_since(str(progress.get("at")))
    if found and silent is not None and silent >= SILENT:
        found.append(f"(it said so {duration(silent)} ago)")
    return found


def seconds_since(text: str) -> float | None:
    """The seconds since a time in ISO 8601; None for other text."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    except (ValueError, TypeError):
        return None


def _since(run: Run) -> str:
    passed = seconds_since(run.since)
    return f"since {run.since}" if passed is None else f"since {run.since}, {duration(passed)} ago"


def _process(owner: Owner | None) -> str:
    return "process unknown" if owner is None else f"process {owner.pid} on {owner.host}"
