"""Whether locks on files of a home reach the other machines that mount it."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LOCAL = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=flock"),
    "lustre": ("localflock", "noflock"),
}
"""Options by which a file system keeps locks to the machine that takes them."""
NEEDED = {"lustre": "flock"}
"""An option without which a file system has no locks at all."""


def local_locks(home: Path, mounts: Path = MOUNTS) -> str | None:
    """Why locks in the home do not reach other machines, such as "NFS mounted with nolock".

    Returns:
        None if they do, as far as the mount's options tell.
    """
    try:
        at = os.stat(home).st_dev
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        mount, _, system = line.partition(" - ")
        device, kind, options = mount.split()[2:3], *_kind_and_options(system)
        if device == [f"{os.major(at)}:{os.minor(at)}"] and kind in LOCAL:
            name = "Lustre" if kind == "lustre" else "NFS"
            found = next((option for option in LOCAL[kind] if option in options), None)
            if found is not None:
                return f"{name} mounted with {found}"
            if NEEDED.get(kind, "") not in ("", *options):
                return f"{name} mounted without {NEEDED[kind]}"
    return None


def _kind_and_options(system: str) -> tuple[str, list[str]]:
    """From ``TYPE SOURCE OPTIONS``."""
    kind, _, rest = system.partition(" ")
    return kind, rest.rpartition(" ")[2].split(",")
