"""A network of your own: train it in PyTorch, convert it into an SNN, and exit early when it is confident.

python examples/own_network.py
dynconf analyse calibration.npz --test test.npz
"""

import argparse
from pathlib import Path

import digits
import torch
from torch import nn

from dynconf_core import (
    ExitAgent,
    Normalisation,
    TensorImages,
    analyse,
    collect,
    conversion_report,
    convert,
    run_until_confident,
)

TIME_STEPS = 16
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--out", type=Path, default=Path("."))
asked = parser.parse_args()
asked.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
torch.set_num_threads(1)


def images(split: str) -> TensorImages:
    """Digits as images with three equal channels, pixels 0 to 255."""
    pixels, labels = digits.load(split)
    squares = (255 * torch.from_numpy(pixels)).to(torch.uint8).view(-1, 1, 8, 8).expand(-1, 3, 8, 8)
    return TensorImages(squares, torch.from_numpy(labels), 10, Normalisation((0.3,) * 3, (0.37,) * 3))


training, calibration, test = (images(split) for split in ("train", "calibration", "test"))
inputs = training.normalisation(training.pixels)
ann = nn.Sequential(
    *(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    nn.Linear(48, 10),
)
optimiser = torch.optim.Adam(ann.parameters(), lr=5e-3)
for _ in range(asked.epochs):
    for batch in torch.randperm(len(training)).split(50):
        optimiser.zero_grad()
        nn.functional.cross_entropy(ann(inputs[batch]), training.labels[batch]).backward()
        optimiser.step()

snn = convert(ann.eval(), inputs, thresholds="error", time_steps=TIME_STEPS, neurons="signed", levels=7, correct=True)
print(conversion_report(snn, ann, inputs[:200], TIME_STEPS, training.labels[:200]))
known = collect(snn, ann, calibration, TIME_STEPS, facts={"trained_on_calibration": False})
unseen = collect(snn, ann, test, TIME_STEPS)
known.save(asked.out / "calibration.npz")
unseen.save(asked.out / "test.npz")

rule = analyse(known, unseen).rule  # smoothing and threshold, chosen on the calibration traces
exits = run_until_confident(snn, ExitAgent(rule), test, TIME_STEPS)
assert (exits.steps == rule.exit_steps(unseen)).all()  # live inference exits exactly as on the traces
full, early = unseen.correct()[:, -1].mean(), (exits.predictions == unseen.labels).mean()
print(f"test: {full:.2%} after all {TIME_STEPS} time steps, {early:.2%} after {exits.steps.mean():.2f} on average")
print(f"next: dynconf analyse {asked.out / 'calibration.npz'} --test {asked.out / 'test.npz'}")
