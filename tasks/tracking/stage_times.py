"""When the stages of a setting were made, by whichever run made them, from the manifests of their artefacts."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from dynconf_core.store.artefacts import Artefact, Store


@dataclass(frozen=True)
class StageTime:
    """The making of a stage's artefact.

    Attributes:
        stage: the name of the stage.
        seconds: how long it took.
        start, end: in milliseconds since 1970, as MLflow has them.
    """

    stage: str
    seconds: float
    start: int
    end: int


def stage_times(artefacts: Mapping[str, str], store: Store) -> tuple[StageTime, ...]:
    """The times of the stages whose artefacts (keys by stage) the store still holds, in the order of ``artefacts``.

    An artefact adopted from other code or another store counts with the time of its first making, if that is known.
    """
    found = []
    for stage, key in artefacts.items():
        with suppress(ValueError):  # not a key
            artefact = store.listed(key)
            time = None if artefact is None else _time(stage, artefact)
            if time is not None:
                found.append(time)
    return tuple(found)


def _time(stage: str, artefact: Artefact) -> StageTime | None:
    provenance = artefact.manifest["provenance"]
    adopted = provenance.get("adopted")
    made = adopted[0].get("made") if adopted else artefact.manifest["created"]
    seconds = provenance.get("seconds")
    if made is None or not isinstance(seconds, int | float):
        return None
    end = datetime.fromisoformat(made).timestamp()
    return StageTime(stage, float(seconds), int(1000 * (end - seconds)), int(1000 * end))
