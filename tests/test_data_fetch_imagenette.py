"""What ``dynconf data fetch imagenette`` does and reports, without a network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from image_folders import image_folder

from dynconf_core.data import fetch_imagenette as module
from dynconf_core.data.fetch_imagenette import ADDRESS, fetch_imagenette
from dynconf_core.errors import InputError


def downloads(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    """Replace torchvision's download by ``download(root)``."""

    def imagenette(root: Path, *, split: str, size: str, download: bool, _fill: Any = download) -> None:
        assert (split, size, download) == ("train", "160px", True)
        _fill(root)

    monkeypatch.setattr(module, "torchvision", lambda: SimpleNamespace(datasets=SimpleNamespace(Imagenette=imagenette)))


def never(root: Path) -> None:
    raise AssertionError("nothing may be downloaded")


@pytest.mark.parametrize("layout", ["imagenette2-64", "imagenette2-160", "imagenette2"])
def test_a_complete_folder_is_not_changed(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, never)
    image_folder(tmp_path / layout)
    said: list[str] = []
    fetch_imagenette(tmp_path, say=said.append)
    assert said == [f"Imagenette is already in {tmp_path / layout} and complete; nothing to do."]


def test_a_damaged_folder_is_not_hidden_by_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, never)
    path = image_folder(tmp_path / "imagenette2-64") / "train" / "n02" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"n02/1\.JPEG is truncated .*Or delete \S+imagenette2-64 and run this again"):
        fetch_imagenette(tmp_path, say=lambda text: None)


def test_it_is_downloaded_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, lambda root: image_folder(root / "imagenette2-160"))
    said: list[str] = []
    fetch_imagenette(tmp_path, say=said.append)
    assert said[0].startswith("Downloading Imagenette") and said[-1].endswith("imagenette2-160 and complete.")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> None:
        raise OSError("Name or service not known")

    downloads(monkeypatch, fail)
    with pytest.raises(InputError, match=r"cannot be downloaded \(Name or service not known\): unpack") as told:
        fetch_imagenette(tmp_path, say=lambda text: None)
    assert ADDRESS in str(told.value) and str(tmp_path) in str(told.value)
