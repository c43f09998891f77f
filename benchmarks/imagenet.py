"""An ESTIMATE of the cost of full ImageNet on this machine, extrapolated from a few steps at full width and 224 pixels.

    python benchmarks/imagenet.py                               # decoding, and VGG-16 and ResNet-50 with QCFS and QFFS
    python benchmarks/imagenet.py --network resnet50-qffs --train-batch 32

Measured, each in a fresh process: images per second decoded by the folder loader (synthetic JPEG files of ImageNet's usual
size); seconds per training step (the faster of float32 and bf16 autocast with channels-last, without torch.compile); seconds
for ``collect`` with few and with more time steps, whose difference is the cost of a step; and the peak memory of both. The
results are extrapolated to the epochs and images of the `paper` profile. The weights are untrained, as the arithmetic does not
depend on them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from torch.nn.functional import cross_entropy

NETWORKS = ("vgg16-qcfs", "vgg16-qffs", "resnet50-qcfs", "resnet50-qffs")
TEST = 50_000
SIZE = (500, 375)
"""The size of most ImageNet files, in pixels."""
FILES = 128
FEW, MORE = 2, 6
"""Time steps."""


def decoding(arguments: dict[str, Any]) -> dict[str, Any]:
    """Images per second, for training and for evaluation, and the mean file size."""
    from PIL import Image

    from dynconf_core.data.folder import FolderImages, list_images

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            (place := Path(folder) / f"n{number % 2}").mkdir(exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
            noise = rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
            Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(
                place / f"{number}.JPEG", quality=90
            )
        images = FolderImages(list_images(Path(folder)), 224)
        size = sum(path.stat().st_size for path in images.listing.files) / FILES
        rates = {}
        for name, crops in (("train", torch.Generator().manual_seed(0)), ("evaluate", None)):
            taken = []
            for _ in range(3):
                start = time.perf_counter()
                images.batch(torch.arange(FILES), crops)
                taken.append(time.perf_counter() - start)
            rates[name] = FILES / measuring.median(taken)
    return {"rates": rates, "bytes": size}


def plan_of(network: str) -> Any:
    """The `paper` profile's plan."""
    from dynconf_core.experiment.profiles import resolve

    return resolve(f"imagenet-{network}", "paper")


def training(arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds per image of a training step, the arithmetic used, and peak memory."""
    from dynconf_core.schemes.network import described
    from dynconf_core.training.speed import SpeedUps

    plan, batch = plan_of(arguments["network"]), arguments["train_batch"]
    images, labels = torch.randn(batch, 3, 224, 224), torch.randint(0, 1000, (batch,))
    found = {}
    for name, speed_ups in (("float32", SpeedUps()), ("bf16", SpeedUps(channels_last=True, autocast=True))):
        network = described({**plan.network(), "initial_threshold": 8.0}, 0).train()
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, foreach=True)
        forward, inputs = speed_ups.prepared(network), speed_ups.images(images)
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            with speed_ups.precision(images.device):
                loss = cross_entropy(forward(inputs), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            taken.append(time.perf_counter() - start)
        found[name] = taken[-1] / batch
    best = min(found, key=found.__getitem__)
    return {"arithmetic": best, "seconds": found[best], "memory": measuring.peak_memory()}


def collection(arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds per image, once and per time step, the batch size, and peak memory."""
    from dynconf_core.conversion.convert import convert
    from dynconf_core.data.folder import NORMALISATION
    from dynconf_core.data.images import TensorImages
    from dynconf_core.schemes.network import described
    from dynconf_core.simulation.collect import collect
    from dynconf_core.simulation.footprint import batch_size

    plan, count = plan_of(arguments["network"]), arguments["images"]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 224, 224), generator=generator, dtype=torch.uint8)
    images = TensorImages(pixels, torch.zeros(count, dtype=torch.int64), 1000, NORMALISATION)
    network = described(plan.network(), 0).eval()
    snn = convert(network, NORMALISATION(pixels[:1]), time_steps=plan.time_steps, image_limit=NORMALISATION.limit())
    memory = int(arguments["memory"] * (1 << 30))
    batch = min(count, batch_size(snn, memory))
    taken = {}
    for steps in (FEW, FEW, MORE):  # the first run prepares integer products and checks exactness
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            collect(snn, network, images, steps, Path(folder), batch=batch)
            taken[steps] = (time.perf_counter() - start) / count
    step = (taken[MORE] - taken[FEW]) / (MORE - FEW)
    return {"batch": batch, "once": taken[FEW] - FEW * step, "step": step, "memory": measuring.peak_memory()}


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--train-batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=16, help="images of which traces are collected")
    parser.add_argument("--memory", type=float, default=8.0, help="memory limit for collecting traces, in GiB")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.worker:
        asked = json.loads(given.worker)
        works = {"decoding": decoding, "training": training, "collection": collection}
        print(json.dumps(works[asked["work"]](asked)))
        return
    asked = {"train_batch": given.train_batch, "images": given.images, "memory": given.memory}
    print("ESTIMATE for full ImageNet from a few measured steps")
    print(measuring.environment_line(given.threads))
    found = measuring.in_fresh_process("imagenet.py", {**asked, "work": "decoding"}, given.threads)
    decoded = found["rates"]
    print(
        f"decoding {SIZE[0]} x {SIZE[1]} px, {found['bytes'] / 1e3:.0f} kB: {decoded['train']:.0f} images/s for training, "
        f"{decoded['evaluate']:.0f} for evaluation\n"
    )
    print("| network | T | training, images/s | peak, GiB | 1 epoch | all | collecting, images/s | peak, GiB | all traces |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in given.network or NETWORKS:
        plan = plan_of(name)
        trained = measuring.in_fresh_process("imagenet.py", {**asked, "work": "training", "network": name}, given.threads)
        traced = measuring.in_fresh_process("imagenet.py", {**asked, "work": "collection", "network": name}, given.threads)
        # On a CPU, decoding competes with computing for the same cores.
        epoch = plan.data.train * (trained["seconds"] + 1 / decoded["train"]) / 3600
        image = traced["once"] + plan.time_steps * traced["step"] + 1 / decoded["evaluate"]
        hours = (TEST + plan.data.calibration) * image / 3600
        logits = (TEST + plan.data.calibration) * plan.time_steps * plan.data.classes
        how = f"{trained['arithmetic']}, batch {given.train_batch}"
        print(
            f"| {name} | {plan.time_steps} | {1 / trained['seconds']:.1f} ({how}) | "
            f"{trained['memory'] / 1024:.1f} | {epoch:.0f} h | {epoch * plan.recipe.epochs / 24:.0f} d | {1 / image:.2f} "
            f"(batch {traced['batch']}) | {traced['memory'] / 1024:.1f} | {hours:.0f} h, {4 * logits / 1e9:.1f} GB "
            f"({2 * logits / 1e9:.1f} GB as float16) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
