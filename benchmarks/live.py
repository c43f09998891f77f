"""Live exit by the clock: how much of the saving in time steps is a saving of seconds.

    python benchmarks/live.py                     # ResNet-18 at quarter width, batches of 64 and 256, and one image at a time
    python benchmarks/live.py --width 0.125

The exit steps are drawn beforehand (T = 27, mean near the 11.5 of the released log), so that every contender stops the
same samples at the same steps:

- all steps: batches that run all T steps (the best batch among those tried is the yardstick);
- mask: finished samples stay in the batch until its last one is done;
- live: ``run_until_confident``, which compacts and refills.

The bound is T / mean exit step; the share of the bound is what the clock gives of it. For one image at a time the yardstick
is a plain loop over ``step`` that stops.
"""

import argparse
import json
import time
from typing import Any

import measuring
import numpy as np
import torch
from torch import Tensor
from traces import network

TIME_STEPS = 27
BATCHES = (16, 32, 64, 128, 256)


def exit_steps(count: int) -> np.ndarray:
    """A long-tailed draw with the mean of the released log of the paper (11.5 of 27): a peak near 6, some at T."""
    draws = np.random.default_rng(0).gamma(1.35, 5.75, size=count) + 3.5
    return np.clip(np.ceil(draws), 3, TIME_STEPS).astype(np.int64)


class DrawnAgent:
    """Stops sample i at ``steps[i]``, whatever the logits: the samples are told apart by the order in which they begin."""

    def __init__(self, steps: np.ndarray) -> None:
        from dynconf_core.confidence.smoothing import Smoothing
        from dynconf_core.exit.agent import ExitAgent
        from dynconf_core.exit.rules import Rule

        self.inner = ExitAgent(Rule("max_softmax", Smoothing("sum", 10.0), float("inf")))
        self.steps, self.begun = torch.from_numpy(steps), 0

    def initial(self, samples: int, classes: int, device: Any) -> Any:
        state = self.inner.initial(samples, classes, device)
        # The place of the prediction's age holds the step at which the sample is to leave: the agent's work stays the same.
        leaving = self.steps[self.begun : self.begun + samples].to(device)
        self.begun += samples
        return state._replace(standing=leaving)

    def __call__(self, logits: Tensor, state: Any) -> Any:
        prediction, score, _, after = self.inner(logits, state)
        return prediction, score, after.step >= state.standing, after._replace(standing=state.standing)


@torch.inference_mode()
def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds for all samples, of every repeat."""
    from dynconf_core.conversion.convert import convert
    from dynconf_core.simulation.counts import Counter
    from dynconf_core.simulation.exactness import plain_arithmetic
    from dynconf_core.simulation.live import run_until_confident

    with torch.inference_mode(False):
        ann, images = network(arguments["architecture"], arguments["width"])
        snn = convert(ann, images[:8], time_steps=TIME_STEPS)
    batch, count = arguments["batch"], arguments["samples"]
    pixels = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    steps = exit_steps(count)
    snn.accelerate(batch)
    counter = Counter(snn)

    def fixed(masked: bool) -> None:
        for start in range(0, count, batch):
            drive, state = snn.drive(pixels[start : start + batch]), None
            last = int(steps[start : start + batch].max()) if masked else TIME_STEPS
            for step in range(1, last + 1):
                state = snn.step(drive, state, step, counter).state
                counter.taken()

    def agent() -> Any:
        return DrawnAgent(steps)

    contenders = {
        "all steps": lambda: fixed(False),
        "mask": lambda: fixed(True),
        "live": lambda: run_until_confident(snn, agent(), pixels, TIME_STEPS, batch=batch),
    }
    run, seconds = contenders[arguments["contender"]], []
    with plain_arithmetic():
        for repeat in range(2):
            start = time.perf_counter()
            run()
            if repeat:
                seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[0]}


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", default="resnet18", choices=("resnet18", "vgg16"))
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    steps = exit_steps(given.samples)
    bound = TIME_STEPS / float(steps.mean())
    print(f"{given.architecture}, width {given.width:g}, {given.samples} samples, T = {TIME_STEPS}", end=", ")
    print(f"mean exit {steps.mean():.2f}, bound {bound:.2f}x, medians of {given.repeats}")
    print(measuring.environment_line(given.threads))

    def seconds(contender: str, batch: int, samples: int) -> float:
        asked = {"architecture": given.architecture, "width": given.width, "contender": contender, "batch": batch}
        found: float = measuring.in_fresh_process("live.py", {**asked, "samples": samples}, given.threads)["seconds"]
        return found

    tried = {batch: seconds("all steps", batch, given.samples) for batch in BATCHES}
    best = min(tried, key=tried.__getitem__)
    runs = [("all steps", best), *((contender, batch) for batch in (64, 256) for contender in ("mask", "live"))]
    rounds: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    for _ in range(given.repeats):
        for contender, batch in runs:
            rounds[contender, batch].append(seconds(contender, batch, given.samples))
    print("| contender | batch | images/s | against all steps | share of the bound |")
    print("|---|---:|---:|---:|---:|")
    for (contender, batch), times in rounds.items():
        gain = measuring.median([full / one for full, one in zip(rounds["all steps", best], times, strict=True)])
        rate = given.samples / measuring.median(times)
        print(f"| {contender} | {batch} | {rate:.1f} | {gain:.2f}x | {100 * gain / bound:.0f} % |")
    few = 32
    alone: dict[str, list[float]] = {"mask": [], "live": []}
    for _ in range(given.repeats):
        for contender, times in alone.items():
            times.append(seconds(contender, 1, few))
    for contender, times in alone.items():
        name = "plain loop that stops" if contender == "mask" else "live"
        print(f"| {name} | 1 | {few / measuring.median(times):.1f} | {1e3 * measuring.median(times) / few:.0f} ms an image | |")


if __name__ == "__main__":
    main()
