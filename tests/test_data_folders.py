"""Images in class folders: ImageNet's layout, and Imagenette's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import CLASSES, COLOURS, image_folder, picture
from PIL import Image
from torch import Tensor

from dynconf_core.data import imagenet, imagenette
from dynconf_core.data.folder import NORMALISATION, FolderImages, list_images
from dynconf_core.data.imagenette import load as load_pixels
from dynconf_core.errors import InputError


@pytest.fixture(autouse=True)
def three_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use three classes instead of ImageNet's 1000."""
    monkeypatch.setattr(imagenet, "CLASSES", len(CLASSES))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    """Names and sizes identify the content, independently of the folder's location."""
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
        with pytest.raises(InputError, match=r"n02/1\.JPEG is truncated or not a JPEG"):
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
    """The same generator gives the same crops, regardless of thread timing; without one, the centre."""
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
    """Without a generator the middle seven eighths of the shorter side; with one, parts of very different positions and
    sizes."""
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
    test = load_pixels(imagenette, "test", resolution=64, calibration=1000)
    assert test.pixels.shape == (3925, 3, 64, 64)
    inputs = test.normalisation(test.pixels[::10])
    assert abs(float(inputs.mean())) < 0.2 and float(inputs.std()) == pytest.approx(1.1, abs=0.2)


@pytest.mark.parametrize(("module", "layout"), [(imagenet, "imagenet"), (imagenette, "imagenette2-64")])
def test_a_class_that_one_split_lacks_is_named(module: Any, layout: str, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / layout)
    first = min(entry.name for entry in (folder / "val").iterdir())
    (folder / "val" / first).rename(folder / "val" / "n99999999")
    with pytest.raises(InputError, match="is in one split only"):
        module.check(tmp_path)
