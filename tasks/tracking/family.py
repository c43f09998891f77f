"""Parents and children among the runs in MLflow: found by their tags, merged where there are two, ended where they are left."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dynconf_core.store.owner import Owner
from dynconf_tasks.links import NOTE, flow_run_tags
from dynconf_tasks.tracking.owners import OWNER, as_tag, other_owners, owners
from dynconf_tasks.tracking.runs import Runs, errors

PARENT, KEY, RECORD = "mlflow.parentRunId", "dynconf.key", "dynconf.record"
"""Tags: a child's parent; a digest by which a run is found again, of what a parent was asked for or a child's place below it;
everything else that has to be known again and that nobody searches for, as JSON."""
DIGEST, ARTEFACT, IDENTITY = "evaluation", "artefact", "identity"
"""In the record: the digest of a child's evaluation, its key in the store, and what was asked for besides profile and seed."""
OUTCOME = "dynconf.outcome"
"""The tag of a parent with the status that the first process to finish gave it, while others still work on it."""


class Family:
    """The parents and children among ``runs``."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def open(self, run: Any) -> None:
        """Mark a parent as running, and as this process's, too."""
        identifier, others = run.info.run_id, other_owners(run)
        tags = {OWNER: as_tag([*others, Owner.this()]), **({} if others else flow_run_tags())}
        tags.pop(NOTE, None)  # the description stands there until the new one is written
        for name, value in tags.items():
            if run.data.tags.get(name) != value:
                self._runs.client.set_tag(identifier, name, value)
        if not others and OUTCOME in run.data.tags:  # of an earlier time
            self._runs.client.delete_tag(identifier, OUTCOME)
        if run.info.status != "RUNNING":
            self._runs.client.update_run(identifier, status="RUNNING")

    def parent(self, parent: str) -> Any:
        """The run of a reproduction or sweep, or the one that it was merged into."""
        run = self._runs.client.get_run(parent)
        if run.info.lifecycle_stage == "active" or KEY not in run.data.tags:
            return run
        return self.only(run.info.experiment_id, run.data.tags[KEY]) or run

    def only(self, experiment: str, key: str) -> Any | None:
        """The one parent with this key; of several, the oldest, which takes the children and owners of the others."""
        found = sorted(self._runs.find(experiment, KEY, key), key=lambda run: (run.info.start_time, run.info.run_id))
        if len(found) <= 1:
            return found[0] if found else None
        kept, *twins = found
        for twin in twins:
            for child in self._runs.find(experiment, PARENT, twin.info.run_id):
                self._adopt(kept, child)
            with suppress(*errors()):  # whoever else merges them may have been faster
                self._runs.client.delete_run(twin.info.run_id)
        working = {str(one): one for run in found if run.info.status == "RUNNING" for one in owners(run)}
        if len(working) > 1:
            self._runs.client.set_tag(kept.info.run_id, OWNER, as_tag(list(working.values())))
        return self._runs.client.get_run(kept.info.run_id)

    def _adopt(self, parent: Any, child: Any) -> None:
        """Put a child below another parent, unless that has the same already."""
        same = self._runs.find(parent.info.experiment_id, KEY, child.data.tags.get(KEY, ""))
        known = [run for run in same if run.data.tags.get(PARENT) == parent.info.run_id and complete(run)]
        if any(recorded(run).get(DIGEST) == recorded(child).get(DIGEST) for run in known) and not other_owners(child):
            self._runs.client.delete_run(child.info.run_id)
        else:
            self._runs.client.set_tag(child.info.run_id, PARENT, parent.info.run_id)

    def running_children(self, above: Any) -> list[Any]:
        condition = f"attributes.status = 'RUNNING' and tags.`{PARENT}` = '{above.info.run_id}'"
        return self._runs.search(above.info.experiment_id, condition)

    def end(self, above: Any) -> int | None:
        """When the last stage below a parent ended, in milliseconds since 1970; None, that is now, if the parent is younger.

        A repetition in which everything comes from the store then does not lengthen the parent's duration by the days between.
        """
        children = self._runs.find(above.info.experiment_id, PARENT, above.info.run_id)
        found = max((run.info.end_time for run in children if complete(run) and run.info.end_time), default=0)
        return found if found > above.info.start_time else None

    def end_children(self, above: Any) -> None:
        """End the children that are still marked as running as killed, or delete them where another took their place."""
        for child in self.running_children(above):
            same = self._runs.find(above.info.experiment_id, KEY, child.data.tags.get(KEY, ""))
            if any(complete(run) for run in same):
                self._runs.client.delete_run(child.info.run_id)
            else:
                self._runs.client.set_terminated(child.info.run_id, "KILLED")

    def ended(self, run: Any, dead: Callable[[Owner], bool], dry_run: bool = False) -> str | None:
        """End a running run whose owners are all ``dead``, and return its name; else take the dead off its owners."""
        belongs = owners(run) if run.info.status == "RUNNING" else []
        left = [owner for owner in belongs if not dead(owner)]
        if len(left) == len(belongs):
            return None
        if left:
            if not dry_run:
                self._runs.client.set_tag(run.info.run_id, OWNER, as_tag(left))
            return None
        if not dry_run:
            self._runs.client.set_terminated(run.info.run_id, run.data.tags.get(OUTCOME, "KILLED"))
        return str(run.info.run_name)


def recorded(run: Any) -> dict[str, Any]:
    """What the tag ``RECORD`` of a run holds."""
    found: dict[str, Any] = json.loads(run.data.tags.get(RECORD, "{}"))
    return found


def complete(run: Any) -> bool:
    """Whether all of a child was logged: a run whose logging failed is ``KILLED``."""
    return run.info.status in ("FINISHED", "FAILED")


def outcome(run: Any) -> str | None:
    """How a parent has ended already, according to one of the processes that work on it; None if none has finished."""
    if run.info.status in ("FINISHED", "FAILED"):
        return str(run.info.status)
    found = run.data.tags.get(OUTCOME)
    return None if found is None else str(found)
