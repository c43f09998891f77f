"""Traces of a sinabs network: a trained ReLU network whose activations become integrate-and-fire neurons.

    pip install sinabs
    python examples/sinabs_digits.py
    dynconf analyse calibration.npz --test test.npz

sinabs computes all time steps together, with time and batch in one axis. The outputs of the ANN that was converted can be
stored in the traces as `ann_logits`.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import digits
import numpy as np
import torch
from sinabs.from_torch import from_model
from torch import Tensor, nn


def trained(epochs: int) -> nn.Sequential:
    """A ReLU network trained on the training images."""
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    images, labels = (torch.from_numpy(array) for array in digits.load("train"))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
    return network


def run(ann: nn.Sequential, images: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
    """Logits ``(n, T, 10)`` and spikes ``(n, T)`` of the spiking network; the image is a constant input current."""
    snn = from_model(ann, num_timesteps=time_steps).spiking_model
    emitted: list[Tensor] = []
    for layer in (snn[1], snn[3]):  # they replace the two ReLUs
        layer.register_forward_hook(lambda _layer, _input, spikes: emitted.append(spikes.sum(dim=1)))
    logits = snn(images.repeat_interleave(time_steps, dim=0))
    return logits.unflatten(0, (-1, time_steps)), sum(emitted).unflatten(0, (-1, time_steps))


@torch.no_grad()
def write(ann: nn.Sequential, split: str, time_steps: int, path: Path) -> float:
    """Write the traces of a split; returns the accuracy after all time steps."""
    images, labels = digits.load(split)
    logits, spikes = (array.numpy() for array in run(ann, torch.from_numpy(images), time_steps))
    ann_logits = ann(torch.from_numpy(images)).numpy()
    facts = {"source": f"sinabs {version('sinabs')}", "neurons": 256, "trained_on_calibration": False}
    np.savez(path, logits=logits, labels=labels, spikes=spikes, ann_logits=ann_logits, meta=json.dumps(facts))
    return float((logits.sum(axis=1).argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, convert, and write calibration.npz and test.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--time-steps", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not help so small a network
    ann = trained(asked.epochs)
    asked.out.mkdir(parents=True, exist_ok=True)
    calibration, test = asked.out / "calibration.npz", asked.out / "test.npz"
    write(ann, "calibration", asked.time_steps, calibration)
    accuracy = write(ann, "test", asked.time_steps, test)
    print(f"test accuracy after {asked.time_steps} time steps: {accuracy:.2%}")
    print(f"next: dynconf analyse {calibration} --test {test}")


if __name__ == "__main__":
    main()
