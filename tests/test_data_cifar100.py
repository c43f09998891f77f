"""CIFAR-100, on made-up files of the official layout: reading, checking, fetching, and its settings."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dynconf_core.data import cifar100
from dynconf_core.data.cifar100 import CIFAR100, FOLDER
from dynconf_core.data.class_names import class_names
from dynconf_core.data.fetch_cifar100 import ARCHIVE, fetch_cifar100
from dynconf_core.errors import InputError
from dynconf_core.experiment.profiles import PROFILES, resolve
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.settings import FURTHER, SETTINGS

PER_CLASS = {"train": 3, "test": 2}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100, "PER_CLASS", PER_CLASS)


def records(name: str) -> NDArray[np.uint8]:
    """Superclass, class, pixels: class c is in superclass c % 20."""
    random = np.random.default_rng(len(name))
    rows = random.integers(0, 256, (100 * PER_CLASS[name], 3074), dtype=np.uint8)
    rows[:, 1] = random.permutation(np.repeat(np.arange(100), PER_CLASS[name]))
    rows[:, 0] = rows[:, 1] % 20
    return rows


def written(root: Path) -> dict[str, NDArray[np.uint8]]:
    (root / FOLDER).mkdir(parents=True)
    made = {name: records(name) for name in PER_CLASS}
    for name, rows in made.items():
        rows.tofile(root / FOLDER / f"{name}.bin")
    return made


def test_records_are_read_with_the_fine_label(tmp_path: Path) -> None:
    made = written(tmp_path)
    test = cifar100.load(tmp_path, "test", resolution=32, calibration=50)
    assert test.pixels.shape == (200, 3, 32, 32) and test.classes == 100 and test.labels.dtype == torch.int64
    assert test.labels.tolist() == made["test"][:, 1].tolist()
    assert int(test.pixels[7, 1, 3, 9]) == made["test"][7, 2 + 1024 + 3 * 32 + 9]
    train = cifar100.load(tmp_path, "train", resolution=32, calibration=50)
    held = cifar100.load(tmp_path, "calibration", resolution=32, calibration=50)
    assert (len(train), len(held)) == (250, 50)
    both = sorted(image.numpy().tobytes() for part in (train, held) for image in part.pixels)
    assert both == sorted(row[2:].tobytes() for row in made["train"])


def test_what_is_not_cifar100_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .* is missing\. Run `dynconf data fetch cifar100`"):
        cifar100.check(tmp_path)
    made = written(tmp_path)
    cifar100.check(tmp_path)
    file = tmp_path / FOLDER / "train.bin"
    with pytest.raises(InputError, match="resolution=48: CIFAR-100 is read at its own 32 pixels"):
        cifar100.load(tmp_path, "train", resolution=48, calibration=50)

    def changed(row: int, column: int, value: int) -> None:
        rows = made["train"].copy()
        rows[row, column] = value
        rows.tofile(file)

    other = (int(made["train"][0, 1]) + 20) % 100  # of the same superclass
    for damage, told in (
        (lambda: changed(0, 1, other), "train.bin does not hold 3 images of each of 100 classes"),
        (lambda: changed(0, 1, 100), "train.bin does not hold 3 images"),
        (lambda: changed(0, 0, 20), "in 20 superclasses"),
        (lambda: changed(0, 0, (int(made["train"][0, 0]) + 1) % 20), "train.bin puts a class into several superclasses"),
        (lambda: file.write_bytes(made["train"].tobytes()[:-1]), r"train.bin is truncated or overlong \(\d+ bytes, not \d+\)"),
        (file.unlink, "train.bin is missing"),
    ):
        damage()
        with pytest.raises(InputError, match=told):
            cifar100.load(tmp_path, "test", resolution=32, calibration=50)
    shifted = made["train"].copy()
    shifted[:, 0] = (shifted[:, 0] + 1) % 20
    shifted.tofile(file)
    with pytest.raises(InputError, match=r"train.bin and test\.bin put classes into different superclasses"):
        cifar100.check(tmp_path)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    for root in ("a", "b"):
        written(tmp_path / root)
    first = cifar100.digest(tmp_path / "a")
    assert first == cifar100.digest(tmp_path / "b")
    file = tmp_path / "b" / FOLDER / "test.bin"
    rows = np.fromfile(file, np.uint8)
    rows[100] ^= 1
    rows.tofile(file)
    assert cifar100.digest(tmp_path / "b") != first


def archive(path: Path) -> str:
    """An archive of made-up files at ``path``; returns its MD5."""
    with tarfile.open(path, "w:gz") as tar:
        content = {f"{name}.bin": records(name).tobytes() for name in PER_CLASS}
        for name, given in {
            **content,
            "fine_label_names.txt": b"apple\n",
            "coarse_label_names.txt": b"fish\n",
            "x": b"",
        }.items():
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(given)
            tar.addfile(info, io.BytesIO(given))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_it_is_fetched_from_the_archive_of_its_authors_alone(tmp_path: Path) -> None:
    served = tmp_path / "served.tar.gz"
    md5 = archive(served)
    said: list[str] = []
    root = tmp_path / "data"
    with pytest.raises(InputError, match=r"has the MD5 .*, not 03b5dce01913d631647c71ecec9e9cb8, which its authors publish"):
        fetch_cifar100(root, say=said.append, url=served.as_uri())
    assert list(root.iterdir()) == []
    assert fetch_cifar100(root, say=said.append, url=served.as_uri(), md5=md5) == root / FOLDER
    names = {"train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"}
    assert {path.name for path in (root / FOLDER).iterdir()} == names and len(list(root.iterdir())) == 1
    assert (root / FOLDER / "train.bin").read_bytes() == records("train").tobytes()
    fetch_cifar100(root, say=said.append, url="file:///nowhere", md5=md5)
    assert "already" in said[-1]
    (root / FOLDER / "test.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"truncated or overlong .*Delete .* and run this again"):
        fetch_cifar100(root, say=said.append, md5=md5)


def test_an_archive_put_there_by_hand_is_used_and_a_missing_one_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CIFAR-100 could not be fetched .*another way, put it into .*again"):
        fetch_cifar100(tmp_path, say=lambda text: None, url=(tmp_path / "none").as_uri())
    md5 = archive(tmp_path / ARCHIVE)
    fetch_cifar100(tmp_path, say=lambda text: None, url="file:///nowhere", md5=md5)
    cifar100.check(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ARCHIVE, FOLDER])


def test_its_settings_stand_beside_the_eight_of_the_paper() -> None:
    assert (CIFAR100.train, CIFAR100.test, CIFAR100.calibration) == (50000, 10000, 5000)
    names = [f"cifar100-{network}-{method}" for network in ("vgg16", "resnet18") for method in ("qcfs", "qffs")]
    assert set(names) <= set(FURTHER) and not set(names) & set(SETTINGS)
    assert [plan.setting for plan in Request("paper").plans()] == list(SETTINGS)
    for name in names:
        for profile in PROFILES:
            plan = resolve(name, profile)
            like = resolve(name.replace("cifar100", "cifar10"), profile)
            digits = profile == "smoke"
            assert (plan.data.name, plan.data.classes) == (("digits", 10) if digits else ("cifar100", 100))
            assert (plan.recipe, plan.time_steps, plan.width) == (like.recipe, like.time_steps, like.width)
            assert plan.scheme_fields().get("levels", 8) == 8 and plan.published is None and plan.paper_time_steps is None
        assert resolve(name, "smoke").data.stands_in_for == "CIFAR-100"
    known = class_names("cifar100", classes=100)
    assert known is not None and list(known) == sorted(known) and len(set(known)) == 100
    assert (known[0], known[51], known[99]) == ("apple", "mushroom", "worm")
