"""What each option of a recipe is worth: trainings that differ in one option, and the SNNs they give.

    python benchmarks/recipes.py --out FOLDER --data DATA            # trains what FOLDER lacks, one after the other
    python benchmarks/recipes.py --out FOLDER --table                # the table of what is there

Small on purpose: ResNet-18 by QCFS at an eighth of the width, some of CIFAR-10's training images, a few epochs. Every network
is judged on images of the calibration split, which are training images held out; the test images are not read. An interrupted
run goes on with the last saved epoch. The mean steps are those of the exact front of max softmax on the same images, at a loss
of at most 0.1 points: optimistic, but alike for all.
"""

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch

from dynconf_core.choosing.selection import operating_point
from dynconf_core.conversion.convert import convert
from dynconf_core.data.images import TensorImages, limit
from dynconf_core.exit.front import exact_front
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.overrides import applied, check_values, typed
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.start import untrained
from dynconf_core.files import written
from dynconf_core.networks.checkpoint import save_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.simulation.collect import collect
from dynconf_core.training.loop import train

STEPS = (1, 2, 4, 8, 16, 32)
"""Time steps of the table, as far as T reaches."""
DROP = 0.001
LIGHT = {"augmentation": "crop+flip"}


@dataclass(frozen=True)
class Variant:
    """A recipe to try.

    Attributes:
        name: its row in the table.
        changes: of the plan, as for ``--set``, beside ``LIGHT`` where it is a trick of its own.
        of_relu: whether it starts from a ReLU network that is trained in the same way for ``relu_epochs``.
        relu_epochs, epochs: as parts of the epochs of the others.
    """

    name: str
    changes: dict[str, str] = field(default_factory=dict)
    of_relu: bool = False
    relu_epochs: float = 1.0
    epochs: float = 1.0


QCFS = (
    Variant("AutoAugment and Cutout (the recipe of `paper`)", {"augmentation": "crop+flip+autoaugment+cutout"}),
    Variant("crop and flip: the base of all below"),
    Variant("noise 0.5", {"noise": "0.5"}),
    Variant("weight averaging, 0.998", {"averaging": "0.998"}),
    Variant("label smoothing 0.1", {"label_smoothing": "0.1"}),
    Variant("Nesterov momentum", {"nesterov": "true"}),
    Variant("Nesterov, peak rate 0.2, warm-up 20 %", {"nesterov": "true", "learning_rate": "0.2", "warm_up": "0.2"}),
    Variant("last batch norm gamma 0", {"zero_gamma": "true"}),
    Variant("no weight decay on thresholds", {"decay_thresholds": "false"}),
    Variant("no weight decay on thresholds, batch norm, biases", {"decay_thresholds": "false", "decay_norms": "false"}),
    Variant("noise 0.25", {"noise": "0.25"}),
    Variant("L = 2", {"levels": "2"}),
    Variant("from ReLU weights, half of the epochs each", {"learning_rate": "0.05"}, True, 0.5, 0.5),
    Variant("from ReLU weights, all epochs each", {"learning_rate": "0.05"}, True),
    Variant("RCS 0.01", {"rcs": "0.01"}),
    Variant("RCS 0.1", {"rcs": "0.1"}),
    Variant("L = 8", {"levels": "8"}),
    Variant("L = 4, at the start 16", {"finer_start": "4"}),
    Variant("L = 8, noise 0.5", {"levels": "8", "noise": "0.5"}),
    Variant("noise 1", {"noise": "1"}),
    Variant("initial lambda 2", {"initial_threshold": "2"}),
    Variant("initial potential 0.25 of the threshold", {"initial_potential": "0.25"}),
    Variant("twice the epochs", {}, epochs=2.0),
    Variant("AutoAugment and Cutout, twice the epochs", {"augmentation": "crop+flip+autoaugment+cutout"}, epochs=2.0),
)
QFFS = (
    Variant("crop and flip: the base of all below"),
    Variant("noise 0.5", {"noise": "0.5"}),
    Variant("3 bits", {"bits": "3"}),
    Variant("4 bits", {"bits": "4"}),
    Variant("3 bits, noise 0.5", {"bits": "3", "noise": "0.5"}),
    Variant("weight averaging, 0.998", {"averaging": "0.998"}),
    Variant("no weight decay on steps", {"decay_thresholds": "false"}),
    Variant("2 bits, at the start 4", {"finer_start": "4"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of results, checkpoints and resume files")
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--setting", default="cifar10-resnet18-qcfs")
    parser.add_argument("--images", type=int, default=10000, help="training images, the first of the split [10000]")
    parser.add_argument("--judged", type=int, default=2000, help="images of the calibration split, the first [2000]")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--seed", type=int, action="append", help="may be repeated [0]")
    parser.add_argument("--only", action="append", help="the start of a row's name; may be repeated")
    parser.add_argument("--table", action="store_true", help="print the table and train nothing")
    given = parser.parse_args()
    variants = [one for one in (QFFS if given.setting.endswith("qffs") else QCFS)]
    variants = [one for one in variants if given.only is None or any(one.name.startswith(start) for start in given.only)]
    folder = given.out / f"{given.setting}-width{given.width:g}-{given.images}-{given.epochs}"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in given.seed or [0]:
        for variant in variants if not given.table else ():
            _made(variant, given, seed, folder)
    print(_table(variants, given, folder))


def _made(variant: Variant, given: argparse.Namespace, seed: int, folder: Path) -> None:
    """Train, convert and judge, unless that is done."""
    out = folder / f"{_file(variant)}-{seed}.json"
    if out.exists():
        return
    start = time.perf_counter()
    plan = _plan(given, seed, {**LIGHT, **variant.changes, "epochs": str(max(1, round(given.epochs * variant.epochs)))})
    images = _some(images_of(plan.data, "train", given.data), given.images)
    if variant.of_relu:
        plan = replace(
            plan, recipe=replace(plan.recipe, initial_weights=str(_relu(variant, plan, given, seed, images, folder)))
        )
    network, _ = untrained(plan)
    record = train(network, images, plan.recipe, seed=seed, device=torch.device("cpu"), resume=out.with_suffix(".resume"))
    judged = _some(images_of(plan.data, "calibration", given.data), given.judged)
    snn = convert(
        network,
        judged.normalisation(judged.batch(torch.arange(plan.scheme.images))),
        **plan.scheme.conversion(plan.time_steps),
        time_steps=plan.time_steps,
        fixed_point=plan.fixed_point,
        image_limit=limit(judged),
    )
    traces = collect(snn, network, judged, plan.time_steps)
    sums = np.cumsum(traces.logits.astype(np.float64), axis=1)
    correct = sums.argmax(2) == traces.labels[:, None]
    assert traces.ann_logits is not None
    steps = np.arange(1, plan.time_steps + 1)[None, :, None]
    means = sums / steps
    scores = np.exp(means.max(2) - np.logaddexp.reduce(means, axis=2))
    front = exact_front(scores, correct)
    point = operating_point(front, float(correct[:, -1].mean()), DROP)
    found = {
        "name": variant.name,
        "recipe": plan.recipe.as_dict(),
        "scheme": plan.scheme_fields(),
        "seed": seed,
        "images": len(images),
        "judged": len(judged),
        "loss": record["losses"][-1],
        "ann": float((traces.ann_logits.argmax(1) == traces.labels).mean()),
        "snn": correct.mean(0).tolist(),
        "mean_steps": float(front.mean_steps[point]),
        "seconds": time.perf_counter() - start,
        "environment": measuring.environment_line(torch.get_num_threads()),
    }
    save_checkpoint(network, {"variant": variant.name}, out.with_suffix(".pt"), half=True)
    with written(out) as stream:
        stream.write(json.dumps(found, indent=1).encode())
    out.with_suffix(".resume").unlink(missing_ok=True)
    print(_row(found), flush=True)


def _relu(variant: Variant, plan: Plan, given: argparse.Namespace, seed: int, images: TensorImages, folder: Path) -> Path:
    """The weights of the same network with ReLU, trained by the base's recipe."""
    epochs = max(1, round(given.epochs * variant.relu_epochs))
    out = folder / f"relu-{epochs}-{seed}.pt"
    if not out.exists():
        description = {name: value for name, value in plan.network().items() if name not in plan.scheme.network()}
        network = described({**description, "method": "post-training"}, seed)
        recipe = replace(_plan(given, seed, LIGHT).recipe, epochs=epochs)
        train(network, images, recipe, seed=seed, device=torch.device("cpu"), resume=out.with_suffix(".resume"))
        save_checkpoint(network, {"epochs": epochs}, out)
        out.with_suffix(".resume").unlink(missing_ok=True)
    return out


def _plan(given: argparse.Namespace, seed: int, changes: dict[str, str]) -> Plan:
    """The recipe of ``paper`` at a small scale; lambda starts at 4, as short trainings need."""
    small = {"width": str(given.width), "initial_threshold": "4", "warm_up": "0.1", "epochs": str(given.epochs)}
    plan = resolve(given.setting, "paper", seed)
    plan = applied(plan, {name: typed(name, text, [plan]) for name, text in {**small, **changes}.items()})
    check_values(plan)
    return plan


def _some(images: Any, count: int) -> TensorImages:
    assert isinstance(images, TensorImages)
    return images.subset(torch.arange(min(count, len(images))))


def _file(variant: Variant) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in variant.name).strip("-")


def _table(variants: list[Variant], given: argparse.Namespace, folder: Path) -> str:
    lines, counts = [], set()
    steps = 0
    for variant in variants:
        for seed in given.seed or [0]:
            out = folder / f"{_file(variant)}-{seed}.json"
            if out.exists():
                found = json.loads(out.read_text())
                steps = len(found["snn"])
                counts.add((found["images"], found["judged"], found["environment"]))
                lines.append(_row(found))
    shown = [step for step in STEPS if step <= steps]
    head = f"| recipe | ANN, % | {' | '.join(f'step {step}' for step in shown)} | mean steps at 0.1 points |"
    rule = f"|---|---:|{'---:|' * len(shown)}---:|"
    notes = [f"({images} training images, {judged} judged; {where})" for images, judged, where in sorted(counts)]
    return "\n".join([head, rule, *lines, *notes])


def _row(found: dict[str, Any]) -> str:
    snn = [f"{100 * found['snn'][step - 1]:.1f}" for step in STEPS if step <= len(found["snn"])]
    seed = f", seed {found['seed']}" if found["seed"] else ""
    return f"| {found['name']}{seed} | {100 * found['ann']:.1f} | {' | '.join(snn)} | {found['mean_steps']:.2f} |"


if __name__ == "__main__":
    main()
