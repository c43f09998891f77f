"""Where the results of a command lie, and the commands that show more, in a form that can be pasted."""

import shlex
from pathlib import Path

from dynconf_flows.command.terminal import Terminal


def print_places(console: Terminal, folders: list[Path], home: Path) -> None:
    """Print the folders of results, their reports, and the command that opens MLflow."""
    from dynconf_core.results.files import REPORT

    for folder in folders:
        console.print(f"Results: {quoted(folder)}", soft_wrap=True)
        if (folder / REPORT).is_file():
            console.print(f"Report:  {quoted(folder / REPORT)}", soft_wrap=True)
    console.print(f"MLflow:  dynconf ui --home {quoted(home)}", soft_wrap=True)


def quoted(path: Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))
