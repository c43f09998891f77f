"""Data of one's own by its path: folders of images by class, .npz and idx files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dynconf_core import DATASETS, InputError, own_data
from dynconf_core.data.digits import raw
from dynconf_core.data.images import Normalisation, limit
from dynconf_core.data.own import Own, read_own

COUNT = 120


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """uint8 ``(N, 8, 8)`` and labels."""
    values, labels = raw()
    return (values[:COUNT] * (255 / 16)).round().astype(np.uint8), labels[:COUNT]


def idx(array: NDArray[Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_folders(images: NDArray[Any], labels: NDArray[Any], folder: Path) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def everything(own: Own) -> list[tuple[bytes, int]]:
    """Every sample with its label, in an order of their own."""
    found: list[tuple[bytes, int]] = []
    for split in ("train", "calibration", "test"):
        images = own.images(split, Normalisation((0.0,), (1.0,)))
        pixels = images.batch(torch.arange(len(images)))
        found += [(one.numpy().tobytes(), int(label)) for one, label in zip(pixels, images.labels, strict=True)]
    return sorted(found)


def test_one_set_in_every_form(digits: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    """The same samples come out of an .npz in each layout, of idx files and of PNGs; each sample is in one split."""
    images, labels = digits
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    np.savez(tmp_path / "first.npz", images=images[:, None], labels=labels[:, None])
    np.savez(tmp_path / "last.npz", images=images[..., None].astype(np.int64), labels=labels.astype(np.uint8))
    np.savez(tmp_path / "keras.npz", x_train=images[:90], y_train=labels[:90], x_test=images[90:], y_test=labels[90:])
    write_folders(images, labels, tmp_path / "one")
    for name, part in (("train", slice(0, 90)), ("val", slice(90, COUNT))):
        write_folders(images[part], labels[part], tmp_path / "two" / name)
    for name, part in (("train", slice(0, 60)), ("val", slice(60, 90)), ("test", slice(90, COUNT))):
        write_folders(images[part], labels[part], tmp_path / "three" / name)
    (tmp_path / "idx").mkdir()
    for name, part in (("train", slice(0, 90)), ("t10k", slice(90, COUNT))):
        (tmp_path / "idx" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[part])))
        (tmp_path / "idx" / f"{name}-labels.idx1-ubyte").write_bytes(idx(labels[part]))
    wanted = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    given_apart = {"train": 72, "calibration": 18, "test": 30}
    drawn = {"train": 77, "calibration": 19, "test": 24}
    three = {"train": 60, "calibration": 30, "test": 30}
    for name, sizes in (
        *((name, drawn) for name in ("plain.npz", "first.npz", "last.npz", "one")),
        *((name, given_apart) for name in ("keras.npz", "two", "idx")),
        ("three", three),
    ):
        own = read_own(tmp_path / name)
        assert own.sizes() == sizes, name
        assert (own.parts["train"].shape, own.classes) == ((1, 8, 8), 10), name
        assert everything(own) == wanted, name
    assert read_own(tmp_path / "one").names == tuple("0123456789")
    assert read_own(tmp_path / "plain.npz").images("test", Normalisation((0.0,), (1.0,))).labels.tolist() == [
        int(labels[place]) for place in read_own(tmp_path / "plain.npz").indices("test")[1]
    ]


def test_a_data_set_for_a_setting(digits: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    images, labels = digits
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    found = own_data(tmp_path / "digits.npz")
    assert (found.title, found.classes, found.resolution, found.sample) == ("digits.npz", 10, 8, (1, 8, 8))
    assert (found.train, found.calibration, found.test) == (96, 19, 24)
    train = found.images("train")
    assert len(train) == 77 and train.normalisation == found.normalisation
    standard = train.normalisation(train.batch(torch.arange(77)))
    assert abs(float(standard.mean())) < 1e-3 and abs(float(standard.std()) - 1) < 1e-2
    assert limit(train) == found.normalisation.limit()
    assert len(found.load(Path(), "calibration", resolution=8, calibration=30)) == 30
    digest = found.digest(Path())
    assert (
        own_data(tmp_path / "digits.npz").digest(Path()) == digest != own_data(tmp_path / "digits.npz", size=16).digest(Path())
    )
    images[3, 2, 2] ^= 1
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    assert own_data(tmp_path / "digits.npz").digest(Path()) != digest, "changed pixels are other data"


def test_vectors_and_decimals(digits: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    images, labels = digits
    vectors = np.random.default_rng(0).normal(5, 100, (COUNT, 7))
    np.savez(tmp_path / "vectors.npz", images=vectors, labels=labels)
    found = own_data(tmp_path / "vectors.npz").images("train")
    assert (
        found.normalisation.mean[0] == pytest.approx(vectors[:, 0].mean(), rel=0.5, abs=15)
        and len(found.normalisation.std) == 7
    )
    whole = torch.from_numpy(vectors.astype(np.float32))
    largest = float(found.normalisation(whole).abs().max())
    assert largest < limit(found) < largest * 1.001, "the limit holds for all samples"
    np.savez(tmp_path / "signals.npz", images=vectors[:, :, None] + [[[0.0, 7.0]]], labels=labels, layout="NLC")
    signals = own_data(tmp_path / "signals.npz").images("test")
    assert signals.pixels.shape == (24, 2, 7) and len(signals.normalisation.mean) == 2
    assert float(signals.normalisation(signals.pixels).abs().max()) <= limit(signals) < 10
    np.savez(tmp_path / "decimals.npz", images=images / np.float32(255), labels=labels)
    np.savez(tmp_path / "whole.npz", images=images, labels=labels)
    decimals, pixels = (own_data(tmp_path / f"{name}.npz").images("test") for name in ("decimals", "whole"))
    indices, plain = torch.arange(24), Normalisation((0.3,), (0.2,))
    assert torch.allclose(plain(decimals.batch(indices)), plain(pixels.batch(indices)), atol=1e-6)


def test_size_and_colour(digits: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    images, labels = digits
    colours = np.stack([images, 255 - images, images // 2], axis=-1)
    write_folders(colours, labels, tmp_path / "colours")
    np.savez(tmp_path / "colours.npz", images=colours, labels=labels)
    assert everything(read_own(tmp_path / "colours")) == everything(read_own(tmp_path / "colours.npz"))
    assert read_own(tmp_path / "colours", size=16).images("test", Normalisation((0.0,), (1.0,))).batch(
        torch.arange(2)
    ).shape == (*(2, 3, 16, 16),)
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "colours" / "3" / "x.png")
    with pytest.raises(InputError, match=r"several sizes \(8 x 8, 9 x 8\): name the one .*--size"):
        read_own(tmp_path / "colours")
    assert read_own(tmp_path / "colours", size=8).sizes()["test"] == 24
    for name in ("colours", "colours.npz"):
        with pytest.raises(InputError, match="channels=1: the images have 3; only grey ones"):
            read_own(tmp_path / name, size=8, channels=1)
    write_folders(images, labels, tmp_path / "grey")
    np.savez(tmp_path / "grey.npz", images=images, labels=labels)
    assert everything(read_own(tmp_path / "grey", channels=3)) == everything(read_own(tmp_path / "grey.npz", channels=3))
    repeated = read_own(tmp_path / "grey.npz", channels=3, size=16).parts["train"]
    assert repeated.shape == (3, 16, 16)
    pixels = repeated.read(torch.arange(3))
    assert pixels.dtype == torch.uint8 and torch.equal(pixels[:, 0], pixels[:, 2]) and int(pixels.max()) > 100


NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "names": ({"data": np.zeros(3)}, "holds data: give `images` and `labels`"),
    "no test labels": ({"test_images": np.zeros((3, 8, 8), np.uint8)}, "one of test_images and test_labels"),
    "sixteen levels": ({"images": np.full((40, 8, 8), 16.0)}, "decimals from 16 to 16 .*layout='NCL'.* give images as uint8"),
    "normalised": ({"images": np.full((40, 1, 8, 8), -1.0)}, "that are not normalised yet"),
    "nan": ({"images": np.full((40, 7), np.nan)}, "NaN"),
    "large": ({"images": np.full((40, 8, 8), 300)}, "from 300 to 300"),
    "truth values": ({"images": np.ones((40, 8, 8), bool)}, "of the type bool"),
    "five dimensions": ({"images": np.zeros((40, 1, 2, 8, 8), np.uint8)}, r"give \(N, H, W\)"),
    "either layout": ({"images": np.zeros((40, 3, 8, 3), np.uint8)}, "where its channels stand: save `layout`"),
    "one-hot": ({"labels": np.eye(10)[np.zeros(40, int)]}, r"labels.argmax\(1\)"),
    "fewer labels": ({"labels": np.zeros(39, int)}, r"one for each of the 40 samples"),
    "decimal labels": ({"labels": np.zeros(40)}, "labels.astype"),
    "from -1": ({"labels": np.full(40, -1)}, "begin at -1"),
    "pickled": ({"labels": np.array([None] * 40)}, "of plain arrays"),
    "too few": ({"images": np.zeros((5, 8, 8), np.uint8), "labels": np.zeros(5, int)}, "too few images"),
    "another layout": ({"layout": "NCHW"}, "which the layout NCHW does not fit"),
    "a layout": ({"layout": "CHWN"}, "layout='CHWN': give NHW, NCL, NLC, NCHW or NHWC"),
}


@pytest.mark.parametrize("case", NPZ)
def test_what_an_npz_cannot_be_is_named(case: str, tmp_path: Path) -> None:
    change, words = NPZ[case]
    content = {"images": np.zeros((40, 8, 8), np.uint8), "labels": np.arange(40) % 10}
    np.savez(tmp_path / "x.npz", **({**content, **change} if "data" not in change else change))
    with pytest.raises(InputError, match=words):
        read_own(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"PNG", "is no idx file"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 8, 8)))[:-1], "cut short"),
        ("train-images-idx3-ubyte.gz", b"no gzip", "cannot be read"),
    ],
)
def test_damaged_idx_files_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(40) % 10))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.* {words}"):
        read_own(tmp_path)


def test_folders_that_cannot_be_are_named(digits: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    images, labels = digits
    write_folders(images[:40], labels[:40], tmp_path / "a" / "val")
    with pytest.raises(InputError, match="holds val, and no train"):
        read_own(tmp_path / "a")
    write_folders(images[:40], labels[:40] // 2, tmp_path / "a" / "train")
    with pytest.raises(InputError, match="class folder 5 is in one split only"):
        read_own(tmp_path / "a")
    write_folders(images[:40], labels[:40], tmp_path / "hidden")
    (tmp_path / "hidden" / ".ipynb_checkpoints").mkdir()
    assert read_own(tmp_path / "hidden").classes == 10
    write_folders(images[:40].astype(np.uint16) * 256, labels[:40], tmp_path / "deep")
    with pytest.raises(InputError, match="more than 8 bits"):
        read_own(tmp_path / "deep")
    (tmp_path / "text.csv").write_text("1,2")
    for path, words in ((tmp_path / "none", "does not exist"), (tmp_path / "text.csv", "no data set that is known")):
        with pytest.raises(InputError, match=rf"{words}.*: give a folder of images by class"):
            read_own(path)


def test_what_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    (tmp_path / "digits").mkdir()
    assert all(map(DATASETS.is_path, ("flowers", "./x", "x.npz", "/data/x", "./digits")))
    assert not any(map(DATASETS.is_path, ("mnist", "shapes:SHAPES", "digits")))
