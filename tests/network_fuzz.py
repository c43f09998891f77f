"""Random small networks of all operations that convert, and what must hold of each: as a script, for any number of them.

    python tests/network_fuzz.py --networks 5000 [--seed 0]

A network takes images, signals or vectors of one to four channels. Half of them are ``whole``: their numbers are exact in
binary, their activations quantised, and a settled SNN is compared with the module's own code, to the bit. The others have
ReLU and its relatives and any weights. In fixed point their SNN is compared with its reference and with float64, to the bit;
else with the ANN, whose activations are quantised at the thresholds that conversion found, to what float32 rounds.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from second_simulation import in_float64
from torch import Tensor, nn
from torch.nn import functional

from dynconf_core.activations.quantisation import Quantisation
from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import per_channel, run
from dynconf_core.graph.sides import one_sided
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_counts

LEVELS, TIME_STEPS, SAMPLES, CLASSES = 4, 32, 2, 3
Draw = Callable[[Sequence[Any]], Any]
"""Chooses one of several."""
Step = Callable[[Tensor], Tensor]
Of = Callable[[Any, list[Tensor]], Tensor]

REFUSALS = (
    "sums exactly",  # linear layers in a row, for which even float64 has too few places
    "does not pool activations",
    "with different thresholds",
    "with a negative slope",
    "an activation with two sides",
    "has no activation",
)
"""What conversion may say of these networks."""


class Quantised(nn.Module):
    """q(x) - slope q(-x), with levels of thresholds that are powers of two: one, or one a channel."""

    def __init__(self, threshold: Tensor, slope: float) -> None:
        super().__init__()
        self.threshold, self.slope = nn.Parameter(threshold), slope

    def one_side(self, x: Tensor) -> Tensor:
        return torch.floor(x / self.threshold * LEVELS + 0.5).clamp(0, LEVELS) / LEVELS * self.threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.one_side(x) - self.slope * self.one_side(-x)

    def quantisation(self) -> Quantisation:
        return Quantisation(LEVELS, self.threshold, "signed", self.slope)


class Pipeline(nn.Module):
    """Steps, each of which takes the modules and the values so far, the newest last, and gives one more value."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.steps: list[Of] = []

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step(self.parts, values))
        return values[-1]


@dataclass
class Builder:
    """Grows a network, drawing one operation after the other."""

    draw: Draw
    network: Pipeline = field(default_factory=Pipeline)
    values: list[Tensor] = field(default_factory=list)
    whole: bool = False
    linear: int = 0
    """Linear layers since the last activation."""

    def built(self) -> Pipeline:
        self.whole = self.draw((True, False))
        shape = self._input()
        self.values = [self.images(SAMPLES, shape)]
        self.weighted()
        self.activation()
        for _ in range(self.draw((1, 2, 3, 4))):
            self.draw((self.block, self.block, self.moved, self.pooled, self.shortcut, self.joined, self.constant))()
        self.head()
        return self.network.eval()

    def _input(self) -> tuple[int, ...]:
        channels = self.draw((1, 2, 3, 4))
        kind = self.draw(("image", "image", "signal", "vector"))
        if kind == "vector":
            return (self.draw((3, 8)),)
        return (channels, self.draw((6, 8, 12))) if kind == "signal" else (channels, self.draw((4, 6, 8)), self.draw((4, 8)))

    def images(self, count: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        if self.whole:
            return torch.randint(-16, 17, (count, *shape), generator=generator) / 8
        return torch.randn(count, *shape, generator=generator)

    @property
    def x(self) -> Tensor:
        return self.values[-1]

    @property
    def rank(self) -> int:
        """Dimensions of the image."""
        return self.x.ndim - 2

    def add(self, step: Of) -> None:
        with torch.no_grad():
            value = step(self.network.parts, self.values)
        if value[0].numel() <= 1024:
            self.network.steps.append(step)
            self.values.append(value)

    def apply(self, step: Step) -> None:
        self.add(lambda parts, values: step(values[-1]))

    def module(self, module: nn.Module) -> None:
        number = len(self.network.parts)
        self.network.parts.append(module.eval())
        self.add(lambda parts, values: parts[number](values[-1]))

    # Weights and activations

    def numbers(self, tensor: Tensor, scale: float) -> None:
        generator = torch.Generator().manual_seed(len(self.network.parts))
        with torch.no_grad():
            if self.whole:
                tensor.copy_(
                    torch.randint(-3, 4, tensor.shape, generator=generator)
                    * 2.0 ** round(torch.tensor(scale / 2).log2().item())
                )
            else:
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))

    def filled(self, module: Any) -> nn.Module:
        self.numbers(module.weight, 1.5 / module.weight[0].numel() ** 0.5)
        if module.bias is not None:
            self.numbers(module.bias, 0.5)
        assert isinstance(module, nn.Module)
        return module

    def weighted(self) -> None:
        channels, bias = self.x.shape[1], self.draw((True, False))
        if self.rank == 0:
            self.module(self.filled(nn.Linear(channels, self.draw((4, 6)), bias=bias)))
        else:
            make = nn.Conv1d if self.rank == 1 else nn.Conv2d
            size = self.draw((1, 2, 3)) if min(self.x.shape[2:]) >= 3 else 1
            groups = self.draw([one for one in (1, 2, channels) if channels % one == 0])
            mode = self.draw(("zeros", "zeros", "circular", "replicate"))
            outputs = groups * self.draw((1, 2)) if groups > 1 else self.draw((2, 4))
            self.module(
                self.filled(
                    make(channels, outputs, size, self.draw((1, 1, 2)), size // 2, groups=groups, bias=bias, padding_mode=mode)
                )
            )
        self.linear += 1
        if self.draw((True, False)):
            self.normalised()

    def normalised(self) -> None:
        norm = (nn.BatchNorm1d if self.rank < 2 else nn.BatchNorm2d)(self.x.shape[1], eps=0.0)
        assert norm.running_mean is not None and norm.running_var is not None
        self.numbers(norm.running_mean, 0.25)
        self.numbers(norm.bias, 0.25)
        norm.running_var.fill_(self.draw((0.25, 1.0, 4.0)))
        self.module(norm)

    def activation(self) -> None:
        self.linear = 0
        if self.whole:
            threshold = torch.tensor([self.draw((0.5, 1.0, 2.0))])
            if self.draw((True, False)):
                factors = torch.tensor([0.5, 1.0, 2.0, 1.0]).repeat(self.x.shape[1])[: self.x.shape[1]]
                threshold = (threshold * factors).view(-1, *[1] * self.rank)
            self.module(Quantised(threshold, self.draw((0.0, 0.0, 0.5, 0.25, 1.0))))
            return
        prelu = nn.PReLU(self.x.shape[1])
        with torch.no_grad():
            prelu.weight.uniform_(0.05, 0.6, generator=torch.Generator().manual_seed(len(self.network.parts)))
        relu6: Step = lambda x: functional.relu6(3 * x)  # noqa: E731
        kinds: tuple[nn.Module | Step, ...] = (
            *(nn.ReLU(), torch.relu, nn.ReLU(inplace=True), relu6, nn.LeakyReLU(0.2), prelu, nn.Hardtanh(-0.5, 2.0)),
            *(nn.Hardsigmoid(), torch.abs, lambda x: x.clamp(0, 1.5), lambda x: x.clamp(min=0), nn.Dropout(0.5)),
        )
        kind = self.draw(kinds)
        if isinstance(kind, nn.Dropout):
            self.module(kind)
            kind = nn.ReLU()
        if isinstance(kind, nn.Module):
            self.module(kind)
        else:
            self.apply(kind)

    def block(self) -> None:
        """A layer and its activation, now and then with a linear layer before it."""
        if self.linear == 0 and self.draw((True, False, False, False)):
            self.weighted()
        self.weighted()
        self.activation()

    # Operations without weights

    def moved(self) -> None:
        channels = self.x.shape[1]
        moves: list[Step] = [
            lambda x: x.flip(1),
            lambda x: x.roll(1, -1),
            lambda x: x[:, [*reversed(range(channels)), 0]],
            lambda x: x[:, : (channels + 1) // 2],
            lambda x: torch.cat(list(x.chunk(2, 1))[::-1], 1),
            lambda x: x.repeat_interleave(2, 1),
        ]
        if self.rank:
            moves += [
                lambda x: x[..., ::2],
                lambda x: functional.pad(x, (1, 0)),
                lambda x: functional.interpolate(x, scale_factor=2),
                lambda x: x.transpose(1, -1),
                lambda x: torch.cat([x, x.flip(-1)], -1),
            ]
        if self.rank == 2:
            moves += [
                lambda x: x.transpose(2, 3),
                lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"),
                lambda x: torch.rot90(x, 1, (2, 3)),
                lambda x: x.flatten(2),
                lambda x: torch.stack([x, x.flip(1)], 1).flatten(1, 2),
            ]
            if not any(size % 2 for size in self.x.shape[2:]):
                moves.append(lambda x: functional.pixel_unshuffle(x, 2))
            if channels % 4 == 0:
                moves.append(lambda x: functional.pixel_shuffle(x, 2))
        if self.rank == 2 and channels % 2 == 0:
            moves.append(lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))
        self.apply(self.draw(moves))

    def pooled(self) -> None:
        if self.rank == 0 or min(self.x.shape[2:]) < 2:
            return
        average = functional.avg_pool1d if self.rank == 1 else functional.avg_pool2d
        largest = functional.max_pool1d if self.rank == 1 else functional.max_pool2d
        pools: list[Step] = [
            lambda x: average(x, 2),
            lambda x: average(x, 2, 1, 1),
            lambda x: largest(x, 2),
            lambda x: largest(x, 3, 2, 1, ceil_mode=True),
            lambda x: largest(x, 2, 1),
        ]
        self.apply(self.draw(pools))

    def shortcut(self) -> None:
        """A block and what was before it."""
        before = len(self.values) - 1
        self.block()
        if self.values[before].shape == self.x.shape:
            self.add(lambda parts, values: values[-1] + values[before])
            self.activation()

    def joined(self) -> None:
        """Two values beside each other."""
        fitting = [
            i for i, one in enumerate(self.values[1:], 1) if one.ndim == self.x.ndim and one.shape[2:] == self.x.shape[2:]
        ]
        other = self.draw(fitting)
        self.add(lambda parts, values: torch.cat([values[-1], values[other]], 1))

    def constant(self) -> None:
        """Arithmetic with constants, which goes into weights."""
        factor = self.draw((2.0, -1.0, 0.5))
        self.apply(self.draw((lambda x: x * factor, lambda x: factor * x + factor, lambda x: 1 - x)))
        self.linear += 1
        self.weighted()
        self.activation()

    def head(self) -> None:
        if self.rank:
            everything: Step = lambda x: x.flatten(1)  # noqa: E731
            heads = [everything, lambda x: x.reshape(len(x), -1)]
            if not self.whole or self.x[0, 0].numel() in (1, 2, 4, 8, 16, 32, 64):
                dims = tuple(range(2, self.x.ndim))
                heads += [lambda x: x.mean(dims), lambda x: x.mean(dims, keepdim=True).flatten(1)]
            self.apply(self.draw(heads))
        if self.draw((True, False)):
            self.weighted()
            self.activation()
        self.module(self.filled(nn.Linear(self.x.shape[1], CLASSES)))


def check(draw: Draw) -> str:
    """Build a network and check all that must hold; says what became of it.

    Raises:
        AssertionError, or whatever conversion raises that it must not.
    """
    builder = Builder(draw)
    network = builder.built()
    images = builder.images(SAMPLES, tuple(builder.values[0].shape[1:]))
    options: dict[str, Any] = {"time_steps": TIME_STEPS, "fixed_point": False}
    if not builder.whole:
        options = {"time_steps": TIME_STEPS, "thresholds": draw(("max", "max", "error")), "neurons": "signed", "levels": LEVELS}
        options |= {"per_channel": draw((True, False)), "fixed_point": draw((True, True, False))}
    try:
        snn = convert(network, images, **options)
    except InputError as error:
        assert any(words in str(error) for words in REFUSALS), error
        return "refused: " + next(words for words in REFUSALS if words in str(error))
    if draw((True, False, False, False)):
        snn.accelerate(SAMPLES * 4)
    logits, settled = _run(snn, images)
    total = logits.double().sum(1)
    with torch.no_grad():
        own = network.double()(images.double())
    if builder.whole:
        expected = LEVELS * own
        if not settled:
            return "not settled"
        assert torch.equal(total, expected), (total, expected)
        return "whole"
    if not snn.exact:
        return _compared(snn, network, images, total) if settled else "not settled"
    if draw((True, False, False, False, False)):
        # Logits of more places than float32 has are float64's, rounded once.
        assert torch.equal(logits, in_float64(snn, images, TIME_STEPS)[0].float()), "float32 is not exact"
    if not settled:
        return "not settled"
    reference = reference_counts(snn, images).double()
    if snn.graph.output.wide:
        torch.testing.assert_close(total, reference, rtol=1e-6, atol=1e-5)
        return "wide fixed point"
    assert torch.equal(total, reference), (total, reference)
    return "fixed point"


def _compared(snn: SpikingNetwork, network: nn.Module, images: Tensor, total: Tensor) -> str:
    """Whether the ANN's graph with quantised activations, in float64, has the logits of the SNN."""
    margin = 1.0

    def quantised(node: Node, value: Tensor) -> Tensor | None:
        nonlocal margin
        if node.kind != "activation":
            return None
        theta = per_channel(snn.tensors()[node.name]["threshold"].double(), value)
        level = value / theta * LEVELS
        inside = (level > 0) & (level < LEVELS)
        margin = min(margin, float(((level + 0.5) - (level + 0.5).round()).abs()[inside].min()) if bool(inside.any()) else 1.0)
        return torch.floor(level + 0.5).clamp(0, LEVELS) / LEVELS * theta

    graph = one_sided(activations_first(folded(traced(network.float(), images))))
    expected = LEVELS * run(graph, images.double(), quantised)
    if margin < 1e-4:  # so near a tie float32 may round to the other side
        return "near a tie"
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-3)
    return "unrounded"


def _run(snn: SpikingNetwork, images: Tensor) -> tuple[Tensor, bool]:
    """The logits, and whether no neuron sent anything in the last steps."""
    last: dict[str, bool] = {}
    logits = []
    for _, steps, found in snn.run(
        images, TIME_STEPS, lambda node, sent: last.__setitem__(node.name, bool(sent[-SAMPLES:].any()))
    ):
        assert len(steps) * SAMPLES == found.shape[0] * found.shape[1]
        logits.append(found.transpose(0, 1))
    return torch.cat(logits, 1), not any(last.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes, failures = Counter[str](), 0
    for seed in range(asked.seed, asked.seed + asked.networks):
        try:
            outcomes[check(random.Random(seed).choice)] += 1
        except Exception:  # anything but a clear refusal is a finding
            failures += 1
            print(f"seed {seed}:\n{traceback.format_exc(limit=-4)}", flush=True)
    print(f"{asked.networks} networks: {failures} failures; {dict(outcomes)}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
