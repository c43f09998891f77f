"""Messages between a run and the processes of its settings: pickled, each after its length, through two pipes.

Nothing else is written to these pipes: what a process prints goes elsewhere.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a process listens to its messages before it imports anything else
    from pathlib import Path
    from uuid import UUID

    from dynconf_core.experiment.job import Handle, RunContext
    from dynconf_core.experiment.plan import Plan
    from dynconf_core.schemes.field import Value

LENGTH = struct.Struct(">Q")
CHUNK = 1 << 16


@dataclass(frozen=True)
class Assignment:
    """A setting to run.

    Attributes:
        plan, context, checkpoint, identity: see ``dynconf_flows.setting.run_setting``.
        parent: the MLflow run below which it is logged; None does not log it.
        point: the values of the swept fields, if it is a point of a sweep.
    """

    plan: Plan
    context: RunContext
    checkpoint: Path | None
    identity: Mapping[str, Value]
    parent: str | None
    point: Mapping[str, Value] | None = None

    @property
    def name(self) -> str:
        """What it is called where its progress is shown: its setting, and the values of the swept fields."""
        from dynconf_core.schemes.field import as_written

        return " ".join([self.plan.setting, *(f"{name}={as_written(value)}" for name, value in (self.point or {}).items())])


@dataclass(frozen=True)
class Welcome:
    """The first message to a process: where its modules lie, and whether Prefect's log is shown."""

    path: list[str]
    debug: bool


@dataclass(frozen=True)
class Order:
    """To a process: run a setting as a subflow of the flow run in ``prefect``."""

    assignment: Assignment
    prefect: Mapping[str, Any]


@dataclass(frozen=True)
class Began:
    """From a process: the setting's flow run in Prefect has started."""

    flow_run: UUID


@dataclass(frozen=True)
class Started:
    """From a process: a stage has started."""

    stage: str


@dataclass(frozen=True)
class Progressed:
    """From a process: ``done`` of ``total`` parts of a stage are done."""

    stage: str
    done: int
    total: int
    text: str


@dataclass(frozen=True)
class Waiting:
    """From a process: a stage waits for another process."""

    stage: str
    text: str


@dataclass(frozen=True)
class Finished:
    """From a process: a stage has ended; see ``Listener.finished``."""

    stage: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class Made:
    """From a process: a stage's artefact."""

    handle: Handle


@dataclass(frozen=True)
class Logged:
    """From a process: a line of its log that users should see."""

    name: str
    level: int
    text: str


@dataclass(frozen=True)
class Ended:
    """From a process: the setting has ended; ``run`` is its ``SettingRun``."""

    run: Any


class Channel:
    """Sends and receives messages through two file descriptors, which it closes."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self._sending = threading.Lock()
        self._received = b""

    def send(self, message: object) -> None:
        """Send a message, from any thread.

        Raises:
            OSError: if the other side is gone.
        """
        import cloudpickle  # comes with Prefect; pickles classes of a script too

        content = cloudpickle.dumps(message)
        with self._sending:
            whole = memoryview(LENGTH.pack(len(content)) + content)
            while whole:
                whole = whole[os.write(self.outgoing, whole) :]

    def receive(self) -> list[bytes]:
        """Wait for something to arrive; returns the complete messages, for ``pickle.loads``.

        Raises:
            EOFError: if the other side is gone.
        """
        arrived = os.read(self.incoming, CHUNK)
        if not arrived:
            raise EOFError
        self._received += arrived
        found = []
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                break
            found.append(self._received[LENGTH.size : end])
            self._received = self._received[end:]
        return found

    def close(self) -> None:
        """Close both descriptors."""
        for descriptor in (self.incoming, self.outgoing):
            os.close(descriptor)


def loads(content: bytes) -> Any:
    """The message that ``content`` holds; only for what one of our own processes sent."""
    return pickle.loads(content)
