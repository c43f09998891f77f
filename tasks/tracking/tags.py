"""The tags of runs in MLflow: those that people filter by, and those by which dynconf finds its runs again."""

import getpass
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.schemes.field import Value
from dynconf_tasks.links import NOTE, flow_run_tags
from dynconf_tasks.tracking.family import IDENTITY
from dynconf_tasks.tracking.logged import Child

TAG_LENGTH = 5000
SETTING, POINT, KIND = "setting", "point", "kind"
"""Tags, among others, that people filter by."""
SOURCE, SOURCE_TYPE, COMMIT, USER = "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.user"
JOB = "JOB"
"""The type of source of which MLflow shows the whole name, as it stands."""
COLOUR = "mlflow.runColor"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C564B", "#6B6B6B")
"""Of the eight settings in charts; by itself, MLflow gives some of them colours that cannot be told apart."""
INHERITED = (SOURCE, SOURCE_TYPE, COMMIT, USER, "commit")
"""Tags that a child has from its parent, since a process that runs a setting does not know the command."""
Kind = Literal["reproduction", "sweep"]
Known = tuple[str, str, str]
"""A child's setting, point, and digest or artefact; see ``known_as``."""


@dataclass(frozen=True)
class Source:
    """What made a run: the command line, and the commit of dynconf; None where it is unknown."""

    command: str | None = None
    commit: str | None = None

    def tags(self) -> dict[str, str]:
        """The tags for MLflow and for people."""
        found = {SOURCE: self.command, SOURCE_TYPE: JOB if self.command else None, "commit": self.commit, USER: _user()}
        found[COMMIT] = self.commit.removesuffix("-dirty") if self.commit else None
        return {name: value[:TAG_LENGTH] for name, value in found.items() if value}


def colour(setting: str) -> dict[str, str]:
    """The tag with the colour of one of the project's settings; MLflow chooses those of others."""
    names = list(SETTINGS)
    return {COLOUR: COLOURS[names.index(setting) % len(COLOURS)]} if setting in names else {}


def record_text(values: Mapping[str, Any]) -> str:
    """The tag ``RECORD``; what was asked for is left out where it is too long for a tag."""
    text = json.dumps(values)
    return text if len(text) <= TAG_LENGTH else json.dumps({name: value for name, value in values.items() if name != IDENTITY})


def with_description(tags: Mapping[str, str], description: str) -> dict[str, str]:
    """The tags with the description and the current flow run, to whose page the description leads if it has one."""
    own = flow_run_tags()
    described = "\n\n".join(text for text in (description, own.pop(NOTE, "")) if text)
    return {**tags, **own, **({NOTE: described} if described else {})}


def known_as(child: Child) -> set[Known]:
    """The entries of ``Tracker.known`` of which each says that a child is logged."""
    return {(child.setting, point_text(child.point), told) for told in (child.digest, child.key) if told}


def point_text(point: Mapping[str, Value] | None) -> str:
    """A point as text, the same for equal points; "" for none."""
    return "" if point is None else _canonical(point)


def identified(profile: str, seed: int, identity: Mapping[str, Value], name: str, kind: Kind) -> tuple[str, str]:
    """What identifies a parent: readable, and as a digest."""
    text = _canonical({"profile": profile, "seed": seed, **identity})
    told = text if kind == "reproduction" else _canonical({"kind": kind, "name": name})
    return text, hashlib.sha256(told.encode()).hexdigest()


def _canonical(value: Mapping[str, Value]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=str)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container without accounts
        return None
