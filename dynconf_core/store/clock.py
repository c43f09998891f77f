"""The clock of a file system, which all machines that share it can compare with the times of its files.

Their own clocks may be hours apart.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path


def now(folder: Path) -> float:
    """The time at which a file that is written into ``folder`` now is changed, in seconds since 1970.

    In a folder that cannot be written it is the time of this machine.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clock-") as probe:
            os.write(probe.fileno(), b"\0")
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()
