"""The processes that a run in MLflow belongs to: those that work on it."""

from typing import Any

from dynconf_core.store.owner import Owner

OWNER = "dynconf.owner"
"""The tag that names the processes, separated by spaces."""


def owners(run: Any) -> list[Owner]:
    """The processes that a run belongs to."""
    found = (Owner.parse(text) for text in run.data.tags.get(OWNER, "").split())
    return [owner for owner in found if owner is not None]


def other_owners(run: Any) -> list[Owner]:
    """The other processes that have a run open, as far as it is not known that they ended."""
    if run.info.status != "RUNNING":
        return []
    return [owner for owner in owners(run) if owner != Owner.this() and owner.alive() is not False]


def as_tag(found: list[Owner]) -> str:
    """The value of the tag ``OWNER``."""
    return " ".join(map(str, found))
