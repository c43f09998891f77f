"""The examples: each trains a small network for real and writes traces that hold what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from processes import script

from dynconf_core.traces.duplicates import duplicates
from dynconf_core.traces.schema import Traces

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# The library that each needs, the epochs and time steps of a short run, and the neurons that it names.
WRITERS = {
    "plain_step_function": ("sklearn", 8, 12, 128),
    "spikingjelly_digits": ("spikingjelly", 4, 6, 256),
    "snntorch_digits": ("snntorch", 4, 8, 138),
    "sinabs_digits": ("sinabs", 6, 12, 256),
}


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the examples train, correct and test on."""
    spec = importlib.util.spec_from_file_location("example_digits", EXAMPLES / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {split: module.load(split) for split in module.SPLITS}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*WRITERS, "digits", "own_network", "own_measure", "moving_digits"}


def test_the_splits_are_disjoint_and_whole() -> None:
    images = [image.tobytes() for part, _ in splits().values() for image in part]
    assert len(images) == len(set(images)) == 1797


@pytest.mark.parametrize("name", WRITERS)
def test_example(name: str, tmp_path: Path) -> None:
    library, epochs, time_steps, neurons = WRITERS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install {library}")
    words = ("--epochs", str(epochs), "--time-steps", str(time_steps), "--out", str(tmp_path / "new"))
    done = script(EXAMPLES / f"{name}.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths = {split: tmp_path / "new" / f"{split}.npz" for split in ("calibration", "test")}
    assert f"dynconf analyse {paths['calibration']} --test {paths['test']}" in done.stdout
    assert {entry.name for entry in (tmp_path / "new").iterdir()} == {"calibration.npz", "test.npz"}
    traces = {split: Traces.load(path) for split, path in paths.items()}
    for split, (_, labels) in splits().items():
        if split != "train":
            assert traces[split].labels.tolist() == labels.tolist()
            assert (traces[split].time_steps, traces[split].classes) == (time_steps, 10)
    assert duplicates(traces["calibration"], traces["test"]).shared == 0
    test = traces["test"]
    assert test.trained_on_calibration is False and test.meta["neurons"] == neurons
    assert test.spikes is not None and 0 < test.spikes.mean() < 4 * neurons

    printed = re.search(r"test accuracy after \d+ time steps: ([\d.]+)%", done.stdout)
    accuracy = test.correct().mean(axis=0)
    assert printed is not None and float(printed[1]) == pytest.approx(100 * accuracy[-1], abs=0.006)
    assert accuracy[-1] > 0.9
    assert accuracy[-1] > accuracy[0] + 0.05, "nothing is gained by waiting: the running sum was written?"


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """From plain PyTorch to an SNN that stops; the live run and the traces agree by an assertion of the example's own."""
    words = ("--epochs", "4", "--out", str(tmp_path))
    done = script(EXAMPLES / "own_network.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    full, early, steps = (float(text) for text in re.findall(r"([\d.]+)(?:%| on average)", done.stdout.splitlines()[-2]))
    assert full > 85 and early > full - 10 and 1 <= steps < 16
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.npz", "test.npz"}
    assert Traces.load(tmp_path / "test.npz").samples == 497


def test_moving_digits(tmp_path: Path) -> None:
    """Event frames of recordings that differ in length; the exit takes a part of each, live as on traces."""
    done = script(EXAMPLES / "moving_digits.py", "--epochs", "5", "--out", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ann, full, length, early, steps = (float(text) for text in re.findall(r"([\d.]+)(?:%| time steps)", done.stdout)[:5])
    assert ann > 70 and abs(full - ann) < 6 and early > full - 4 and steps < 0.8 * length
    traces = Traces.load(tmp_path / "test.npz")
    assert traces.samples == 497 and traces.meta["multiply_accumulates"]["once"] == 0
    assert traces.ends.mean() == pytest.approx(length, abs=0.006) and {*traces.ends.tolist()} == {*range(12, 25)}
    assert full == pytest.approx(100 * traces.correct()[:, -1].mean(), abs=0.006)
    assert traces.correct()[:, 11].mean() > traces.correct()[:, 0].mean() + 0.3, "nothing is gained by waiting for more events"
