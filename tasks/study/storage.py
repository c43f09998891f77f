"""Where Optuna keeps the studies that participants share: in PostgreSQL, or in a journal file a study in the home.

The database, named by ``DYNCONF_STORAGE``, holds heartbeats of the running trials. A journal needs none: its participants see
from each other's claims who still runs. All writers of a study hold its claim.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import seconds
from dynconf_core.store.claim import claim
from dynconf_core.store.identity import identity, known
from dynconf_core.store.storage import check_storage, for_sqlalchemy, shown, storage_url
from dynconf_tasks.study.points import Objective

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

FOLDER = "studies"
HOME_MARK = " · home "
"""Between a study's name and its home's identity, in a database."""
LONGEST = 200
HEARTBEAT, GRACE = "DYNCONF_HEARTBEAT", "DYNCONF_GRACE"
Died = Callable[["Study", "FrozenTrial"], None]
_log = logging.getLogger(__name__)


def heartbeat() -> tuple[int, int]:
    """Seconds between two heartbeats of a participant, and seconds of silence after which it counts as dead.

    Raises:
        InputError: if the environment gives something else than durations, or less grace than three heartbeats.
    """
    every = int(seconds(os.environ.get(HEARTBEAT) or "60s", HEARTBEAT))
    grace = int(seconds(os.environ.get(GRACE) or "5m", GRACE))
    if every < 1:
        raise InputError(f"{HEARTBEAT}={os.environ[HEARTBEAT]}: give at least 1s.")
    if grace < 3 * every:
        raise InputError(f"{GRACE}={grace}s is less than three heartbeats of {every} s: give more, or set {HEARTBEAT} lower.")
    return every, grace


def title(*parts: str) -> str:
    """The name of a study as people read it, such as "cifar10-resnet18-qcfs · max_softmax · smoke · 1a2b3c4d"."""
    return " · ".join(parts)


def some(names: Sequence[str]) -> str:
    """One name, or how many there are."""
    return names[0] if len(names) == 1 else f"{len(names)} settings"


def file_name(name: str) -> str:
    """A study's name as that of a file, such as "cifar10-resnet18-qcfs-max_softmax-smoke-1a2b3c4d"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name)[:LONGEST].strip("-.")


def journal(home: Path, name: str) -> Path:
    """The journal file of a study."""
    return home / FOLDER / f"{file_name(name)}.journal"


def study_name(home: Path, name: str) -> str:
    """What a study is called in its storage; in a database, which many homes may share, the home's identity is part of it."""
    return name if storage_url() is None else f"{name}{HOME_MARK}{identity(home)[:12]}"


def studies(home: Path) -> Iterator[tuple[str, Study]]:
    """The studies of a home, each with its name; damaged journals are left alone."""
    import optuna

    if storage_url() is not None:
        own = known(home)
        end = f"{HOME_MARK}{(own or '')[:12]}"
        storage = open_storage(home, "", lambda study, trial: None)
        for name in optuna.get_all_study_names(storage) if own else ():
            if name.endswith(end):
                yield name.removesuffix(end), optuna.load_study(study_name=name, storage=storage)
        return
    for path in sorted((home / FOLDER).glob("*.journal")):
        with suppress(Exception):  # whatever Optuna makes of a line that it did not write
            storage = open_file(path)
            for name in optuna.get_all_study_names(storage):
                yield name, optuna.load_study(study_name=name, storage=storage)


def created(name: str, storage: BaseStorage, objectives: Sequence[Objective], sampler: BaseSampler | None = None) -> Study:
    """A new study whose objectives have names."""
    import optuna

    study = optuna.create_study(
        study_name=name, storage=storage, directions=[one.direction for one in objectives], sampler=sampler
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([one.name for one in objectives])
    return study


def open_storage(home: Path, name: str, died: Died) -> BaseStorage:
    """The storage of the study ``name``; the caller holds the study's claim.

    Args:
        home: the home.
        name: the study's name.
        died: called with a trial that has had no heartbeat for too long, once it is marked as failed; for a database alone.

    Raises:
        InputError: if the database cannot be used, or the journal not written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url()
    return _database(home, url, died) if url is not None else _journal(journal(home, name))


def _database(home: Path, url: str, died: Died) -> BaseStorage:
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    check_storage()
    every, grace = heartbeat()
    # What is experimental in Optuna has pinned tests here; its warning on heartbeats is for those who send none themselves.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")
    engine: dict[str, Any] = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    try:
        with claim(home, "optuna-tables", "making Optuna's tables"):
            return RDBStorage(
                for_sqlalchemy(url),
                engine_kwargs=engine,
                heartbeat_interval=every,
                grace_period=grace,
                heartbeat_stale_trial_callback=died,
            )
    except (SQLAlchemyError, RuntimeError) as error:
        reason = " ".join(str(error).split("\n")[0].split())[:200]
        raise InputError(
            f"the storage {shown(url)} does not hold Optuna's tables ({type(error).__name__}: {reason})."
        ) from None


def _journal(path: Path) -> BaseStorage:
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open_file(path)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error}): name another home.") from error
        except Exception as error:  # whatever Optuna makes of a line that it did not write
            aside = path.with_name(f"{path.name}.damaged")
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning("%s is damaged (%s): set aside as %s, and begun anew.", path, reason, aside)
            path.replace(aside)
    raise InputError(f"{path} cannot be used: move it away.")


def open_file(path: Path) -> BaseStorage:
    """A journal, of which the caller holds a claim."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(str(path), cast(Any, _Claimed())))


class _Claimed:
    """No lock of the journal file, since all its writers hold the claim of its study."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None
