"""The state of a home at a glance: what runs, what is stale, and how large it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dynconf_core.home.claims import Claim, claims
from dynconf_core.home.running import Run, runs
from dynconf_core.home.sizes import sizes
from dynconf_core.store.owner import Owner

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
    """

    home: Path
    runs: tuple[tuple[Run, State], ...]
    claims: tuple[tuple[Claim, State], ...]
    sizes: dict[str, int]

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
        }


def state_of(home: Path) -> HomeState:
    """The state of a home; takes a fraction of a second."""
    return HomeState(
        home,
        tuple((run, _state(run.owner)) for run in runs(home)),
        tuple((claim, "running" if claim.held else "ended") for claim in claims(home)),
        sizes(home),
    )


def _state(owner: Owner | None) -> State:
    alive = owner is not None and owner.alive()
    return "on another host" if alive is None else "running" if alive else "ended"


def _process(owner: Owner | None) -> dict[str, Any] | None:
    return None if owner is None else asdict(owner)
