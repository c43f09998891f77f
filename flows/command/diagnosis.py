"""What ``dynconf doctor`` looks at: versions, hardware, the home, servers, data sets and optional packages, each a finding."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from dynconf_core.data.dataset import DATASETS
from dynconf_core.errors import InputError
from dynconf_core.experiment.request import ROOMS, check_folder
from dynconf_core.home.sizes import size_text
from dynconf_core.home.state import state_of
from dynconf_core.results.environment import environment
from dynconf_core.store.storage import STORAGE, check_storage, storage_url
from dynconf_flows.command.places import quoted
from dynconf_tasks.answering import NoCertificate, answer, without_password
from dynconf_tasks.databases import damage

State = Literal["ok", "note", "broken"]
"""Of a finding: in order; worth knowing; dynconf cannot work so."""
LITTLE_SPACE, LITTLE_MEMORY = 2 * 10**9, 2 * 10**9
"""Free bytes below which a run may fail."""
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}
"""What of a processor's features decides how fast a simulation is, by its name in /proc/cpuinfo."""
NECESSARY = ("analysis", "pipeline")
"""The extras without which commands do not work."""
EXTRAS = {"cluster": "PostgreSQL (DYNCONF_STORAGE)", "dask": "a Dask cluster (--dask)", "kubernetes": "workers on Kubernetes"}
"""The others, and what each is for."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: see ``State``.
        text: what was found.
        remedy: what to do about it; "" if nothing is to be done.
    """

    name: str
    state: State
    text: str
    remedy: str = ""


def findings(home: Path, data: Path) -> Iterator[Finding]:
    """All findings, one after the other; none of them raises."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _hardware,
        lambda: _home(home),
        lambda: _space(home),
        _prefect,
        lambda: _mlflow(home),
        _storage,
        lambda: _data(data),
        _packages,
    ]
    for look in looks:
        try:
            yield from look()
        except Exception as error:  # a diagnosis goes on, whatever is broken
            yield Finding(getattr(look, "__name__", "look").strip("_"), "broken", f"{type(error).__name__}: {error}")


def _versions() -> Iterator[Finding]:
    found = environment()
    commit = f", commit {found.commit}" if found.commit else ""
    yield Finding("dynconf", "ok", f"{found.versions.get('dynconf', 'unknown')}{commit}")
    yield Finding("Python", "ok", f"{found.python} on {found.platform}")
    others = {name: number for name, number in found.versions.items() if name != "dynconf"}
    yield Finding("libraries", "ok", ", ".join(f"{name} {number}" for name, number in others.items()))


def _hardware() -> Iterator[Finding]:
    import torch

    found = environment()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else found.cores
    cores = f"{usable} of {found.cores} cores" if usable != found.cores else f"{found.cores} cores"
    flags = _flags()
    features = ", ".join(text for name, text in FEATURES.items() if name in flags) or "features unknown"
    uses = f"torch uses {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    yield Finding("processor", "ok", f"{found.cpu}, {cores}; {features}; {uses}")
    if not torch.backends.mkldnn.is_available():
        yield Finding("oneDNN", "note", "torch lacks it: simulations on the CPU are slower, with the same results")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        yield Finding("GPU", "ok", ", ".join(f"{one.name}, {size_text(one.total_memory)}" for one in names))
    elif shutil.which("nvidia-smi"):
        remedy = "install a build of torch for CUDA, or a driver that fits it"
        yield Finding("GPU", "note", f"torch {torch.__version__} does not see the GPU of this machine", remedy)
    else:
        yield Finding("GPU", "ok", "none: everything runs on the CPU")


def _flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def _home(home: Path) -> Iterator[Finding]:
    wrong = [home / room for room in ("", *ROOMS) if (home / room).exists() and not (home / room).is_dir()]
    if wrong:
        yield Finding("home", "broken", f"{wrong[0]} is a file", "move it away, or name another home with --home")
        return
    try:
        check_folder(home, "--home")
    except InputError as error:
        yield Finding("home", "broken", str(error))
        return
    if not home.is_dir():
        yield Finding("home", "ok", f"{home} (the first run makes it)")
        return
    found = state_of(home)
    running = sum(state == "running" for _, state in found.runs)
    stale = sum(state == "ended" for _, state in (*found.runs, *found.claims))
    text = f"{home}, {size_text(sum(found.sizes.values()))} without data sets, {running} running"
    if stale:
        yield Finding("home", "note", f"{text}, {stale} stale", f"dynconf reconcile --home {quoted(home)}")
    else:
        yield Finding("home", "ok", text)
    if found.local_locks is not None:
        remedy = f"use it from one machine at a time, or set {STORAGE}"
        yield Finding("locks", "note", f"locks in the home do not reach other machines ({found.local_locks})", remedy)


def _space(home: Path) -> Iterator[Finding]:
    nearest = home
    while not nearest.exists():
        nearest = nearest.parent
    free = shutil.disk_usage(nearest).free
    remedy = "free some, or name another home" if free < LITTLE_SPACE else ""
    yield Finding("free space", "note" if remedy else "ok", f"{size_text(free)} at {nearest}", remedy)
    available = _available_memory()
    if available is not None:
        remedy = "end other programs, or give --memory and --workers 1" if available < LITTLE_MEMORY else ""
        yield Finding("free memory", "note" if remedy else "ok", size_text(available), remedy)


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _prefect() -> Iterator[Finding]:
    from dynconf_flows.command.server import check_api

    address = os.environ.get("PREFECT_API_URL")
    if not address:
        yield Finding("Prefect", "ok", "PREFECT_API_URL is not set: each run starts a server of its own")
        return
    try:
        check_api(address)
        yield Finding("Prefect", "ok", f"the server at {without_password(address)} answers")
    except InputError as error:
        yield Finding("Prefect", "broken", str(error))


def _mlflow(home: Path) -> Iterator[Finding]:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        yield from _database(home / "mlflow.db")
        return
    told = without_password(uri)
    if not uri.startswith(("http://", "https://")):
        yield Finding("MLflow", "ok", f"MLFLOW_TRACKING_URI is {told}")
        return
    remedy = "start that server, correct MLFLOW_TRACKING_URI, or unset it to log into the home"
    try:
        status, _ = answer(f"{uri.rstrip('/')}/health")
        good = status in (200, 401, 403)
        said = f"the server at {told} answers" if good else f"what answers at {told} is not MLflow (status {status})"
        yield Finding("MLflow", "ok" if good else "broken", said, "" if good else remedy)
    except NoCertificate:
        yield Finding("MLflow", "note", f"the certificate of {told} cannot be checked here; MLflow may be able to")
    except OSError as error:
        yield Finding("MLflow", "broken", f"nothing answers at {told} ({without_password(str(error))})", remedy)


def _database(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding("MLflow", "ok", f"{path} (the first run makes it)")
        return
    try:
        fault = damage(path, ("experiments", "runs"))
    except sqlite3.Error as error:
        fault = str(error)
    if fault:
        yield Finding("MLflow", "note", f"{path} is damaged ({fault})", "the next run sets it aside; then dynconf resend")
    else:
        yield Finding("MLflow", "ok", f"{path}, {size_text(path.stat().st_size)}")


def _storage() -> Iterator[Finding]:
    url = storage_url()
    if url is None:
        yield Finding("storage", "ok", f"{STORAGE} is not set: claims and studies are files of the home")
        return
    try:
        check_storage()
        yield Finding("storage", "ok", f"{without_password(url)} answers")
    except InputError as error:
        yield Finding("storage", "broken", without_password(str(error)))


def _data(data: Path) -> Iterator[Finding]:
    there: list[str] = []
    included: list[str] = []
    missing: list[str] = []
    for name in DATASETS.names():
        try:
            one = DATASETS.get(name)
            one.check(data)
            (there if one.downloaded else included).append(name)
        except (InputError, OSError):
            missing.append(name)
    text = f"{', '.join(there) or 'none'} found in {data}"
    text += "".join(f"; {name} {'come with scikit-learn' if name == 'digits' else 'needs no files there'}" for name in included)
    text += f"; not {', '.join(missing)}" if missing else ""
    state: State = "ok" if there or included else "broken"
    yield Finding("data sets", state, text, "dynconf data fetch cifar10" if "cifar10" in missing else "")


def _packages() -> Iterator[Finding]:
    for extra in (*NECESSARY, *EXTRAS):
        missing = _missing(extra)
        if not missing:
            continue
        state: State = "broken" if extra in NECESSARY else "note"
        purpose = f", for {EXTRAS[extra]}" if extra in EXTRAS else ""
        yield Finding(
            f"extra {extra}", state, f"not installed: {', '.join(missing)}{purpose}", f"pip install 'dynconf[{extra}]'"
        )


def _missing(extra: str) -> list[str]:
    """The packages that an extra asks for itself and that are not installed, or not in a version that it accepts."""
    from packaging.requirements import Requirement

    found = []
    for text in requires("dynconf") or ():
        wanted = Requirement(text)
        if wanted.name == "dynconf" or wanted.marker is None:
            continue
        if not wanted.marker.evaluate({"extra": extra}) or wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            found.append(wanted.name)
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            found.append(f"{wanted.name} {there} instead of {wanted.specifier}")
    return found


def healthy(found: list[Finding]) -> bool:
    """Whether dynconf can work."""
    return all(one.state != "broken" for one in found)
