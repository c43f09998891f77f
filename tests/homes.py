"""Homes for tests: artefacts of a setting's stages with tiny files, and processes that run in a home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.stages import STAGES
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.keys import StageKey, stage_key
from dynconf_core.store.manifest import MANIFEST

VGG = "cifar10-vgg16-qffs"
HOUR, DAY = 3600.0, 86400.0


def put(home: Path, key: StageKey, text: str = "content") -> Artefact:
    """An artefact of this key with one small file."""
    with (new := Store(home / "artefacts").create(key, {})) as folder:
        (folder / "file").write_text(text)
    return new.created


def odd(home: Path, stage: str, number: int, inputs: Mapping[str, str] | None = None) -> Artefact:
    """An artefact that belongs to no setting."""
    return put(home, stage_key(stage, {"number": number}, inputs or {}, "c0de"), f"{stage} {number}")


def chain(home: Path, code: str | None = None, data: str = "digest") -> dict[str, Artefact]:
    """The artefacts of a setting with its default values, of the code as it is or of other code, by stage."""
    job = Job(resolve(VGG, "smoke"), RunContext(home, home / "data"), data)
    made: dict[str, Artefact] = {}
    for stage in STAGES:
        inputs = {role: handle(made[name]) for role, name in stage.inputs.items()}
        key = stage.key(job, inputs)
        if code is not None:
            key = stage_key(stage.name, key.parts["config"], key.parts["inputs"], code)
        made[stage.name] = put(home, key, f"{stage.name} {code}")
    return made


def handle(made: Artefact) -> Handle:
    """The handle of an artefact."""
    return Handle(made.stage, made.key, made.digest, "cached")


def used(made: Artefact, days: float) -> None:
    """Let the artefact have been used last so many days ago."""
    aged(made.folder / MANIFEST, days)


def aged(path: Path, days: float) -> None:
    """Let a file or folder have been changed last so many days ago."""
    os.utime(path, (time.time() - days * DAY,) * 2, follow_symlinks=False)


@contextmanager
def process(code: str, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code until it has printed a line, and then waits to be killed."""
    command = [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\nimport time\ntime.sleep(600)"]
    with subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


RUNNING = """
import sys
from contextlib import ExitStack
from pathlib import Path
from dynconf_core.home.running import running
stack = ExitStack()
stack.enter_context(running(Path(sys.argv[1]), "reproduce of a test"))
"""
"""A process that is shown as running in the home."""
CLAIMING = """
import sys
from contextlib import ExitStack
from pathlib import Path
from dynconf_core.store.claim import claim
stack = ExitStack()
stack.enter_context(claim(Path(sys.argv[1]), sys.argv[2], "train of a test"))
"""
"""A process that holds a claim."""
