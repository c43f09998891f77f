"""Which of a setting's stages are in the store, and for one that is not, which part of its key has no match.

A stage's key names the content of its inputs, so stages are asked in the order of the data, as far as they are there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynconf_core.data.load import data_set
from dynconf_core.experiment.request import Request, check_checkpoints, check_data, data_folder, home_folder
from dynconf_core.experiment.settings import paper_time_steps
from dynconf_core.results.rows import STAGES
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import StageKey
from dynconf_tasks import collect, convert, evaluate, search, train
from dynconf_tasks.stage import Handle, Stage, Workplace


def finished(request: Request) -> dict[str, Handle]:
    """The stages of the request's one setting that are in the store, by name."""
    done, _ = _followed(request)
    return done


def explained(request: Request) -> list[dict[str, str]]:
    """For each stage: its name, "hit" or "miss", and why."""
    done, keys = _followed(request)
    store = Store(home_folder(request.home) / "artefacts")
    lines = []
    for name in STAGES:
        if name in done:
            lines.append({"stage": name, "outcome": "hit", "reason": f"artefact {done[name].key[:12]}"})
        elif name not in keys:
            lines.append({"stage": name, "outcome": "miss", "reason": "a stage before it must run first"})
        else:
            lines.append({"stage": name, "outcome": "miss", "reason": _difference(keys[name], store)})
    return lines


def _followed(request: Request) -> tuple[dict[str, Handle], dict[str, StageKey]]:
    """Finished stages, and the keys of all stages whose inputs are finished."""
    (plan,) = request.plans()
    check_checkpoints([plan], request.checkpoints)
    home = home_folder(request.home)
    work = Workplace(home, data_folder(request.data, home), request.device, request.memory_share())
    check_data([plan], work.data)
    digest = data_set(plan.data.name).digest(work.data)
    paper = paper_time_steps(plan.setting)
    given = request.checkpoints.get(plan.setting)
    done: dict[str, Handle] = {}
    stages: Mapping[str, Callable[[], Stage]] = {
        "train": lambda: train.stage(plan, digest, Path(given) if given else None),
        "convert": lambda: convert.stage(plan, done["train"]),
        "collect_calibration": lambda: collect.stage(plan, work, digest, "calibration", done["train"], done["convert"]),
        "collect_test": lambda: collect.stage(plan, work, digest, "test", done["train"], done["convert"]),
        "search": lambda: search.stage(plan, done["collect_calibration"]),
        "evaluate": lambda: evaluate.stage(plan, paper, done["search"], done["collect_calibration"], done["collect_test"]),
    }
    keys: dict[str, StageKey] = {}
    for name in STAGES:
        try:
            key = keys[name] = stages[name]().key()
        except KeyError:  # an input is not finished
            continue
        found = work.store.get(key)
        if found is not None:
            done[name] = Handle(found.stage, found.key, found.digest, found.folder, "cached")
    return done, keys


def _difference(key: StageKey, store: Store) -> str:
    """How the key differs from the nearest artefact of its stage."""
    others = [manifest["parts"] for manifest in store.manifests(key.stage)]
    if not others:
        return "the store holds no artefact of this stage"
    wanted = _flat(key.parts)
    differences = [_unequal(wanted, _flat(parts)) for parts in others]
    nearest = min(differences, key=len)
    if not nearest:
        return "its artefact is damaged"
    return "differs from the nearest artefact in " + ", ".join(nearest)


def _unequal(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = [name for name in dict.fromkeys((*wanted, *found)) if wanted.get(name) != found.get(name)]
    return [f"{name} ({_short(found.get(name))} there, {_short(wanted.get(name))} now)" for name in names]


def _flat(parts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text
