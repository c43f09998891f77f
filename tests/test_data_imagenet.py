"""ImageNet's folder as the `paper` profile reads it: the kinds of files in it, possible faults, and a complete run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import CLASSES, image_folder
from PIL import Image
from training_cases import CPU

from dynconf_core.conversion.convert import convert
from dynconf_core.data import imagenet
from dynconf_core.data.folder import FolderImages, list_images
from dynconf_core.errors import InputError
from dynconf_core.experiment.profiles import resolve
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.simulation.collect import collect
from dynconf_core.traces.schema import Traces
from dynconf_core.training.run import train_to_file


def colours(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth, so that compression changes it little."""
    rows, columns = np.linspace(0, 1, size[1])[:, None], np.linspace(0, 1, size[0])[None]
    planes = [200 * rows + 0 * columns, 200 * columns + 0 * rows, 100 * (rows + columns)]
    return Image.fromarray((np.stack(planes, axis=-1) + 5 * seed).astype(np.uint8))


def odd_folder(root: Path) -> dict[str, Path]:
    """Three classes, including the kinds of files that ImageNet contains."""
    image_folder(root / "imagenet", (97, 61))
    train = root / "imagenet" / "train"
    paths = {
        "tiny": train / "n01" / "tiny.JPEG",
        "long": train / "n01" / "long.JPEG",
        "large": train / "n02" / "large.JPEG",
        "grey": train / "n02" / "grey.JPEG",
        "cmyk": train / "n03" / "cmyk.JPEG",
        "png": train / "n03" / "png.JPEG",
    }
    colours((20, 30)).save(paths["tiny"])
    colours((400, 31)).save(paths["long"])
    colours((1300, 900)).save(paths["large"], quality=95)
    colours((80, 90)).convert("L").save(paths["grey"])
    colours((80, 90)).convert("CMYK").save(paths["cmyk"], quality=95)
    colours((80, 90)).save(paths["png"], format="PNG")  # one of ImageNet's files is a PNG by content
    return paths


def place(images: FolderImages, path: Path) -> torch.Tensor:
    return torch.tensor([images.listing.files.index(path)])


@pytest.mark.parametrize("training", [False, True])
def test_every_kind_of_file_is_decoded(training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = odd_folder(tmp_path)
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    imagenet.check(tmp_path)
    images = imagenet.load(tmp_path, "train", resolution=64, calibration=0)
    source = torch.Generator().manual_seed(0) if training else None
    pixels = images.batch(torch.arange(len(images)), source)
    assert pixels.shape == (21, 3, 64, 64) and pixels.dtype == torch.uint8
    for name, path in paths.items():
        image = pixels[int(place(images, path))].float()
        assert float(image.std()) > 5, f"{name} is not blank"
    grey = pixels[int(place(images, paths["grey"]))]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


def test_the_decoded_image_is_the_image(tmp_path: Path) -> None:
    """Large images, which are shrunk while decoding, and those of other colour spaces, compared with plain decoding."""
    paths = odd_folder(tmp_path)
    images = imagenet.load(tmp_path, "train", resolution=64, calibration=0)
    for name in ("large", "cmyk", "png", "tiny"):
        with Image.open(paths[name]) as opened:
            whole = opened.convert("RGB")
        side = min(whole.size) * 7 / 8
        left, top = (whole.width - side) / 2, (whole.height - side) / 2
        expected = whole.resize((64, 64), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        found = images.batch(place(images, paths[name]))[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - np.asarray(expected, int)).max() <= (4 if name == "large" else 0)


@pytest.mark.parametrize(("shorter_side", "kept"), [(None, 7 / 8), (64, 1.0), (73, 64 / 73), (128, 1 / 2)])
def test_the_shorter_side(shorter_side: int | None, kept: float, tmp_path: Path) -> None:
    """torchvision's networks expect 224 out of 232 or 256 pixels of the shorter side."""
    ramp = np.broadcast_to(np.linspace(0, 255, 512)[:, None, None], (512, 512, 3)).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(ramp.copy()).save(tmp_path / name / "0.png")
    images = FolderImages(list_images(tmp_path), 64, shorter_side=shorter_side)
    rows = images.batch(torch.tensor([0]))[0, 0].float().mean(1)
    step = float(rows[-1] - rows[0]) / 63
    assert step * 64 / 255 == pytest.approx(kept, abs=0.02)
    assert float(rows.mean()) == pytest.approx(127.5, abs=1), "the middle"


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short, or damaged in its middle so that only decoding reveals it."""
    paths = odd_folder(tmp_path)
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    images = imagenet.load(tmp_path, "train", resolution=64, calibration=0)
    whole = paths["png"].read_bytes()
    paths["png"].write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    imagenet.check(tmp_path)
    with pytest.raises(InputError, match=r"n03/png\.JPEG cannot be decoded \(.+\): restore the file"):
        images.batch(place(images, paths["png"]))
    paths["grey"].write_bytes(paths["grey"].read_bytes()[:200])
    with pytest.raises(InputError, match=r"n02/grey\.JPEG is truncated or not a JPEG"):
        imagenet.check(tmp_path)
    with pytest.raises(InputError, match=r"n02/grey\.JPEG cannot be decoded"):
        images.batch(place(images, paths["grey"]), torch.Generator())


def test_missing_classes_and_an_unsorted_validation_split(tmp_path: Path) -> None:
    odd_folder(tmp_path)
    with pytest.raises(InputError, match=r"imagenet holds 3 class folders in each split, ImageNet has 1000"):
        imagenet.check(tmp_path)
    validation = tmp_path / "imagenet" / "val"
    for number, name in enumerate(CLASSES):
        for path in (validation / name).iterdir():
            path.rename(validation / f"ILSVRC2012_val_{number:08}{path.name}")
        (validation / name).rmdir()
    with pytest.raises(InputError, match=r"val holds its images \(ILSVRC2012_val_\S+, \.\.\.\) without class folders.*<wnid>"):
        imagenet.check(tmp_path)
    with pytest.raises(InputError, match="without class folders"):
        imagenet.load(tmp_path, "test", resolution=64, calibration=0)


def test_from_the_paper_profile_to_traces(tmp_path: Path) -> None:
    """Its recipe, resolution and stem, on three classes: an epoch, a conversion, a collection."""
    odd_folder(tmp_path)
    plan = resolve("imagenet-resnet50-qcfs", "paper")
    assert (plan.data.name, plan.data.resolution, plan.recipe.augmentation) == ("imagenet", 224, ("flip", "jitter"))
    recipe = replace(plan.recipe, epochs=1, batch_size=6)
    few = replace(plan, data=replace(plan.data, classes=3, calibration=3), width=1 / 32, recipe=recipe)

    def trained(classes: int) -> dict[str, object]:
        return train_to_file(
            replace(few, data=replace(few.data, classes=classes)),
            data_root=tmp_path,
            device=CPU,
            out=tmp_path / "net.pt",
            resume=tmp_path / "resume",
        )

    with pytest.raises(InputError, match=r"3 classes, though the data set's entry says 1000"):
        trained(1000)
    provenance = trained(3)
    assert provenance["data"]["train"] == 18 and len(provenance["record"]["losses"]) == 1  # type: ignore[index]
    net = described(few.network(), seed=1)
    load_checkpoint(net, tmp_path / "net.pt")
    test = imagenet.load(tmp_path, "test", resolution=224, calibration=3)
    held = imagenet.load(tmp_path, "calibration", resolution=224, calibration=3)
    inputs = held.normalisation(held.batch(torch.arange(3)))
    snn = convert(net.eval(), inputs, time_steps=4, image_limit=held.normalisation.limit())
    (tmp_path / "traces").mkdir()
    collect(snn, net, test, 4, tmp_path / "traces", batch=4)
    traces = Traces.load(tmp_path / "traces")
    assert traces.logits.shape == (6, 4, 3) and traces.labels.tolist() == [0, 0, 1, 1, 2, 2]
