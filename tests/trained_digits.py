"""A small network trained for real on scikit-learn's handwritten digits, in about two seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.training.loop import initialise_steps


class DigitsNetwork(nn.Module):
    """Three convolutions with batch normalisation, one in a residual block with a max pool behind it, and two linear layers."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1, self.fire1 = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), activation()
        self.second, self.norm2, self.fire2 = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), activation()
        self.pool = nn.MaxPool2d(2)
        self.third, self.norm3, self.fire3 = nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), activation()
        self.average, self.fourth, self.fire4 = nn.AvgPool2d(2), nn.Linear(64, 24), activation()
        self.last = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, 10)`` of images ``(N, 1, 8, 8)``."""
        x = self.fire1(self.norm1(self.first(x)))
        x = self.pool(self.fire2(self.norm2(self.second(x)) + x))
        x = self.average(self.fire3(self.norm3(self.third(x))))
        logits: Tensor = self.last(self.fire4(self.fourth(torch.flatten(x, 1))))
        return logits


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 1, 8, 8)``, normalised and shuffled, and labels; the first 1200 are for training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    pictures = torch.tensor(data.images, dtype=torch.float32)[order, None]
    return (pictures / 16 - 0.3) / 0.38, torch.tensor(data.target)[order]


@cache
def trained_on_digits(kind: str, seed: int = 0) -> DigitsNetwork:
    """``kind``: "relu", "relu6", "qcfs" or "qffs". The networks are shared: copy one before it is changed.

    Which network it is depends on the CPU: instruction sets and threads sum in other orders, and training amplifies that. A
    figure of one of them wanders by a point of accuracy; what is claimed of an average is tried on several seeds.
    """
    made = {"relu": nn.ReLU, "relu6": nn.ReLU6, "qcfs": lambda: QCFS(4, 2.0), "qffs": lambda: LSQ(2)}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DigitsNetwork(made)
    images, labels = digits()
    initialise_steps(network, images[:64])
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(seed + 1)
    for epoch in range(6):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * (1 - epoch / 6)
        for batch in torch.randperm(1200, generator=generator).split(50):
            optimiser.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
    return network.eval()
