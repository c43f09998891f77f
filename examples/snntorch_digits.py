"""Traces of an snnTorch network with leaky neurons in every layer, including ten output neurons.

    pip install snntorch
    python examples/snntorch_digits.py
    dynconf analyse calibration.npz --test test.npz

Here the output layer spikes as well, and the score of a class is its number of spikes: the logits of a time step are its output
spikes, 0 or 1, and their running sum is the spike count.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import digits
import numpy as np
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn


class SpikingNetwork(nn.Module):
    """64 pixels, 128 hidden neurons, 10 output neurons; snnTorch passes membrane potentials in and out."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, hidden), nn.Linear(hidden, 10)
        self.hidden = snn.Leaky(beta=0.9, spike_grad=surrogate.atan())
        self.output = snn.Leaky(beta=0.9, spike_grad=surrogate.atan())

    def forward(self, images: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
        """Output spikes ``(n, T, 10)`` and numbers of all spikes ``(n, T)``; the image is a constant input current."""
        hidden_potential, output_potential = self.hidden.init_leaky(), self.output.init_leaky()
        logits, spikes = [], []
        for _ in range(time_steps):
            hidden, hidden_potential = self.hidden(self.first(images), hidden_potential)
            output, output_potential = self.output(self.last(hidden), output_potential)
            logits.append(output)
            spikes.append(hidden.sum(dim=1) + output.sum(dim=1))
        return torch.stack(logits, dim=1), torch.stack(spikes, dim=1)


def train(network: SpikingNetwork, epochs: int, time_steps: int) -> None:
    """Train with the cross entropy of the spike counts."""
    images, labels = (torch.from_numpy(array) for array in digits.load("train"))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            counts = network(images[batch], time_steps)[0].sum(dim=1)
            optimiser.zero_grad()
            nn.functional.cross_entropy(counts, labels[batch]).backward()
            optimiser.step()


@torch.no_grad()
def write(network: SpikingNetwork, split: str, time_steps: int, path: Path) -> float:
    """Write the traces of a split; returns the accuracy after all time steps."""
    images, labels = digits.load(split)
    logits, spikes = (array.numpy() for array in network(torch.from_numpy(images), time_steps))
    facts = {"source": f"snnTorch {version('snntorch')}", "neurons": 138, "trained_on_calibration": False}
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
