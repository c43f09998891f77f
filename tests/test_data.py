"""The data sets, their splits, and augmentation."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dynconf_core.data import cifar10, digits, imagenet, imagenette
from dynconf_core.data.augment import AUGMENTATIONS, augmented
from dynconf_core.data.folder import NORMALISATION, FolderImages, list_images
from dynconf_core.data.imagenette import load as load_imagenette
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.data.load import DATASETS, data_set
from dynconf_core.data.splits import held_out
from dynconf_core.errors import InputError

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    """Written down, so that checkpoints of an earlier version keep their calibration images unseen."""
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
    """1000, 300 and 497 images that make up the whole, at the raw resolution the raw pixels."""
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
    written = fake_cifar(tmp_path / cifar10.BINARY)
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

    written = fake_cifar(tmp_path / cifar10.BINARY)
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
    fake_cifar(tmp_path / cifar10.BINARY)
    with pytest.raises(InputError, match=r"data_batch_1.bin is truncated"):
        cifar10.check(tmp_path)
    with pytest.raises(InputError, match="resolution=48: CIFAR-10 is read at its own 32 pixels"):
        cifar10.load(tmp_path, "train", resolution=48, calibration=6)


# Folders of images

CLASSES = ("n01", "n02", "n03")
PER_CLASS = {"train": 5, "val": 2}
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int], seed: int) -> None:
    """A noisy image of one colour."""
    noise = np.random.default_rng(seed).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path, quality=95)


def image_folder(root: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """``{train,val}/<class>/<image>``, the class told by the colour."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(folder / f"{number}.JPEG", COLOURS[label], size, seed=number)
    return root


FOLDERS = [(imagenet, "imagenet"), (imagenette, "imagenette2-160"), (imagenette, "imagenette2-64"), (imagenette, "imagenette2")]


def pixels_of(images: Any) -> Tensor:
    found: Tensor = images.batch(torch.arange(len(images)))
    return found


@pytest.mark.parametrize(("module", "layout"), FOLDERS)
def test_folders(module: Any, layout: str, tmp_path: Path) -> None:
    image_folder(tmp_path / layout)
    module.check(tmp_path)
    parts = {split: module.load(tmp_path, split, resolution=24, calibration=4) for split in ("train", "calibration", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 11, "calibration": 4, "test": 6}
    seen = []
    for part in parts.values():
        pixels = pixels_of(part)
        assert pixels.shape == (len(part), 3, 24, 24) and pixels.dtype == torch.uint8 and part.classes == 3
        assert part.labels.dtype == torch.int64
        assert torch.equal(pixels.float().mean((2, 3)).argmax(1), part.labels), "the colour tells the class"
        seen.append({image.numpy().tobytes() for image in pixels})
    assert not seen[0] & seen[1], "calibration images do not train"
    assert parts["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert parts["train"].normalisation == NORMALISATION


@pytest.mark.parametrize(("module", "layout"), FOLDERS[:2])
def test_folder_digest(module: Any, layout: str, tmp_path: Path) -> None:
    """Names and sizes name the content, wherever the folder lies."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        image_folder(folder / layout)
    assert module.digest(one) == module.digest(other)
    picture(other / layout / "train" / "n02" / "3.JPEG", COLOURS[0], (50, 50), seed=1)
    assert module.digest(one) != module.digest(other)


@pytest.mark.parametrize(("module", "layout"), FOLDERS[:2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_check_names_a_truncated_file(module: Any, layout: str, split: str, tmp_path: Path) -> None:
    image_folder(tmp_path / layout)
    path = tmp_path / layout / split / "n02" / "1.JPEG"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image", whole[:1]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"n02/1\.JPEG is truncated or is no JPEG"):
            module.check(tmp_path)
    path.write_bytes(whole)
    module.check(tmp_path)
    path.with_suffix(".png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.png is truncated"):
        module.check(tmp_path)
    Image.new("RGB", (8, 8)).save(path.with_suffix(".png"))
    module.check(tmp_path)


def test_decoding_names_a_truncated_file(tmp_path: Path) -> None:
    for layout, module in (("imagenet", imagenet), ("imagenette2-160", imagenette)):
        path = image_folder(tmp_path / layout) / "val" / "n03" / "0.JPEG"
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(InputError, match=r"n03/0\.JPEG cannot be decoded"):
            pixels_of(module.load(tmp_path, "test", resolution=24, calibration=4))


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images in class folders"):
        imagenet.check(tmp_path)
    with pytest.raises(InputError, match=r"holds none of imagenette2-64, .*: run `dynconf data fetch imagenette`"):
        imagenette.check(tmp_path)
    with pytest.raises(InputError, match="holds none of"):
        imagenette.load(tmp_path, "test", resolution=24, calibration=4)
    image_folder(tmp_path / "imagenet")
    for path in (tmp_path / "imagenet" / "val" / "n02").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"val/n02 holds no image"):
        imagenet.check(tmp_path)


def test_crops_are_drawn_from_the_generator(tmp_path: Path) -> None:
    """The same generator, the same crops, whatever the threads do; without one the centre."""
    folder = image_folder(tmp_path / "imagenet", (120, 90))
    images = imagenet.load(tmp_path, "train", resolution=24, calibration=4)
    every = torch.arange(len(images))
    first = images.batch(every, generator(1))
    torch.manual_seed(5)
    assert torch.equal(images.batch(every, generator(1)), first)
    assert not torch.equal(images.batch(every, generator(2)), first)
    one = generator(1)
    images.batch(every, one)
    assert not torch.equal(images.batch(every, one), first), "the generator moves on"
    assert torch.equal(images.batch(every), images.batch(every))
    assert images.to(torch.device("cpu")) is images
    assert folder.is_dir()


def test_the_centre_crop_and_random_crops_by_hand(tmp_path: Path) -> None:
    """Without a generator the middle seven eighths of the shorter side; with one, parts of very different places and sizes."""
    ramp = np.broadcast_to(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], (80, 160, 3))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(ramp.copy()).save(tmp_path / name / "0.png")
    images = FolderImages(list_images(tmp_path), 40)
    centre = images.batch(torch.tensor([0]))[0, 0].float()
    # 70 of 160 columns in the middle: values from 45 / 160 to 115 / 160 of the ramp.
    assert float(centre[:, 0].mean()) == pytest.approx(255 * 45 / 159, abs=3)
    assert float(centre[:, -1].mean()) == pytest.approx(255 * 114 / 159, abs=3)
    crops = images.batch(torch.zeros(200, dtype=torch.int64), generator(0))[:, 0].float()
    widths = (crops[:, 20, -1] - crops[:, 20, 0]) / 255
    assert float(widths.min()) < 0.35 and float(widths.max()) > 0.6, "8 to 100 % of the area"
    assert float(crops.mean((1, 2)).std()) > 10


def test_real_imagenette(imagenette: Path) -> None:
    listing = list_images(imagenette / "imagenette2-64" / "val")
    assert len(listing.files) == 3925 and listing.classes == 10
    assert len(list_images(imagenette / "imagenette2-64" / "train").files) == 9469
    test = load_imagenette(imagenette, "test", resolution=64, calibration=1000)
    assert test.pixels.shape == (3925, 3, 64, 64)
    inputs = test.normalisation(test.pixels[::10])
    assert abs(float(inputs.mean())) < 0.2 and float(inputs.std()) == pytest.approx(1.1, abs=0.2)


def test_data_sets_by_name() -> None:
    assert data_set("digits") is digits
    assert all(callable(getattr(data_set(name), what)) for name in DATASETS for what in ("check", "digest", "load"))
    with pytest.raises(InputError, match="data set 'mnist' is unknown: choose one of digits, cifar10"):
        data_set("mnist")


# Augmentation


def noise(count: int = 16, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, (count, 3, side, side), generator=generator(seed), dtype=torch.uint8)


def bytes_of(images: Tensor) -> Tensor:
    """Undo the plain normalisation."""
    return (images * 255).round().to(torch.uint8)


def test_no_augmentation_is_normalisation_alone() -> None:
    assert torch.equal(bytes_of(augmented(noise(), (), PLAIN, generator())), noise())


def test_crop_by_hand() -> None:
    """Every image is its own, padded by two black pixels, cut at one of 25 places; all of them occur."""
    pixels = noise(400)
    found = bytes_of(augmented(pixels, ("crop",), PLAIN, generator()))
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    places = set()
    for image in range(400):
        matches = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(found[image], padded[image, :, row : row + 16, column : column + 16])
        ]
        assert len(matches) == 1
        places.add(matches[0])
    assert len(places) == 25


def test_flip_by_hand() -> None:
    pixels = noise(400)
    found = bytes_of(augmented(pixels, ("flip",), PLAIN, generator()))
    flipped = [torch.equal(found[i], pixels[i].flip(2)) for i in range(400)]
    assert all(flipped[i] or torch.equal(found[i], pixels[i]) for i in range(400))
    assert 160 < sum(flipped) < 240


def test_cutout_by_hand() -> None:
    """One rectangle of the mean colour, half the side where it lies inside, cut by the border elsewhere."""
    pixels = noise(300, side=32)
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    found = augmented(pixels, ("cutout",), normalisation, generator())
    plain = normalisation(pixels)
    heights = []
    for image in range(300):
        changed = (found[image] != plain[image]).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        assert torch.all(found[image, :, top:bottom, left:right] == 0)
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert torch.equal(found[image][:, outside], plain[image][:, outside])
        if top > 0 and bottom < 32:
            heights.append(bottom - top)
        assert bottom - top <= 16 and right - left <= 16
    assert len(set(heights)) == 1 and heights[0] == 16


def test_jitter_by_hand() -> None:
    """Up to 20 %: a grey image keeps its grey times a factor, and no pixel leaves the range."""
    grey = torch.full((300, 3, 8, 8), 100, dtype=torch.uint8)
    found = bytes_of(augmented(grey, ("jitter",), PLAIN, generator()))
    assert int(found.min()) in range(80, 85) and int(found.max()) in range(116, 121)
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))
    assert bytes_of(augmented(noise(), ("jitter",), PLAIN, generator())).shape == (16, 3, 16, 16)


COMBINATIONS = [*((name,) for name in AUGMENTATIONS), ("crop", "flip", "autoaugment", "cutout"), AUGMENTATIONS]


@pytest.mark.parametrize("names", COMBINATIONS)
def test_augmentation_depends_on_its_generator_alone(names: tuple[str, ...]) -> None:
    """Torch's global generator is neither read nor moved, nor are the pixels touched."""
    pixels = noise(20)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augmented(pixels, names, PLAIN, generator(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2), random.seed(9), np.random.seed(9)
    assert torch.equal(augmented(pixels, names, PLAIN, generator(3)), first)
    assert not torch.equal(augmented(pixels, names, PLAIN, generator(4)), first)
    assert torch.equal(pixels, noise(20))
    assert first.dtype == torch.float32 and first.shape == pixels.shape
    assert not torch.equal(first, PLAIN(pixels))


def test_the_order_of_the_names_does_not_matter() -> None:
    first = augmented(noise(), ("crop", "flip", "cutout"), PLAIN, generator(3))
    assert torch.equal(augmented(noise(), ("cutout", "flip", "crop"), PLAIN, generator(3)), first)


def test_autoaugment_draws_for_groups_of_eight() -> None:
    """The policy is drawn anew for every eight images: the groups of a batch of equal images differ."""
    same = noise(1, 32).expand(64, -1, -1, -1).contiguous()
    found = augmented(same, ("autoaugment",), PLAIN, generator(0)).split(8)
    assert all(torch.equal(image, group[0]) for group in found for image in group)
    assert len({group.numpy().tobytes() for group in found}) > 2


def test_unknown_augmentation() -> None:
    with pytest.raises(InputError, match="augmentation 'mixup' is unknown: choose from crop, flip"):
        augmented(noise(), ("crop", "mixup"), PLAIN, generator())


def test_torchvision_imports() -> None:
    from dynconf_core.torchvision_import import torchvision, transforms

    assert torchvision().__name__ == "torchvision" and torchvision() is torchvision()
    make: Callable[..., Any] = transforms().AutoAugment
    assert make is not None


@pytest.mark.parametrize(("module", "layout"), [(imagenet, "imagenet"), (imagenette, "imagenette2-64")])
def test_a_class_that_one_split_lacks_is_named(module: Any, layout: str, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / layout)
    first = min(entry.name for entry in (folder / "val").iterdir())
    (folder / "val" / first).rename(folder / "val" / "n99999999")
    with pytest.raises(InputError, match="lies in one split only"):
        module.check(tmp_path)
