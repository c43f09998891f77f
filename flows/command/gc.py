"""``dynconf gc``: remove what nothing in a home reaches or uses."""

from typing import Annotated, Any

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import home_folder
from dynconf_core.home.sizes import size_text
from dynconf_core.results.records import to_json
from dynconf_flows.command.options import AsJson, Home, print_json
from dynconf_flows.command.places import quoted
from dynconf_flows.command.terminal import Terminal

SHOWN = 10
"""Items of a kind that are shown one by one."""


def gc(
    home: Home = None,
    delete: Annotated[bool, typer.Option("--delete/--dry-run", help="Remove it, or only show what would be removed.")] = False,
    keep_days: Annotated[
        float, typer.Option(help="What was used within so many days stays; in any case what was used in the last hour.", min=0)
    ] = 7.0,
    contents: Annotated[
        bool, typer.Option("--contents", help="Read all artefacts to find damaged ones, as `dynconf verify` does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show or remove what the home no longer needs.

    These are artefacts that no results, sweep or setting reaches, damaged artefacts, and what killed runs left behind. What a
    running process uses stays.
    """
    folder = home_folder(home)
    if not folder.is_dir():
        raise InputError(f"home {folder} does not exist: name another --home.")
    from dynconf_core.home.rubbish import remove, rubbish
    from dynconf_core.home.verification import content, surface

    found = rubbish(folder, keep_days, content if contents else surface)
    removed = remove(folder, found) if delete else []
    if as_json:
        items: list[dict[str, Any]] = [
            {"kind": item.kind, "path": str(item.path), "size": item.size, "why": item.why, "removed": item in removed}
            for item in found
        ]
        print_json(to_json({"home": str(folder), "size": sum(item.size for item in found), "items": items}))
        return
    console = Terminal()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    for kind in dict.fromkeys(item.kind for item in found):
        of_kind = [item for item in found if item.kind == kind]
        say(f"{kind}: {len(of_kind)}, {size_text(sum(item.size for item in of_kind))}")
        for item in sorted(of_kind, key=lambda one: -one.size)[:SHOWN]:
            say(f"    {item.path.relative_to(folder)}, {size_text(item.size)}: {item.why}")
        if len(of_kind) > SHOWN:
            say(f"    and {len(of_kind) - SHOWN} more")
    if not found:
        say("Nothing to remove.")
    elif delete:
        say(f"Removed {len(removed)} of {len(found)}, {size_text(sum(item.size for item in removed))}.")
        if len(removed) < len(found):
            say("The others are used by a process, or could not be removed.")
    else:
        total = size_text(sum(item.size for item in found))
        say(f"{len(found)} would be removed, {total}: `dynconf gc --delete --home {quoted(folder)}` does it.")
