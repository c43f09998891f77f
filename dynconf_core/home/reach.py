"""Which artefacts of a home are reached: from its results and sweeps, and from the settings as they are now.

What a published folder or a script elsewhere refers to is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import plans
from dynconf_core.experiment.settings import names
from dynconf_core.experiment.stages import Stage, stages_of
from dynconf_core.results.records import read
from dynconf_core.results.types import RunResult, SweepResult
from dynconf_core.store.manifest import Manifest

RESULTS: dict[str, type[RunResult] | type[SweepResult]] = {"results": RunResult, "sweeps": SweepResult}
"""The folders of results, and what a results.json in them holds."""


def reached(home: Path, manifests: Mapping[str, Manifest]) -> set[str]:
    """The keys of the artefacts that are reached.

    Args:
        home: the home.
        manifests: the manifests of its artefacts, by key.

    Raises:
        InputError: if a results.json cannot be read, so that what it refers to is unknown.
    """
    return named_in_results(home) | current(home, manifests)


def with_inputs(keys: Iterable[str], manifests: Mapping[str, Manifest]) -> set[str]:
    """The keys, and those of all artefacts with the content of their inputs, directly or indirectly."""
    with_content = defaultdict(set)
    for key, manifest in manifests.items():
        with_content[manifest["digest"]].add(key)
    found: set[str] = set()
    waiting = set(keys)
    while waiting:
        key = waiting.pop()
        found.add(key)
        if key in manifests:
            inputs = manifests[key]["parts"]["inputs"].values()
            waiting |= {source for digest in inputs for source in with_content[digest]} - found
    return found


def named_in_results(home: Path) -> set[str]:
    """The keys that the results and sweeps of the home name.

    Raises:
        InputError: if one of them cannot be read.
    """
    found: set[str] = set()
    for room, kind in RESULTS.items():
        for path in sorted((home / room).glob("*/results.json")):
            try:
                result: RunResult | SweepResult = read(kind, path)
            except InputError as error:
                if not path.exists():  # it has just been removed
                    continue
                raise InputError(
                    f"{error} The artefacts that it needs are therefore unknown: repair the file or remove its folder."
                ) from None
            rows = result.settings if isinstance(result, RunResult) else result.points
            found |= {key for row in rows for key in row.artefacts.values()}
    return found


def current(home: Path, manifests: Mapping[str, Manifest]) -> set[str]:
    """The keys of the artefacts that a run of some setting would find now, with seed 0 and no field changed.

    The data sets are not read: artefacts of any content of a data set count.
    """
    by_stage = defaultdict(list)
    for manifest in manifests.values():
        by_stage[manifest["parts"]["stage"]].append(manifest)
    found: set[str] = set()
    for plan in _plans():
        job = Job(plan, RunContext(home, home / "data"), "")
        digests: dict[str, set[str]] = {}
        for stage in stages_of(plan):
            usable = [one for one in _made_by(stage, job, by_stage[stage.name]) if _fits(stage, one, digests)]
            digests[stage.name] = {manifest["digest"] for manifest in usable}
            found |= {manifest["key"] for manifest in usable}
    return found


def _plans() -> Iterator[Plan]:
    for name in names():
        try:
            yield from plans(name).values()
        except InputError:  # it needs a checkpoint, or belongs to a package that does not work
            continue


def _made_by(stage: Stage, job: Job, manifests: Iterable[Manifest]) -> list[Manifest]:
    """The artefacts with the config and the code that the stage has in this job."""
    nothing = {role: Handle(name, "", "", "") for role, name in stage.inputs.items()}
    wanted = stage.key(job, nothing).parts
    return [
        manifest
        for manifest in manifests
        if manifest["parts"]["code"] == wanted["code"]
        and _without_content(manifest["parts"]["config"]) == _without_content(wanted["config"])
    ]


def _fits(stage: Stage, manifest: Manifest, digests: Mapping[str, set[str]]) -> bool:
    """Whether the artefact was made from artefacts that the job's earlier stages give."""
    inputs = manifest["parts"]["inputs"]
    return all(inputs.get(role) in digests[name] for role, name in stage.inputs.items())


def _without_content(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the digest of the data set's content."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return dict(config)
    return {**config, "data": {name: value for name, value in data.items() if name != "digest"}}
