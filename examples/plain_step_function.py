"""Traces from a simulator of your own: a step function in numpy, without a spiking library or torch.

    python examples/plain_step_function.py
    dynconf analyse calibration.npz --test test.npz

scikit-learn trains a ReLU network; its two hidden layers become integrate-and-fire neurons whose thresholds are a high
percentile of the activations on the training images (Rueckauer et al., Front. Neurosci. 2017, 10.3389/fnins.2017.00682). Any
simulator with a function from (input, state) to (output, state) can write traces like this.
"""

import argparse
import json
import warnings
from pathlib import Path

import digits
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

PERCENTILE = 99.5


class SpikingNetwork:
    """Weights and thresholds of a trained classifier; the state is the membrane potential ``(n, neurons)`` of each layer."""

    def __init__(self, ann: MLPClassifier, images: np.ndarray) -> None:
        self.weights, self.biases = ann.coefs_, ann.intercepts_
        self.thresholds = []
        hidden = images
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
            self.thresholds.append(np.percentile(hidden[hidden > 0], PERCENTILE))

    def start(self, samples: int) -> list[np.ndarray]:
        """Initial membrane potentials of half the threshold, with which a neuron rounds instead of rounding down."""
        sizes = [weight.shape[1] for weight in self.weights[:-1]]
        return [np.full((samples, size), theta / 2) for size, theta in zip(sizes, self.thresholds, strict=True)]

    def step(self, images: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Logits ``(n, 10)``, spikes ``(n,)`` and synaptic operations ``(n,)`` of one step, and the state after it."""
        signal, after = images, []
        spikes, operations = np.zeros(len(images), int), np.zeros(len(images), int)
        layers = zip(self.weights[:-1], self.biases[:-1], self.thresholds, state, strict=True)
        for layer, (weight, bias, threshold, potential) in enumerate(layers):
            charged = potential + signal @ weight + bias
            fired = charged >= threshold
            after.append(charged - threshold * fired)  # soft reset
            signal = threshold * fired
            spikes += fired.sum(axis=1)
            operations += fired.sum(axis=1) * self.weights[layer + 1].shape[1]  # the fan-out of each spike
        return signal @ self.weights[-1] + self.biases[-1], spikes, operations, after


def write(network: SpikingNetwork, split: str, time_steps: int, path: Path) -> float:
    """Write the traces of a split; returns the accuracy after all time steps."""
    images, labels = digits.load(split)
    state, columns = network.start(len(images)), []
    for _ in range(time_steps):
        *outputs, state = network.step(images, state)
        columns.append(outputs)
    logits, spikes, operations = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    facts = {"source": "a step function in numpy", "neurons": 128, "trained_on_calibration": False}
    np.savez(path, logits=logits, labels=labels, spikes=spikes, synaptic_operations=operations, meta=json.dumps(facts))
    return float((logits.sum(axis=1).argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, convert, and write calibration.npz and test.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--time-steps", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    images, labels = digits.load("train")
    ann = MLPClassifier((64, 64), learning_rate_init=5e-3, batch_size=50, max_iter=asked.epochs, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # we choose the number of epochs
        ann.fit(images, labels)
    network = SpikingNetwork(ann, images)
    asked.out.mkdir(parents=True, exist_ok=True)
    calibration, test = asked.out / "calibration.npz", asked.out / "test.npz"
    write(network, "calibration", asked.time_steps, calibration)
    accuracy = write(network, "test", asked.time_steps, test)
    print(f"test accuracy after {asked.time_steps} time steps: {accuracy:.2%}")
    print(f"next: dynconf analyse {calibration} --test {test}")


if __name__ == "__main__":
    main()
