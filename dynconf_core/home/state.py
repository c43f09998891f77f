"""The state of a home at a glance: what runs, what is stale, and how large it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dynconf_core.home.claims import Claim, claims
from dynconf_core.home.mounts import local_locks
from dynconf_core.home.running import Run, runs
from dynconf_core.home.sizes import sizes
from dynconf_core.store.owner import Owner
from dynconf_core.store.storage import storage_url

State = Literal["running", "ended", "on another host"]
"""Of a process; "on another host" if it cannot be judged from here."""


@dataclass(frozen=True)
class HomeState:
    """What ``dynconf status`` shows.

    Attributes:
        home: the home.
        runs: the runs that have a running file, each with the state of its process.
        claims: the claims on stages and other work, each with the state of its holder.
        sizes: bytes by file or folder of the home.
        local_locks: why file locks in the home do not reach other machines; None if they do, or if claims are in the storage.
    """

    home: Path
    runs: tuple[tuple[Run, State], ...]
    claims: tuple[tuple[Claim, State], ...]
    sizes: dict[str, int]
    local_locks: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The state as plain JSON values."""
        return {
            "home": str(self.home),
            "runs": [
                {
                    "state": state,
                    "process": _process(run.owner),
                    "command": run.command,
                    "since": run.since,
                    "results": run.results,
                    "progress": run.progress,
                }
                for run, state in self.runs
            ],
            "claims": [
                {
                    "state": state,
                    "process": _process(claim.owner),
                    "name": claim.name,
                    "what": claim.what,
                    "waiting": [_process(owner) for owner in claim.waiting],
                }
                for claim, state in self.claims
            ],
            "sizes": self.sizes,
            "local_locks": self.local_locks,
        }


def state_of(home: Path) -> HomeState:
    """The state of a home; takes a fraction of a second."""
    return HomeState(
        home,
        tuple((run, _state(run.owner)) for run in runs(home)),
        tuple((claim, "running" if claim.held else "ended") for claim in claims(home)),
        sizes(home),
        local_locks(home) if storage_url() is None else None,
    )


def _state(owner: Owner | None) -> State:
    alive = owner is not None and owner.alive()
    return "on another host" if alive is None else "running" if alive else "ended"


def _process(owner: Owner | None) -> dict[str, Any] | None:
    return None if owner is None else asdict(owner)
