"""Traces of a SpikingJelly network: two layers of integrate-and-fire neurons, trained with surrogate gradients.

    pip install spikingjelly
    python examples/spikingjelly_digits.py
    dynconf analyse calibration.npz --test test.npz

The image is a constant input current. The output layer has no neurons: its output in a time step is the logits of that step.
Traces hold the logits of each step, not their running sum.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import digits
import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn


class SpikingNetwork(nn.Module):
    """One call is one time step; SpikingJelly's neurons keep their membrane potential between calls."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 10)
        self.neurons1 = neuron.IFNode(v_reset=None, surrogate_function=surrogate.ATan())
        self.neurons2 = neuron.IFNode(v_reset=None, surrogate_function=surrogate.ATan())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(n, 10)`` and numbers of spikes ``(n,)`` of this time step."""
        spikes1 = self.neurons1(self.first(images))
        spikes2 = self.neurons2(self.second(spikes1))
        return self.last(spikes2), spikes1.sum(dim=1) + spikes2.sum(dim=1)


def run(network: SpikingNetwork, images: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
    """Logits ``(n, T, 10)`` and numbers of spikes ``(n, T)``."""
    functional.reset_net(network)
    logits, spikes = zip(*(network(images) for _ in range(time_steps)), strict=True)
    return torch.stack(logits, dim=1), torch.stack(spikes, dim=1)


def train(network: SpikingNetwork, epochs: int, time_steps: int) -> None:
    """Train with the cross entropy of the mean logits."""
    images, labels = (torch.from_numpy(array) for array in digits.load("train"))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            logits, _ = run(network, images[batch], time_steps)
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits.mean(dim=1), labels[batch]).backward()
            optimiser.step()


@torch.no_grad()
def write(network: SpikingNetwork, split: str, time_steps: int, path: Path) -> float:
    """Write the traces of a split; returns the accuracy after all time steps."""
    images, labels = digits.load(split)
    logits, spikes = (array.numpy() for array in run(network, torch.from_numpy(images), time_steps))
    facts = {"source": f"SpikingJelly {version('spikingjelly')}", "neurons": 256, "trained_on_calibration": False}
    np.savez(path, logits=logits, labels=labels, spikes=spikes, meta=json.dumps(facts))
    return float((logits.sum(axis=1).argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, and write calibration.npz and test.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--time-steps", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not help so small a network
    network = SpikingNetwork()
    train(network, asked.epochs, asked.time_steps)
    asked.out.mkdir(parents=True, exist_ok=True)
    calibration, test = asked.out / "calibration.npz", asked.out / "test.npz"
    write(network, "calibration", asked.time_steps, calibration)
    accuracy = write(network, "test", asked.time_steps, test)
    print(f"test accuracy after {asked.time_steps} time steps: {accuracy:.2%}")
    print(f"next: dynconf analyse {calibration} --test {test}")


if __name__ == "__main__":
    main()
