"""Throughput of the training loop against that of the bare network, in images per second.

    python benchmarks/training.py                           # ResNet-18 and VGG-16, quarter width, recipes quick and paper
    python benchmarks/training.py --device cuda --width 1 --recipe paper
    python benchmarks/training.py --plain --threads 1       # without channels-last, autocast and torch.compile
    python benchmarks/training.py --device cuda --width 1 --speed-ups channels_last,autocast,compiled,cuda_graphs

The training loop shuffles, gathers, augments and normalises images, trains, sums losses, reports progress and saves its state
after every epoch. The bare network repeats forward pass, backward pass and optimiser step on a single prepared batch. Both use
the speed-ups that the trial of the training loop chooses, or those that are named. They alternate in one process, an epoch
each, after a warm-up. The images are random, as the arithmetic does not depend on them.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import measuring
import torch
from torch.nn.functional import cross_entropy

LONG = 10**9
"""Steps of a run that is long enough for all speed-ups to be tried."""


def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Alternate between both; returns seconds per epoch of each, and the speed-ups."""
    from dynconf_core.data.cifar10 import NORMALISATION
    from dynconf_core.data.images import TensorImages
    from dynconf_core.experiment.profiles import resolve
    from dynconf_core.schemes.network import described
    from dynconf_core.training.loop import train
    from dynconf_core.training.speed import SpeedUps, allow_fast_arithmetic, probe

    device = torch.device(arguments["device"])
    if device.type == "cuda":
        allow_fast_arithmetic()
    plan = resolve(f"cifar10-{arguments['architecture']}-{arguments['method']}", arguments["recipe"])
    steps, repeats = arguments["steps"], arguments["repeats"]
    recipe = replace(plan.recipe, epochs=repeats + 1, batch_size=arguments["batch"] or plan.recipe.batch_size)
    description = {**plan.network(), "width": arguments["width"], "initial_threshold": recipe.initial_threshold}
    generator = torch.Generator().manual_seed(0)
    count = steps * recipe.batch_size
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = TensorImages(pixels, torch.randint(0, 10, (count,), generator=generator), 10, NORMALISATION)

    network = described(description, 0).to(device).train()
    batch = NORMALISATION(pixels[: recipe.batch_size]).to(device)
    labels = images.labels[: recipe.batch_size].to(device)
    speed_ups = SpeedUps.named(arguments["speed_ups"]) or probe(network, batch, labels, LONG)
    forward = speed_ups.prepared(network)
    batch = speed_ups.images(batch)
    on_gpu = device.type == "cuda"
    optimiser = torch.optim.SGD(
        network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, foreach=not on_gpu, fused=on_gpu
    )

    def bare() -> None:
        for _ in range(steps):
            with speed_ups.precision(device):
                loss = cross_entropy(forward(batch), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    seconds: dict[str, list[float]] = {"trainer": [], "bare": []}
    since = [time.perf_counter()]

    def turn(done: int, total: int, text: str) -> None:
        """At the end of an epoch, record its time and run the bare network for as many steps."""
        if done and done % steps == 0:
            for name, work in (("trainer", lambda: None), ("bare", bare)):
                work()
                if on_gpu:
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - since[0])
                since[0] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trained = described(description, 0)
        train(
            trained, images, recipe, seed=0, device=device, resume=Path(folder) / "resume", progress=turn, speed_ups=speed_ups
        )
    return {
        "images": count,
        "seconds": {name: taken[1:] for name, taken in seconds.items()},
        "speed_ups": [name for name, used in speed_ups.as_dict().items() if used],
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
    }


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", action="append", choices=("resnet18", "vgg16"))
    parser.add_argument("--method", default="qcfs", choices=("qcfs", "qffs"))
    parser.add_argument("--recipe", action="append", choices=("quick", "paper"))
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=None, help="images per step [default: the recipe's]")
    parser.add_argument("--steps", type=int, default=30, help="steps per epoch")
    parser.add_argument("--repeats", type=int, default=3, help="epochs measured, after a warm-up epoch")
    parser.add_argument("--speed-ups", action="append", help="auto, none, or names with commas; may be repeated [auto]")
    parser.add_argument("--plain", action="store_const", dest="speed_ups", const=["none"], help="no speed-ups")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    print(f"{given.steps} steps per epoch, medians of {given.repeats} epochs, {given.method}, width {given.width:g}")
    print(measuring.environment_line(given.threads))
    print("| network | recipe | speed-ups | bare network, images/s | training loop, images/s | share |")
    print("|---|---|---|---:|---:|---:|")
    for architecture in given.architecture or ("resnet18", "vgg16"):
        for recipe in given.recipe or ("quick", "paper"):
            for speed_ups in given.speed_ups or ["auto"]:
                fields = ("method", "width", "device", "batch", "steps", "repeats")
                asked = {name: getattr(given, name) for name in fields}
                asked |= {"architecture": architecture, "recipe": recipe, "speed_ups": speed_ups}
                found = measuring.in_fresh_process("training.py", asked, given.threads)
                pairs = list(zip(found["seconds"]["bare"], found["seconds"]["trainer"], strict=True))
                rates = [found["images"] / measuring.median(part) for part in zip(*pairs, strict=True)]
                share = measuring.median([bare / trainer for bare, trainer in pairs])
                names = ", ".join(found["speed_ups"]) or "none"
                row = f"| {architecture} | {recipe} | {names} | {rates[0]:.0f} | {rates[1]:.0f} | {100 * share:.1f} % |"
                print(row, flush=True)
                if found["device"] != "cpu":
                    print(f"on {found['device']}")


if __name__ == "__main__":
    main()
