"""Events of moving digits: a network trained on summed events, converted into an SNN that sees them frame by frame, and exits.

python examples/moving_digits.py
dynconf analyse calibration.npz --test test.npz

Each of scikit-learn's handwritten digits moves on a small circle before an event camera, for a time of its own. A pixel sends
an event whenever its log intensity has risen (first channel) or fallen (second channel) by a threshold since its last event.
The network learns from the mean frame of a recording; its SNN receives one frame of events in each time step.
"""

import argparse
import math
from pathlib import Path

import digits
import torch
from torch import Tensor, nn

from dynconf_core import ExitAgent, Frames, analyse, collect, convert, run_until_confident

SIDE, TIME_STEPS, SHORTEST = 12, 24, 12
THRESHOLD = 0.2  # change of the log intensity that is an event
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--out", type=Path, default=Path("."))
asked = parser.parse_args()
asked.out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
torch.set_num_threads(1)


def events(images: Tensor, phase: Tensor) -> Tensor:
    """Numbers of events ``(N, T, 2, SIDE, SIDE)`` of ``images (N, 1, 8, 8)`` that start on their circles at ``phase (N,)``."""
    found, seen = [], None
    for step in range(TIME_STEPS + 1):
        angle = phase + 2 * math.pi * step / 10
        shift = torch.stack([angle.cos(), angle.sin()], 1)[:, :, None] / 8  # half a pixel of the digit
        scale = (torch.eye(2) * SIDE / 8).expand(len(images), 2, 2)
        grid = nn.functional.affine_grid(torch.cat([scale, shift], 2), [len(images), 1, SIDE, SIDE], align_corners=False)
        level = (nn.functional.grid_sample(images, grid, align_corners=False) + 0.1).log()
        seen = level if seen is None else seen
        sent = ((level - seen) / THRESHOLD).trunc()
        seen = seen + sent * THRESHOLD
        if step:
            found.append(torch.cat([sent.clamp_min(0), -sent.clamp_max(0)], 1))
    return torch.stack(found, 1)


def recordings(split: str) -> Frames:
    """The events of a split; each recording ends after a number of time steps of its own."""
    pixels, labels = digits.load(split)
    generator = torch.Generator().manual_seed(len(labels))
    frames = events(torch.from_numpy(pixels).view(-1, 1, 8, 8), 2 * math.pi * torch.rand(len(labels), generator=generator))
    lengths = torch.randint(SHORTEST, TIME_STEPS + 1, (len(labels),), generator=generator)
    frames[torch.arange(TIME_STEPS) >= lengths[:, None]] = 0
    return Frames(frames, torch.from_numpy(labels), lengths)


training, calibration, test = (recordings(split) for split in ("train", "calibration", "test"))
ann = nn.Sequential(
    *(nn.Conv2d(2, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
    nn.Linear(288, 10),
)
optimiser = torch.optim.Adam(ann.parameters(), lr=5e-3)
running = training.frames.cumsum(1)
for _ in range(asked.epochs):
    for batch in torch.randperm(len(training)).split(50):
        seen = (torch.rand(len(batch)) * training.lengths[batch]).long() + 1  # beginnings of recordings, too
        optimiser.zero_grad()
        means = running[batch, seen - 1] / seen.view(-1, 1, 1, 1)
        nn.functional.cross_entropy(ann(means), training.labels[batch]).backward()
        optimiser.step()

means = running[:, -1] / training.lengths.view(-1, 1, 1, 1)
limit = float(max(split.frames.max() for split in (training, calibration, test)))
snn = convert(ann.eval(), means, thresholds="error", time_steps=TIME_STEPS, image_limit=limit)
known = collect(snn, ann, calibration, TIME_STEPS, facts={"trained_on_calibration": False, "source": "moving digits"})
unseen = collect(snn, ann, test, TIME_STEPS, facts={"source": "moving digits"})
known.save(asked.out / "calibration.npz")
unseen.save(asked.out / "test.npz")

rule = analyse(known, unseen).rule
exits = run_until_confident(snn, ExitAgent(rule), test, TIME_STEPS)
assert (exits.steps == rule.exit_steps(unseen)).all()  # live inference exits exactly as on the traces
of_ann = (unseen.ann_logits.argmax(1) == unseen.labels).mean()
full, early = unseen.correct()[:, -1].mean(), (exits.predictions == unseen.labels).mean()
print(f"test: {of_ann:.2%} by the trained network on mean frames")
print(f"SNN: {full:.2%} at the end of each recording, after {unseen.ends.mean():.2f} time steps on average")
print(f"SNN with exit: {early:.2%} after {exits.steps.mean():.2f} time steps on average")
print(f"next: dynconf analyse {asked.out / 'calibration.npz'} --test {asked.out / 'test.npz'}")
