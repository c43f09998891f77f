"""The short form of benchmarks/soak.py: a run is killed, the next one completes, and nothing of the killed one is left."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_killed_run_leaves_a_home_that_is_whole(root: Path, tmp_path: Path) -> None:
    options = ("--runs", "1", "--kill-after", "train", "--no-reference", "--home", tmp_path / "home")
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "soak.py", *options],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit codes: -9 1 times" in done.stdout and ", 0 damaged" in done.stdout
