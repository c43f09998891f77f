"""Training, conversion and collection give the bits that they gave when ``golden/digests.json`` was written.

Where the test fails, the change alters results: finished stages must become stale, and ``python tests/golden_run.py --write``
records the new digests. Where it passes after a change to a stage's code, a release may declare the old code equal (see
``dynconf_core.experiment.equal_code``).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_run import GOLDEN


def test_results_are_those_recorded(root: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    version = torch.__version__.partition("+")[0]
    if version != golden["torch"] or platform.machine() != "x86_64":
        pytest.skip(f"the digests are those of torch {golden['torch']} on x86-64, not of {version} on {platform.machine()}")
    words = [sys.executable, str(Path(__file__).parent / "golden_run.py")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
    found = json.loads(done.stdout)["digests"]
    changed = [name for name, digest in golden["digests"].items() if found[name] != digest]
    assert not changed, (
        f"this change alters the bits of {', '.join(changed)}. If that is intended, write the new digests with "
        "`python tests/golden_run.py --write`, and say so in the changelog."
    )
    assert set(found) == set(golden["digests"])
