"""Live exit in wall-clock time: how much of the saving in time steps becomes a saving in seconds.

    python benchmarks/live.py                     # ResNet-18 at quarter width, batches of 64 and 256, and one image at a time
    python benchmarks/live.py --samples 10000 --repeats 1
    python benchmarks/live.py --device cuda --width 1 --batches 256 1024

The exit steps are drawn in advance (T = 27, with a mean near the 11.5 of the released log), so that all contenders stop the
same samples at the same steps; the confidence is computed nevertheless:

- all steps: batches run all T steps and count their spikes (the best batch size tried is the reference);
- mask: samples that have exited remain in the batch until its last one exits;
- live: ``run_until_confident``, which refills and compacts; its batch size is an upper limit.

The ideal speedup is T / mean exit step; the table shows which share of it is reached. "all steps" and "mask" cost the same for
each batch and are timed on fewer samples. For one image at a time the reference is a plain loop over ``step`` that stops,
without and with the agent's confidence.
"""

import argparse
import json
import time
from typing import Any

import measuring
import numpy as np
import torch
from torch import Tensor
from traces import converted

TIME_STEPS = 27
FULL = {
    "cpu": (("all steps", 32), ("all steps", 64), ("all steps", 128), ("all steps", 256), ("all steps, chunks", 64)),
    "cuda": (("all steps", 256), ("all steps", 1024), ("all steps, chunks", 256)),
}
"""Contenders with their batch sizes; "chunks" computes several time steps together (``SpikingNetwork.run``)."""
FEW = {"cpu": 512, "cuda": 1024}
"""Samples for contenders that cost the same for each batch."""
ALONE = 32
"""Samples for one image at a time."""
LIKELY = 2
"""Number of the fastest in the first round that are timed further; the best median is the reference."""


def exit_steps(count: int) -> np.ndarray:
    """Long-tailed exit steps with the mean of the paper's released log (11.5 of 27): a peak near 6, some at T."""
    draws = np.random.default_rng(0).gamma(1.35, 5.75, size=count) + 3.5
    return np.clip(np.ceil(draws), 3, TIME_STEPS).astype(np.int64)


class DrawnAgent:
    """Stops sample i at ``steps[i]`` regardless of the logits; samples are numbered in the order in which they start."""

    def __init__(self, steps: np.ndarray) -> None:
        from dynconf_core.confidence.smoothing import Smoothing
        from dynconf_core.exit.agent import ExitAgent
        from dynconf_core.exit.rule import Rule

        self.inner = ExitAgent(Rule("max_softmax", Smoothing("sum", 10.0), float("inf")))
        self.rule = self.inner.rule
        self.steps, self.begun = torch.from_numpy(steps), 0

    def initial(self, samples: int, classes: int, device: Any) -> Any:
        state = self.inner.initial(samples, classes, device)
        # Max softmax has no memory of its own and passes on what it is given: here, the drawn exit step.
        exiting = self.steps[self.begun : self.begun + samples].to(device)
        self.begun += samples
        return state._replace(memory=(exiting,))

    def __call__(self, logits: Tensor, state: Any) -> Any:
        prediction, score, _, after = self.inner(logits, state)
        return prediction, score, after.step >= after.memory[0], after


@torch.inference_mode()
def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds per sample, after a warm-up run."""
    from dynconf_core.simulation.counts import Counter
    from dynconf_core.simulation.exactness import plain_arithmetic
    from dynconf_core.simulation.live import run_until_confident

    with torch.inference_mode(False):
        snn, images = converted(arguments["architecture"], arguments["width"], TIME_STEPS)
        snn, images = snn.to(arguments["device"]), images.to(arguments["device"])
    contender, batch = arguments["contender"], arguments["batch"]
    on_gpu = arguments["device"] != "cpu"
    if not on_gpu:
        snn.accelerate(batch)
    counter = Counter(snn)

    def in_batches(pixels: Tensor, steps: np.ndarray) -> None:
        agent = DrawnAgent(steps) if contender == "loop with agent" else None
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch]
            input_current, state = snn.input_current(part), None
            remembered = None if agent is None else agent.initial(len(part), 10, part.device)
            last = TIME_STEPS if contender == "all steps" else int(steps[start : start + batch].max())
            for time_step in range(1, last + 1):
                step = snn.step(input_current, state, time_step, counter)
                state = step.state
                counter.in_all()
                if agent is not None:
                    remembered = agent(step.logits, remembered)[-1]

    def all_at_once(pixels: Tensor, steps: np.ndarray) -> None:
        for start in range(0, len(pixels), batch):
            for _ in snn.run(pixels[start : start + batch], TIME_STEPS, counter):
                counter.in_all()

    def live(pixels: Tensor, steps: np.ndarray) -> None:
        run_until_confident(snn, DrawnAgent(steps), pixels, TIME_STEPS, batch=batch)

    run = {"live": live, "all steps, chunks": all_at_once}.get(contender, in_batches)
    with plain_arithmetic():
        for count in (min(arguments["samples"], 2 * batch), arguments["samples"]):
            pixels, steps = images.repeat(-(-count // len(images)), 1, 1, 1)[:count], exit_steps(count)
            start = time.perf_counter()
            run(pixels, steps)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    return {"seconds": seconds / arguments["samples"]}


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", default="resnet18", choices=("resnet18", "vgg16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--samples", type=int, default=4096, help="samples of the live runs")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256], help="batch sizes of the live runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return

    def seconds(contender: str, batch: int, samples: int) -> float:
        asked = {name: getattr(given, name) for name in ("architecture", "width", "device")}
        asked |= {"contender": contender, "batch": batch}
        found: float = measuring.asked(worker, "live.py", {**asked, "samples": samples}, given.threads)["seconds"]
        return found

    mean = float(exit_steps(given.samples).mean())
    ideal = TIME_STEPS / mean
    print(f"{given.architecture}, width {given.width:g}, {given.samples} samples live, T = {TIME_STEPS}", end=", ")
    print(f"mean exit {mean:.2f}, ideal speedup {ideal:.2f}x, medians of {given.repeats}")
    print(measuring.environment_line(given.threads))
    few = min(FEW[given.device], given.samples)
    tried = {run: seconds(*run, few) for run in FULL[given.device]}
    likely = sorted(tried, key=tried.__getitem__)[:LIKELY]
    runs = [*likely, ("mask", given.batches[0]), *(("live", batch) for batch in given.batches)]
    rounds: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    for _ in range(given.repeats):
        for contender, batch in runs:
            rounds[contender, batch].append(seconds(contender, batch, given.samples if contender == "live" else few))
    best = min(likely, key=lambda run: measuring.median(rounds[run]))
    print("| contender | batch | images/s | against all steps | share of the ideal |")
    print("|---|---:|---:|---:|---:|")
    for (contender, batch), times in rounds.items():
        gain = measuring.median([full / one for full, one in zip(rounds[best], times, strict=True)])
        print(f"| {contender} | {batch} | {1 / measuring.median(times):.1f} | {gain:.2f}x | {100 * gain / ideal:.0f} % |")
    alone: dict[str, list[float]] = {"loop that stops": [], "loop with agent": [], "live": []}
    for _ in range(given.repeats):
        for contender, times in alone.items():
            times.append(seconds(contender, 1, ALONE))
    for contender, times in alone.items():
        print(f"| {contender} | 1 | {1 / measuring.median(times):.1f} | {1e3 * measuring.median(times):.1f} ms per image | |")


if __name__ == "__main__":
    main()
