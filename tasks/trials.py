"""The finished trials of a search that has not ended: written after each, replayed after an interruption."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dynconf_core.files import set_aside, written
from dynconf_core.store.keys import key_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """The parameters that were tried, by name, and the two objectives: accuracy and mean steps."""

    params: Mapping[str, str | float]
    values: Sequence[float]


def read_trials(path: Path) -> dict[str, list[Trial]]:
    """The trials in a file by measure; none if there is no file. A damaged file is renamed, with a warning."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
        if key_of(content["trials"]) != content["checksum"]:
            raise ValueError("it does not have the checksum it was written with")
        return {measure: [Trial(**one) for one in trials] for measure, trials in content["trials"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        aside = set_aside(path)
        logger.warning("%s is damaged (%s). It is now called %s, and the search starts afresh.", path, error, aside.name)
        return {}


def write_trials(path: Path, trials: Mapping[str, Sequence[Trial]]) -> None:
    """Replace the file at once, so that it holds all trials whenever the process dies; floats are exact."""
    plain = {measure: [asdict(trial) for trial in found] for measure, found in trials.items()}
    with written(path) as file:
        file.write(json.dumps({"trials": plain, "checksum": key_of(plain)}, allow_nan=False).encode("ascii"))
