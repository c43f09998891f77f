"""Source that stands for older source in the keys of stages, since it gives the same results: ``equal_code.json``.

After a change that alters no result (``tests/test_golden.py`` passes unchanged), a release declares the changed files equal to
those of the release before, so that nobody's finished stages become stale:

    python -m dynconf_core.experiment.equal_code v0.1.0 dynconf_core/training/loop.py

An entry holds while the file stays as it is. It covers changes within files; a stage that reaches another set of files has a
new key.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TypedDict

from dynconf_core.errors import InputError
from dynconf_core.store.source import digest_and_imports

TABLE = Path(__file__).with_suffix(".json")


class Entry(TypedDict):
    """A file, the digest of its source now, and the digest for which it stands in keys."""

    file: str
    now: str
    was: str


@cache
def equal_code() -> dict[str, str]:
    """The digests that stand for older ones."""
    return {entry["now"]: entry["was"] for entry in read()}


def read() -> list[Entry]:
    """The table."""
    found: list[Entry] = json.loads(TABLE.read_text())
    return found


def declared(file: str, old: bytes, new: bytes, table: list[Entry]) -> list[Entry]:
    """The table in which ``new`` stands for ``old``, or for what ``old`` stands for; a file keeps its newest entry alone."""
    before, now = digest_and_imports(old)[0], digest_and_imports(new)[0]
    was = next((entry["was"] for entry in table if entry["file"] == file and entry["now"] == before), before)
    kept = [entry for entry in table if entry["file"] != file]
    return kept if now == was else sorted([*kept, Entry(file=file, now=now, was=was)], key=lambda entry: entry["file"])


def main(words: list[str]) -> int:
    """Declare files of the current folder, a checkout, equal to those of a commit or tag."""
    if len(words) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    commit, *files = words
    table = read()
    for file in files:
        shown = subprocess.run(["git", "show", f"{commit}:{file}"], capture_output=True)
        if shown.returncode != 0:
            raise InputError(f"{file} at {commit}: {shown.stderr.decode().strip()}")
        table = declared(file, shown.stdout, Path(file).read_bytes(), table)
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
