"""Logging to MLflow: one experiment per profile, one parent run per reproduction or sweep, one child run per setting or point.

Runs are found by their tags, so that a repetition adds no duplicates: a parent by the digest of what was asked, a child by its
parent, setting, point and the digest of its evaluation. If the evaluation has changed, a new child takes the place of the old.
The claim ``track-DIGEST`` in the home keeps processes that log the same apart, and the tag ``dynconf.owner`` names the
processes that a run belongs to. Machines that share the server but no claims may make a parent twice: whoever finds the two
merges them into the older one. All calls use explicit run ids, since MLflow's active run is per thread.
"""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.results.files import read_over_seeds, results_file, sweep_file
from dynconf_core.results.types import OverSeeds, RunResult, SweepResult
from dynconf_core.schemes.field import Value
from dynconf_core.store.claim import claim
from dynconf_core.store.owner import Owner
from dynconf_tasks import interruption
from dynconf_tasks.answering import without_password
from dynconf_tasks.links import NOTE, flow_run_tags, link_to
from dynconf_tasks.tracking.database import OtherVersion, tracking_uri
from dynconf_tasks.tracking.family import (
    ARTEFACT,
    DIGEST,
    IDENTITY,
    KEY,
    OUTCOME,
    PARENT,
    RECORD,
    Family,
    complete,
    outcome,
    recorded,
)
from dynconf_tasks.tracking.logged import Child
from dynconf_tasks.tracking.owners import OWNER, as_tag, other_owners
from dynconf_tasks.tracking.parents import ParentContent, parent_content, parent_files
from dynconf_tasks.tracking.runs import Content, Runs, errors, listed_tables
from dynconf_tasks.tracking.shown import Shown
from dynconf_tasks.tracking.tags import (
    INHERITED,
    KIND,
    POINT,
    SETTING,
    SOURCE,
    TAG_LENGTH,
    Kind,
    Known,
    Source,
    colour,
    identified,
    point_text,
    record_text,
    with_description,
)
from dynconf_tasks.tracking.views import OF_ANALYSES, OF_PROFILES

LONGEST_REASON = 200
"""Characters of what MLflow or its database says; it may be a whole query."""
PATIENCE, LAST_PATIENCE = 60.0, 2.0
"""Seconds to wait for another process that logs the same, and after an interruption."""


class TrackingUnavailable(RuntimeError):
    """The tracking server does not answer or refuses; computation can continue without it."""


class Tracker:
    """Logs to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the home.

    Args:
        home: the home.
        remedy: what the user can do if nothing could be logged, for messages; by default ``dynconf resend``.

    Raises:
        TrackingUnavailable: naming the URI, within seconds, if tracking does not work.
    """

    def __init__(self, home: Path, remedy: str | None = None) -> None:
        self.home, self.uri = home, tracking_uri(home)
        self._remedy = remedy or f"`dynconf resend --home {shlex.quote(str(home))}` logs them"
        with self._speaking_clearly(Exception):  # an unknown scheme, a driver that is not installed, ...
            self._runs, self._errors = Runs(home, _waiting()), errors()
            self._family = Family(self._runs)

    def parent(
        self,
        profile: str,
        seed: int,
        identity: Mapping[str, Value],
        name: str,
        kind: Kind = "reproduction",
        source: Source = Source(),  # noqa: B008  # frozen
    ) -> str:
        """Find or create the run of a reproduction or sweep and mark it as running; returns its id.

        A reproduction is identified by profile, seed and ``identity``; a sweep by ``name``, since a sweep's name holds a digest
        of what was asked.
        """
        text, key = identified(profile, seed, identity, name, kind)
        made_by = source.tags()
        record = record_text({IDENTITY: json.loads(text)})
        tags = {KIND: kind, "profile": profile, "seed": str(seed), KEY: key, RECORD: record, OWNER: str(Owner.this())}
        with self._speaking_clearly(), self._claimed(key, name):
            experiment = self._runs.experiment(f"dynconf-{profile}", OF_PROFILES)
            run = self._family.only(experiment, key)
            if run is None:
                self._runs.client.create_run(experiment, run_name=name, tags={**tags, **made_by, **flow_run_tags()})
                run = self._family.only(experiment, key)  # another machine may have made one at the same moment
                assert run is not None
            self._family.open(run)
            self._runs.tag(run, made_by)
            if not run.data.params:  # new, or killed before its parameters were logged
                self._runs.log(run.info.run_id, Shown(), {"profile": profile, "seed": seed, **identity})
            link_to(self.uri, experiment, run.info.run_id)
            return str(run.info.run_id)

    def child(self, parent: str, child: Child) -> str:
        """Find or create the finished (or failed) run of a setting or point below ``parent``; returns its id.

        Runs that it replaces are deleted afterwards; never one that a living process is logging.
        """
        point = point_text(child.point)
        with self._speaking_clearly():
            above = self._family.parent(parent)
            key = above.data.tags.get(KEY, above.info.run_id)
            digest = hashlib.sha256("\n".join([key, child.setting, point]).encode()).hexdigest()
            with self._claimed(digest, child.name):
                old = self._runs.find(above.info.experiment_id, KEY, digest)
                found = next((run for run in old if recorded(run).get(DIGEST) == child.digest and complete(run)), None)
                identifier = found.info.run_id if found is not None else self._create_child(above, child, point, digest)
                for run in old:
                    if run is not found and not other_owners(run):
                        self._runs.client.delete_run(run.info.run_id)
            link_to(self.uri, above.info.experiment_id, identifier)
            return str(identifier)

    def analysis(self, name: str, content: Content, key: str, source: Source = Source()) -> str:  # noqa: B008
        """Find or create the finished run of an analysis in the experiment ``dynconf-analysis``; returns its id.

        ``key`` is a digest of the analysis. Runs with this key that never finished are deleted.
        """
        with self._speaking_clearly(), self._claimed(key, name):
            experiment = self._runs.experiment("dynconf-analysis", OF_ANALYSES)
            old = self._runs.find(experiment, KEY, key)
            found = next((run for run in old if run.info.status == "FINISHED"), None)
            if found is not None:
                link_to(self.uri, experiment, found.info.run_id)
                return str(found.info.run_id)
            tags = {KEY: key, KIND: "analysis", OWNER: str(Owner.this()), **source.tags()}
            content = replace(content, tags=with_description({**content.tags, **tags}, content.tags.get(NOTE, "")))
            identifier = self._runs.create(experiment, name, content, "FINISHED")
            for run in old:
                if not other_owners(run):
                    self._runs.client.delete_run(run.info.run_id)
            link_to(self.uri, experiment, identifier)
            return identifier

    def finish_parent(
        self, parent: str, result: RunResult | SweepResult, interrupted: bool = False, settled: bool = False
    ) -> None:
        """Log what a reproduction or sweep shows, its description and its files, and end its run as finished, failed or killed.

        If other living processes work on the same, the run goes on until the last of them ends, unless everything is
        ``settled``: then nobody logs anything more, and what is still marked as running was left by processes that died. Where
        one has finished, an interruption of the others changes nothing.
        """
        content = parent_content(result, read_over_seeds(self.home, result.run))
        with self._speaking_clearly():
            run = self._family.parent(parent)
            with self._claimed(run.data.tags.get(KEY, parent), result.run):
                run = self._family.parent(parent)
                identifier, before = run.info.run_id, outcome(run)
                status = "KILLED" if interrupted else "FAILED" if result.failed else "FINISHED"
                if interrupted and before is not None:
                    status = before
                else:
                    self._log_parent(run, result, content)
                others = other_owners(run)
                if others and not interrupted:
                    self._runs.client.set_tag(identifier, OUTCOME, status)
                if others and not settled:
                    self._runs.client.set_tag(identifier, OWNER, as_tag(others))
                else:
                    if settled:
                        self._family.end_children(run)
                    self._runs.client.set_terminated(identifier, status, self._family.end(run))

    def over_seeds(self, asked: Sequence[tuple[RunResult, Mapping[str, Value]]], seeds: OverSeeds) -> None:
        """Add the figures over several seeds to the runs of all of them: each result with what identifies its reproduction."""
        with self._speaking_clearly():
            for result, identity in asked:
                _, key = identified(result.profile, result.seed, identity, "", "reproduction")
                experiment = self._runs.client.get_experiment_by_name(f"dynconf-{result.profile}")
                run = None if experiment is None else self._family.only(experiment.experiment_id, key)
                if run is not None:
                    with self._claimed(key, result.run):
                        self._log_parent(run, result, parent_content(result, seeds))

    def _log_parent(self, run: Any, result: RunResult | SweepResult, content: ParentContent) -> None:
        """Log what the run of a reproduction or sweep shows, as far as it does not stand there."""
        identifier, known = run.info.run_id, run.data.metrics
        headline = content.shown.headline
        changed = {name: value for name, value in headline.items() if known.get(f"headline/{name}") != value}
        self._runs.log(identifier, Shown(changed), {})
        self._runs.tag(run, with_description({**content.tags, **listed_tables(content.shown)}, content.description))
        folder = (sweep_file if isinstance(result, SweepResult) else results_file)(self.home, result.run).parent
        with parent_files(result, folder) as files:
            self._runs.upload(identifier, content.shown.tables, files)

    def end_dead(self, parent: str, dead: Callable[[Owner], bool]) -> list[str]:
        """End what processes that are ``dead`` left of a reproduction or sweep; returns the names of the runs that were ended.

        The children that they were logging end as killed, and they no longer count among the owners of the parent, which ends
        as well if nobody else works on it.
        """
        with self._speaking_clearly():
            above = self._family.parent(parent)
            ended = [self._family.ended(run, dead) for run in self._family.running_children(above)]
            with self._claimed(above.data.tags.get(KEY, parent), str(above.info.run_name)):
                ended.append(self._family.ended(self._family.parent(parent), dead))
        return [name for name in ended if name is not None]

    def end_abandoned(self, dead: Callable[[Owner], bool], dry_run: bool = False) -> list[str]:
        """End the runs marked as running whose owners are all ``dead``, unless ``dry_run``; returns their names."""
        ended = []
        with self._speaking_clearly():
            for experiment in self._runs.client.search_experiments(max_results=1000):
                for run in self._runs.search(experiment.experiment_id, "attributes.status = 'RUNNING'"):
                    ended.append(self._family.ended(run, dead, dry_run))
        return [name for name in ended if name is not None]

    def run_url(self, run: str) -> str | None:
        """The address of a run's page; None if MLflow is a database and not a server."""
        if not self.uri.startswith(("http://", "https://")):
            return None
        with self._speaking_clearly():
            experiment = self._runs.client.get_run(run).info.experiment_id
        address = re.sub(r"//[^/@]*@", "//", self.uri).rstrip("/")
        return f"{address}/#/experiments/{experiment}/runs/{run}"

    def command(self, parent: str) -> str | None:
        """The command line that made the run of a reproduction or sweep; None if it is unknown."""
        with self._speaking_clearly():
            found = self._family.parent(parent).data.tags.get(SOURCE)
            return None if found is None else str(found)

    def known(self, profile: str, seed: int, identity: Mapping[str, Value], name: str, kind: Kind) -> tuple[set[Known], bool]:
        """The complete children of a reproduction or sweep, and whether its own run has ended, or will by another process."""
        _, key = identified(profile, seed, identity, name, kind)
        with self._speaking_clearly():
            experiment = self._runs.client.get_experiment_by_name(f"dynconf-{profile}")
            parent = None if experiment is None else self._family.only(experiment.experiment_id, key)
            if experiment is None or parent is None:
                return set(), False
            children = self._runs.find(experiment.experiment_id, PARENT, parent.info.run_id)
            found = {
                (run.data.tags.get(SETTING, ""), run.data.tags.get(POINT, ""), recorded(run).get(name, ""))
                for run in children
                if complete(run)
                for name in (DIGEST, ARTEFACT)
            }
            return found, parent.info.status != "RUNNING" or bool(other_owners(parent))

    def _create_child(self, above: Any, child: Child, point: str, digest: str) -> str:
        inherited = {name: above.data.tags[name] for name in INHERITED if name in above.data.tags}
        tags = {  # in the order in which MLflow shows them
            PARENT: above.info.run_id,
            KIND: "setting" if child.point is None else "point",
            SETTING: child.setting,
            **({POINT: point} if point else {}),
            **child.tags,
            **inherited,
            **(colour(child.setting) if child.point is None else {}),
            **({"error": child.error[:TAG_LENGTH]} if child.error else {}),
            KEY: digest,
            RECORD: record_text({DIGEST: child.digest, ARTEFACT: child.key, **recorded(above)}),
            OWNER: str(Owner.this()),
        }
        content = Content(
            with_description(tags, child.description),
            child.shown,
            child.params,
            child.files,
            child.datasets,
            child.start,
            child.end,
        )
        return self._runs.create(above.info.experiment_id, child.name, content, "FAILED" if child.error else "FINISHED")

    @contextmanager
    def _claimed(self, digest: str, name: str) -> Iterator[None]:
        with claim(self.home, f"track-{digest[:16]}", f"logging {name}", _waiting()):
            yield

    @contextmanager
    def _speaking_clearly(self, *others: type[BaseException]) -> Iterator[None]:
        """Turn what a broken tracking server or database raises into ``TrackingUnavailable``."""
        caught = others or self._errors
        try:
            yield
        except caught as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            reason = reason if isinstance(error, OtherVersion) else reason[:LONGEST_REASON]
            raise TrackingUnavailable(
                without_password(f"MLflow at {self.uri} does not work ({reason}). The results are complete; {self._remedy}.")
            ) from None


def tracker(home: Path) -> Tracker:
    """The tracker for a home."""
    return Tracker(home)


def _waiting() -> Callable[[str], None]:
    """What to call while another process holds a claim; it raises when the patience ends."""
    start = time.monotonic()

    def call(holder: str) -> None:
        if time.monotonic() - start > (LAST_PATIENCE if interruption.interrupted() else PATIENCE):
            raise InputError(f"{holder} does not finish")

    return call
