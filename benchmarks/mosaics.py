"""CIFAR-10's official binary batches as lossless WebP mosaics, 17 MB for 10 000 images, and back.

python benchmarks/mosaics.py DATA FOLDER        # six mosaics and their labels, for machines that take limited amounts
"""

import sys
from pathlib import Path

import numpy as np

SIDE, CHANNELS, ROW = 32, 3, 100
"""Pixels of an image's side, its channels, and the images in a row of a mosaic."""


def pack(data: Path, folder: Path) -> None:
    """CIFAR-10's official binary batches as lossless WebP mosaics with their labels, a pair of files a batch."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for batch in sorted((data / "cifar-10-batches-bin").glob("*_batch*.bin")):
        records = np.frombuffer(batch.read_bytes(), np.uint8).reshape(-1, 1 + CHANNELS * SIDE * SIDE)
        pixels = records[:, 1:].reshape(-1, ROW, CHANNELS, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
        mosaic = Image.fromarray(np.ascontiguousarray(pixels).reshape(-1, ROW * SIDE, CHANNELS))
        mosaic.save(folder / f"{batch.stem}.webp", lossless=True, quality=100, method=4)
        (folder / f"{batch.stem}.labels").write_bytes(records[:, 0].tobytes())
        print(f"{batch.stem}: {(folder / f'{batch.stem}.webp').stat().st_size / 1e6:.1f} MB", flush=True)


def unpack(folder: Path, data: Path) -> bool:
    """Write the official binary batches of all mosaics in the folder; returns whether CIFAR-10 is complete."""
    from PIL import Image

    from dynconf_core.data.cifar10 import BINARY_SHA1, faults_in

    target = data / "cifar-10-batches-bin"
    target.mkdir(parents=True, exist_ok=True)
    for mosaic in sorted(folder.glob("*.webp")):
        batch = target / f"{mosaic.stem}.bin"
        if batch.exists():
            continue
        pixels = np.asarray(Image.open(mosaic)).reshape(-1, SIDE, ROW, SIDE, CHANNELS).transpose(0, 2, 4, 1, 3)
        labels = np.frombuffer(mosaic.with_suffix(".labels").read_bytes(), np.uint8)
        flat = np.ascontiguousarray(pixels).reshape(len(labels), -1)
        batch.write_bytes(np.concatenate([labels[:, None], flat], axis=1).tobytes())
    return len(list(target.glob("*.bin"))) == len(BINARY_SHA1) and not faults_in(target, BINARY_SHA1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
