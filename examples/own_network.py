"""A network of your own, from PyTorch to an SNN that stops when it is confident: convert, save, collect, choose, run.

    python examples/own_network.py
    dynconf analyse calibration.npz --test test.npz

Any network of convolutions, linear layers, batch normalisation, pools, additions, concatenations and ReLU-like activations
will do; `convert` names what it does not know.
"""

import argparse
from pathlib import Path

import digits
import torch
from torch import Tensor, nn

from dynconf_core.choosing.selection import operating_point
from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.conversion.report import conversion_report
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.front import front_of
from dynconf_core.exit.rule import Rule
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.traces.schema import Traces

TIME_STEPS = 16


def network() -> nn.Module:
    """Plain PyTorch, plain ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def images(split: str) -> TensorImages:
    """Digits as images of three equal channels, pixels 0 to 255."""
    pixels, labels = digits.load(split)
    squares = torch.from_numpy(pixels).view(-1, 1, 8, 8).expand(-1, 3, 8, 8)
    return TensorImages((255 * squares).to(torch.uint8), torch.from_numpy(labels), 10, Normalisation((0.3,) * 3, (0.37,) * 3))


def normalised(split: TensorImages) -> Tensor:
    """What the network is given."""
    return split.normalisation(split.pixels)


def train(ann: nn.Module, split: TensorImages, epochs: int) -> None:
    """Cross entropy, as for any network."""
    optimiser = torch.optim.Adam(ann.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(split)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(ann(normalised(split.subset(batch))), split.labels[batch]).backward()
            optimiser.step()


def traced(snn_file: Path, ann: nn.Module, split: TensorImages, path: Path) -> Traces:
    """All time steps of every image, as traces, which lie at ``path`` afterwards."""
    traces = collect(load_snn(snn_file), ann, split, TIME_STEPS, facts={"trained_on_calibration": False})
    traces.save(path)
    return traces


def main() -> None:
    """Train, convert, report, save, load, collect, choose a rule on calibration images, stop early on test images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ann, training, calibration, test = network(), images("train"), images("calibration"), images("test")
    train(ann, training, asked.epochs)
    ann.eval()

    snn = convert(
        ann, normalised(training), thresholds="error", time_steps=TIME_STEPS, neurons="signed", levels=7, correct=True
    )
    print(conversion_report(snn, ann, normalised(training)[:200], TIME_STEPS, training.labels[:200]))
    asked.out.mkdir(parents=True, exist_ok=True)
    save_snn(snn, asked.out / "snn.pt")

    known = traced(asked.out / "snn.pt", ann, calibration, asked.out / "calibration.npz")
    unseen = traced(asked.out / "snn.pt", ann, test, asked.out / "test.npz")
    smoothing = Smoothing("sum", alpha=10.0)
    front = front_of(known, "max_softmax", smoothing)
    point = operating_point(front, known.correct()[:, -1].mean(), max_drop=0.005)
    rule = Rule("max_softmax", smoothing, float(front.thresholds[point]))

    exits = run_until_confident(load_snn(asked.out / "snn.pt"), ExitAgent(rule), test, TIME_STEPS)
    assert (exits.steps == rule.exit_steps(unseen)).all()  # the live run stops exactly where the traces say
    full, early = unseen.correct()[:, -1].mean(), (exits.predictions == unseen.labels).mean()
    print(f"test: {full:.2%} after all {TIME_STEPS} time steps, {early:.2%} after {exits.steps.mean():.2f} on average")
    print(f"next: dynconf analyse {asked.out / 'calibration.npz'} --test {asked.out / 'test.npz'}")


if __name__ == "__main__":
    main()
