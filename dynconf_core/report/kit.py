"""What draws the charts in a browser: Vega, Vega-Lite and Vega-Embed as one script, and the specifications of all charts.

Bundling the script takes seconds and importing Altair half of one, so both are kept in the user's cache folder, under a name
that changes with the versions of the libraries and with the charts.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.files import write_text

PACKAGES = ("altair", "vl-convert-python", "jinja2")


CHARTS = ("charts", "palette", "theme")
"""How the files begin that the specifications come from."""


@dataclass(frozen=True)
class Kit:
    """The script that draws, which defines ``vegaEmbed``, and the specifications of the charts by kind."""

    script: str
    specifications: dict[str, Any]


def kit() -> Kit:
    """The kit, from the cache if it is there.

    Raises:
        InputError: if a library that reports need is not installed.
    """
    kept = _cache() / f"charts-{_identity()}.json"
    with suppress(OSError, ValueError, TypeError):
        return Kit(**json.loads(kept.read_text(encoding="utf-8")))
    from vl_convert import javascript_bundle

    from dynconf_core.report.charts import specifications

    script = javascript_bundle()  # type: ignore[call-arg]  # its annotations demand an argument that it does not need
    found = Kit(script, specifications())
    with suppress(OSError):  # a report can do without a cache
        write_text(kept, json.dumps(vars(found)))
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynconf"


def _identity() -> str:
    """Identifies the versions of the libraries, and the source of the charts."""
    try:
        versions = [f"{name} {version(name)}" for name in PACKAGES]
    except PackageNotFoundError as error:
        raise InputError(f"A report needs {error.name}, which is not installed: `pip install 'dynconf[analysis]'`.") from None
    found = hashlib.sha256("\n".join(versions).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name.startswith(CHARTS):
            found.update(source.read_bytes())
    return found.hexdigest()[:16]
