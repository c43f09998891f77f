"""The data sets and their splits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynconf_core.data import cifar10, digits
from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import Normalisation, TensorImages, held_out
from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import STEMS

# Splits and normalisation


@pytest.mark.parametrize(("images", "calibration"), [(10, 3), (50_000, 5_000), (7, 0), (7, 7)])
def test_held_out(images: int, calibration: int) -> None:
    kept, held = held_out(images, calibration)
    assert len(held) == calibration and sorted((*kept.tolist(), *held.tolist())) == list(range(images))
    assert kept.tolist() == sorted(kept.tolist()) and held.tolist() == sorted(held.tolist())
    torch.manual_seed(calibration)
    np.random.seed(calibration)
    again = held_out(images, calibration)
    assert torch.equal(again[0], kept) and torch.equal(again[1], held)


def test_the_split_never_moves() -> None:
    """Stored here, so that calibration images stay unseen by checkpoints of an earlier version."""
    assert held_out(10, 3)[1].tolist() == [1, 5, 6]
    assert held_out(50_000, 5_000)[1][:5].tolist() == [22, 24, 25, 45, 80]


def test_normalisation_by_hand() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = Normalisation((0.5, 0.2, 0.5), (0.25, 0.1, 0.5))(pixels)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([-2, 0, 1], abs=1e-6)


# Digits


@pytest.fixture(scope="module")
def splits() -> dict[str, TensorImages]:
    return {split: digits.load(Path(), split, resolution=8, calibration=300) for split in ("train", "calibration", "test")}


def test_digits_splits(splits: dict[str, TensorImages]) -> None:
    """1000, 300 and 497 images that make up the whole set; at the original resolution, the original pixels."""
    from sklearn.datasets import load_digits

    assert {name: len(part) for name, part in splits.items()} == {"train": 1000, "calibration": 300, "test": 497}
    raw = load_digits()
    whole = sorted((image.tobytes(), int(label)) for image, label in zip(raw.images, raw.target, strict=True))
    parts = []
    for part in splits.values():
        assert part.classes == 10 and part.pixels.dtype == torch.uint8 and part.labels.dtype == torch.int64
        assert torch.equal(part.pixels[:, 0], part.pixels[:, 2])
        back = np.round(part.pixels[:, 0].numpy() / 255 * 16)
        parts += [(image.tobytes(), int(label)) for image, label in zip(back, part.labels, strict=True)]
    assert sorted(parts) == whole, "disjoint, and nothing is lost"


@pytest.mark.parametrize("file", ["found", "not found"])
def test_digits_are_those_that_scikit_learn_gives(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, whether their file lies where it is looked for or not; if it does, scikit-learn is not imported."""
    from sklearn import datasets

    expected = datasets.load_digits()
    if file == "found":
        monkeypatch.setattr(datasets, "load_digits", lambda: pytest.fail("it was asked for them"))
    else:
        monkeypatch.setattr(digits, "find_spec", lambda name: None)
    for found, wanted in zip(digits.raw(), (expected.images, expected.target), strict=True):
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


def test_digits_do_not_depend_on_any_seed(splits: dict[str, TensorImages]) -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    again = digits.load(Path("elsewhere"), "train", resolution=8, calibration=300)
    assert torch.equal(again.pixels, splits["train"].pixels) and torch.equal(again.labels, splits["train"].labels)


def test_digits_test_split_does_not_depend_on_the_calibration_size(splits: dict[str, TensorImages]) -> None:
    assert torch.equal(digits.load(Path(), "test", resolution=8, calibration=7).pixels, splits["test"].pixels)
    assert len(digits.load(Path(), "train", resolution=8, calibration=7)) == 1293


def test_digits_are_upscaled(splits: dict[str, TensorImages]) -> None:
    large = digits.load(Path(), "calibration", resolution=32, calibration=300)
    assert large.pixels.shape == (300, 3, 32, 32) and torch.equal(large.labels, splits["calibration"].labels)
    shrunk = torch.nn.functional.avg_pool2d(large.pixels.float(), 4)
    assert float((shrunk - splits["calibration"].pixels).abs().mean()) < 20
    digits.check(Path("nowhere"))
    assert digits.digest(Path()) == digits.digest(Path("elsewhere"))


def test_normalised_digits_have_unit_scale(splits: dict[str, TensorImages]) -> None:
    inputs = digits.NORMALISATION(splits["train"].pixels)
    assert abs(float(inputs.mean())) < 0.1 and float(inputs.std()) == pytest.approx(1, abs=0.15)


def test_tensor_images_batch(splits: dict[str, TensorImages]) -> None:
    part = splits["test"]
    assert torch.equal(part.batch(torch.tensor([3, 1])), part.pixels[[3, 1]])
    assert torch.equal(part.subset(torch.tensor([3, 1])).labels, part.labels[[3, 1]])
    assert len(part.to(torch.device("cpu"))) == 497


# CIFAR-10


def fake_cifar(folder: Path, per_batch: int = 4) -> dict[str, np.ndarray]:
    """Binary batches of the official layout with few images; image i of batch b has the label (i + b) % 10."""
    folder.mkdir()
    rng, written = np.random.default_rng(0), {}
    for number, name in enumerate(cifar10.BATCHES):
        rows = rng.integers(0, 256, (per_batch, 3073), dtype=np.uint8)
        rows[:, 0] = (np.arange(per_batch) + number) % 10
        rows.tofile(folder / f"{name}.bin")
        written[name] = rows
    return written


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = fake_cifar(tmp_path / cifar10.FOLDER)
    checked: list[Path] = []
    monkeypatch.setattr(cifar10, "verify_cifar10", checked.append)
    test = cifar10.load(tmp_path, "test", resolution=32, calibration=6)
    assert test.pixels.shape == (4, 3, 32, 32) and test.classes == 10
    assert test.labels.tolist() == [5, 6, 7, 8]
    # A record is the label, then the red, green and blue planes, each row by row.
    row = written["test_batch"][2]
    assert int(test.pixels[2, 1, 3, 7]) == row[1 + 1024 + 3 * 32 + 7]
    train = cifar10.load(tmp_path, "train", resolution=32, calibration=6)
    held = cifar10.load(tmp_path, "calibration", resolution=32, calibration=6)
    assert (len(train), len(held)) == (14, 6)
    both = sorted(image.numpy().tobytes() for part in (train, held) for image in part.pixels)
    assert both == sorted(rows[1:].tobytes() for name in cifar10.BATCHES[:5] for rows in written[name])
    assert train.labels.dtype == torch.int64
    assert checked == [tmp_path] * 3, "every load checks the files first"


def test_cifar10_python_batches_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import pickle

    written = fake_cifar(tmp_path / cifar10.FOLDER)
    monkeypatch.setattr(cifar10, "verify_cifar10", lambda root: None)
    binary = cifar10.load(tmp_path, "train", resolution=32, calibration=6)
    other = tmp_path / "other"
    (other / cifar10.PYTHON).mkdir(parents=True)
    sums = {}
    for name, rows in written.items():
        content = pickle.dumps({b"data": rows[:, 1:], b"labels": rows[:, 0].tolist()})
        (other / cifar10.PYTHON / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    with pytest.raises(InputError, match=r"data_batch_1 is missing or is not the official file"):
        cifar10.load(other, "train", resolution=32, calibration=6)
    monkeypatch.setattr(cifar10, "PYTHON_MD5", sums)
    read = cifar10.load(other, "train", resolution=32, calibration=6)
    assert torch.equal(read.pixels, binary.pixels) and torch.equal(read.labels, binary.labels)


def test_cifar10_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .* is missing.*dynconf data fetch cifar10"):
        cifar10.load(tmp_path, "train", resolution=32, calibration=6)
    fake_cifar(tmp_path / cifar10.FOLDER)
    with pytest.raises(InputError, match=r"data_batch_1.bin is truncated"):
        cifar10.check(tmp_path)
    with pytest.raises(InputError, match="resolution=48: CIFAR-10 is read at its own 32 pixels"):
        cifar10.load(tmp_path, "train", resolution=48, calibration=6)


def test_data_sets_by_name() -> None:
    assert DATASETS.get("digits") is digits.DIGITS
    for name in DATASETS.names():
        entry = DATASETS.get(name)
        assert 0 < entry.calibration < entry.train and entry.stem in STEMS and entry.classes > 1
    with pytest.raises(InputError, match="data set 'mnist' is unknown: choose one of digits, cifar10"):
        DATASETS.get("mnist")


def test_an_entry_describes_what_is_read(splits: dict[str, TensorImages]) -> None:
    entry = DATASETS.get("digits")
    assert len(splits["train"]) + len(splits["calibration"]) == entry.train and len(splits["test"]) == entry.test
    assert len(splits["calibration"]) == entry.calibration
    assert all(part.classes == entry.classes and part.normalisation == entry.normalisation for part in splits.values())


def test_torchvision_imports() -> None:
    from dynconf_core.libraries import torchvision, transforms

    assert torchvision().__name__ == "torchvision" and torchvision() is torchvision()
    make: Callable[..., Any] = transforms().AutoAugment
    assert make is not None
