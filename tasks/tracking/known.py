"""Whether MLflow knows a reproduction, read from ``mlflow.db`` in milliseconds, where MLflow's own client takes seconds."""

import json
import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

from dynconf_core.schemes.field import Value
from dynconf_tasks.databases import damage
from dynconf_tasks.tracking.family import DIGEST, KEY, PARENT, RECORD
from dynconf_tasks.tracking.tags import identified

FILE, NEEDED = "mlflow.db", ("experiments", "runs", "tags")
PARENTS = """
SELECT run.run_uuid, run.status FROM runs AS run
JOIN experiments AS experiment ON experiment.experiment_id = run.experiment_id
JOIN tags AS key ON key.run_uuid = run.run_uuid AND key.key = ? AND key.value = ?
WHERE experiment.name = ? AND experiment.lifecycle_stage = 'active' AND run.lifecycle_stage = 'active'
"""
CHILDREN = """
SELECT record.value FROM runs AS run
JOIN tags AS parent ON parent.run_uuid = run.run_uuid AND parent.key = ? AND parent.value = ?
JOIN tags AS record ON record.run_uuid = run.run_uuid AND record.key = ?
WHERE run.lifecycle_stage = 'active' AND run.status = 'FINISHED'
"""


def is_tracked(home: Path, profile: str, seed: int, identity: Mapping[str, Value], evaluations: Collection[str]) -> bool:
    """Whether MLflow holds a finished reproduction with finished runs of these evaluations.

    Args:
        home: the home, in which ``mlflow.db`` lies unless ``MLFLOW_TRACKING_URI`` is set.
        profile, seed, identity: what was asked for.
        evaluations: the digest of each setting's evaluation.

    Returns:
        False also where it cannot be told: whoever then logs them finds out, or says what is wrong.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return _by_client(home, profile, seed, identity, evaluations)
    path = home / FILE
    _, key = identified(profile, seed, identity, "", "reproduction")
    try:
        if not path.is_file() or damage(path, NEEDED):
            return False
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            parents = database.execute(PARENTS, (KEY, key, f"dynconf-{profile}")).fetchall()
            if len(parents) != 1 or parents[0][1] != "FINISHED":
                return False
            children = database.execute(CHILDREN, (PARENT, parents[0][0], RECORD))
            found = {json.loads(record).get(DIGEST) for (record,) in children}
    except (sqlite3.Error, ValueError):  # locked, unreadable, or of a version with other tables
        return False
    return found.issuperset(evaluations)


def _by_client(home: Path, profile: str, seed: int, identity: Mapping[str, Value], evaluations: Collection[str]) -> bool:
    from dynconf_tasks.tracking.tracker import Tracker, TrackingUnavailable

    try:
        known, ended = Tracker(home).known(profile, seed, identity, "", "reproduction")
    except TrackingUnavailable:
        return False
    return ended and {digest for _, _, digest in known}.issuperset(evaluations)
