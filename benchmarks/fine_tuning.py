"""What fine-tuning a converted SNN gains and costs: accuracy at fixed T, and mean steps with exit at equal accuracy.

python benchmarks/fine_tuning.py trained.pt --profile quick --width 0.125 --data DATA --images 3000 --batch 64 \
    --split test --judged 4000

fine-tunes a trained checkpoint on the first training images once for each of some ways, or for those that ``--only`` names, and
judges each network, converted with fixed-point weights, on the first images of a split or of both. The threshold of the exit
(max softmax of the mean output) is read off the same images, so that the networks are compared at the same accuracy.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dynconf_core.activations.potential import Charging
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.data.images import TensorImages
from dynconf_core.errors import InputError
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.simulation.exactness import plain_arithmetic
from dynconf_core.training.fine_tuning import fine_tune

WAYS = {
    "as trained": FineTuning(epochs=0),
    "steps alone": FineTuning(1, settled=0.0, distilled=0.0),
    "steps, distilled": FineTuning(1, settled=0.0, distilled=1.0),
    "steps and network": FineTuning(1, settled=1.0, distilled=0.0),
    "steps and network, half distilled": FineTuning(1),
    "steps alone, potentials": FineTuning(1, settled=0.0, distilled=0.0, potentials=True),
    "steps and network, half distilled, potentials": FineTuning(1, potentials=True),
}
"""By name; ``--epochs`` and ``--steps`` say how long, ``--rate`` how fast."""
BATCH = 250
THRESHOLDS = 400
TIMES = (1, 2, 3, 4, 6, 8, 16, 32)


def tuned(plan: Plan, checkpoint: Path, how: FineTuning, data: Path, images: int, device: torch.device) -> nn.Module:
    """The network of a checkpoint, fine-tuned on the first ``images`` of the training split; as it is for 0 epochs."""
    network = described(plan.network(), plan.seed)
    load_checkpoint(network, checkpoint)
    if how:
        training = images_of(plan.data, "train", data)
        if not isinstance(training, TensorImages):
            raise InputError(f"data set {plan.data.name!r} lies in files of images: choose one that is held in memory.")
        options = ConversionOptions(time_steps=plan.time_steps).changed(plan.scheme.conversion(plan.time_steps))
        some = training.subset(torch.arange(min(images, len(training))))
        fine_tune(network, some, plan.recipe, how, options, seed=plan.seed, device=device)
    return network.to(device).eval()


@torch.no_grad()
def judged(plan: Plan, network: nn.Module, pixels: Tensor, labels: Tensor) -> dict[str, object]:
    """Accuracies at some time steps, of the network itself, and the mean steps with exit by accuracy in per cent."""
    steps, device = plan.time_steps, pixels.device
    options = plan.scheme.conversion(steps)
    snn = convert(network.cpu(), pixels[:1].cpu(), **options, time_steps=steps, image_limit=float(pixels.abs().max())).to(
        device
    )
    with plain_arithmetic():
        sums = torch.cat([snn(part, steps) for part in pixels.split(BATCH)]).cumsum(1)
    itself = torch.cat([network.to(device)(part) for part in pixels.split(BATCH)])
    correct = sums.argmax(2) == labels[:, None]
    shown = torch.arange(1, steps + 1, device=device).clamp_max_(snn.input_steps(steps)).view(-1, 1)
    confidence = (sums / shown).softmax(2).amax(2)
    confidence[:, -1] = torch.inf
    curve = []
    for threshold in quantiles(confidence[:, :-1]):
        exits = (confidence >= threshold).double().argmax(1)
        curve.append((float((exits + 1).double().mean()), float(correct.gather(1, exits[:, None]).double().mean())))
    reached = {
        percent: min(mean for mean, accuracy in curve if 100 * accuracy >= percent)
        for percent in range(2, 101, 2)
        if any(100 * accuracy >= percent for _, accuracy in curve)
    }
    return {
        "itself": float((itself.argmax(1) == labels).double().mean()),
        "accuracy": {t: float(correct[:, t - 1].double().mean()) for t in TIMES if t <= steps},
        "mean_steps_at": reached,
    }


def quantiles(values: Tensor) -> Tensor:
    """Evenly spaced quantiles of ``values``, more than ``torch.quantile`` takes."""
    ordered = values.flatten().sort().values
    return ordered[torch.linspace(0, len(ordered) - 1, THRESHOLDS).long()]


def main() -> None:
    """Print a line of JSON for the network as it is and for each way of fine-tuning it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--setting", default="cifar10-resnet18-qcfs")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--width", type=float)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=FineTuning.learning_rate)
    parser.add_argument("--only", action="append", choices=list(WAYS), help="may be given several times")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--split", action="append", help="whatever is chosen is chosen on calibration [calibration]")
    parser.add_argument("--judged", type=int, default=1_500, help="images of each split [1500]")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    plan = resolve(given.setting, given.profile)
    plan = replace(plan, width=given.width or plan.width)
    plan = replace(plan, recipe=replace(plan.recipe, batch_size=given.batch or plan.recipe.batch_size))
    for name in given.only or WAYS:
        how = WAYS[name]
        how = replace(how, epochs=given.epochs if how else 0, steps=given.steps, learning_rate=given.rate)
        network = tuned(plan, given.checkpoint, how, given.data, given.images, device)
        offsets = (one.offset for one in network.modules() if isinstance(one, Charging) and one.offset is not None)
        potentials = [round(0.5 + float(offset.detach()), 3) for offset in offsets]
        for split in given.split or ["calibration"]:
            images = images_of(plan.data, split, given.data)
            some = torch.arange(min(given.judged, len(images)))
            pixels, labels = images.normalisation(images.batch(some)).to(device), images.labels[some].to(device)
            found = {"way": name, split: len(some), **judged(plan, network, pixels, labels), "potentials": potentials}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
