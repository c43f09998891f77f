"""The conversion report: layer by layer, how far the SNN is from the ANN, and where accuracy is lost.

For every layer of neurons, on some images: its thresholds, its firing rate, and after t steps the relative error of its mean
output against the ANN's activation, |theta c_t / t - a| / |a| (c_t the net spike count; a signed neuron's count is divided by
min(t, n)). Then the ANN is run with the outputs of the layers up to and including this one replaced by the SNN's: the first
layer after which its predictions change is where the conversion collapses.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.graph.fold import activations_first, folded
from dynconf_core.graph.graph import Node
from dynconf_core.graph.operations import per_channel
from dynconf_core.graph.run import prepared, run
from dynconf_core.graph.trace import traced
from dynconf_core.simulation.network import SpikingNetwork, State

NEURONS = 2**27
"""Neurons times images of a report, at most: a few numbers of 4 bytes are kept of each."""
MARKS = (1 / 4, 1 / 2, 1)
"""Shares of T at which errors are reported."""


@torch.no_grad()
def conversion_report(
    snn: SpikingNetwork, ann: nn.Module, images: Tensor, time_steps: int, labels: Tensor | None = None
) -> dict[str, Any]:
    """Compare on normalised ``images (N, ...)``, best some hundred of the training data.

    Args:
        snn: converted from ``ann``.
        ann: in evaluation mode.
        images: normalised, on the SNN's device.
        time_steps: T.
        labels: ``(N,)``, for accuracies; without them only agreement with the ANN is reported.

    Returns:
        ``{"time_steps", "images", "marks", "ann_accuracy", "snn_accuracy", "agreement", "layers", "worst_layer"}``. Each layer:
        ``name``, ``neurons``, ``threshold`` {"least", "mean", "most"}, ``rate`` (spikes a neuron and step), ``error`` (one a
        mark), ``agreement`` and ``accuracy`` of the ANN with the SNN's layers up to this one. ``worst_layer`` is the
        name of the one at which the agreement falls most, None where it never falls.

    Raises:
        InputError: where images and labels do not fit, or the SNN was made of another network.
    """
    if labels is not None and len(labels) != len(images):
        raise InputError(f"labels={len(labels)} for {len(images)} images: give one for each.")
    snn.check(images, time_steps)
    graph = prepared(activations_first(folded(traced(ann, images))), torch.float32, images.device)
    activations: dict[str, Tensor] = {}

    def keep(node: Node, value: Tensor) -> None:
        if node.kind == "activation":
            activations[node.name] = value

    logits = run(graph, images, keep)
    if activations.keys() != snn.layers().keys():
        odd = sorted(activations.keys() ^ snn.layers().keys())
        raise InputError(f"the SNN was made of another network: only one of the two has a layer {odd[0]!r}.")
    marks = sorted({max(1, round(share * time_steps)) for share in MARKS})
    watch = _Watch(snn, activations)
    spiking_logits = watch.through(images, time_steps, marks)
    predictions = logits.argmax(1)

    def kept(found: Tensor) -> dict[str, float | None]:
        correct = None if labels is None else float((found.argmax(1) == labels.to(found.device)).float().mean())
        return {"agreement": float((found.argmax(1) == predictions).float().mean()), "accuracy": correct}

    layers, shares, replaced = [], list[float](), dict[str, Tensor]()
    for name, node in snn.layers().items():
        replaced[name] = watch.outputs[name]
        theta = snn.tensors()[name]["threshold"]
        share = kept(run(graph, images, lambda node, value: replaced.get(node.name)))
        shares.append(share["agreement"] or 0.0)
        layers.append(
            {
                "name": name,
                "neurons": prod(node.shape),
                "threshold": {"least": float(theta.min()), "mean": float(theta.mean()), "most": float(theta.max())},
                "rate": watch.rates[name] / time_steps,
                "error": watch.errors[name],
                **share,
            }
        )
    falls = [before - after for before, after in pairwise([1.0, *shares])]
    whole = kept(spiking_logits)
    return {
        "time_steps": time_steps,
        "images": len(images),
        "marks": marks,
        "ann_accuracy": kept(logits)["accuracy"],
        "snn_accuracy": whole["accuracy"],
        "agreement": whole["agreement"],
        "layers": layers,
        "worst_layer": layers[falls.index(max(falls))]["name"] if max(falls) > 0 else None,
    }


def images_for_report(snn: SpikingNetwork, wanted: int) -> int:
    """How many of the ``wanted`` images a report can be made of in a few GiB; at least 8."""
    neurons = sum(prod(node.shape) for node in snn.layers().values())
    return min(wanted, max(8, NEURONS // neurons))


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report as lines of text for a terminal, 80 columns wide where names have up to 20 letters."""
    marks, names = report["marks"], [_shortened(layer["name"]) for layer in report["layers"]]
    width = max(map(len, (*names, "layer")))
    heading = f"{'layer':<{width}}{'neurons':>8}{'threshold':>14}{'rate':>6}" + "".join(f"{f'err@{t}':>8}" for t in marks)
    lines = [heading + f"{'agrees':>8}"]
    for name, layer in zip(names, report["layers"], strict=True):
        theta = layer["threshold"]
        span = f"{theta['mean']:.3g}" if theta["least"] == theta["most"] else f"{theta['least']:.2g} to {theta['most']:.2g}"
        errors = "".join(f"{error:>8.1%}" for error in layer["error"])
        mark = "*" if layer["name"] == report["worst_layer"] else ""
        lines.append(
            f"{name:<{width}}{layer['neurons']:>8}{span:>14}{layer['rate']:>6.2f}{errors}{layer['agreement']:>8.1%}{mark}"
        )
    lines.append("err@t: relative error of the mean output up to step t, against the activation.")
    lines.append("agrees: predictions that stay when the ANN's layers up to this one send what the")
    lines.append("SNN's do" + ("; * falls most there." if report["worst_layer"] else "."))
    parts = [f"after T = {report['time_steps']} steps the SNN agrees with the ANN on {100 * report['agreement']:.1f} %"]
    if report["snn_accuracy"] is not None:
        parts.append(f"accuracy {100 * report['ann_accuracy']:.2f} % (ANN), {100 * report['snn_accuracy']:.2f} % (SNN)")
    return [*lines, f"On {report['images']} images: {'; '.join(parts)}."]


def _shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]


class _Watch:
    """Runs the SNN and writes down what its layers send."""

    def __init__(self, snn: SpikingNetwork, activations: Mapping[str, Tensor]) -> None:
        self.snn, self.activations = snn, activations
        self.counts = {name: torch.zeros_like(value) for name, value in activations.items()}
        self.rates = dict.fromkeys(activations, 0.0)
        self.errors: dict[str, list[float]] = {name: [] for name in activations}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, node: Node, spikes: Tensor) -> None:
        if node.kind == "neurons":
            self.counts[node.name] += spikes
            self.rates[node.name] += float(spikes.abs().mean())

    def through(self, images: Tensor, time_steps: int, marks: Sequence[int]) -> Tensor:
        """Run all steps; the sum of the logits."""
        input_current = self.snn.input_current(images)
        state: State | None = None
        total = torch.zeros(len(images), self.snn.graph.output.channels, device=images.device)
        for time_step in range(1, time_steps + 1):
            step = self.snn.step(input_current, state, time_step, self)
            state, total = step.state, total + step.logits
            if time_step in marks:
                self._compare(time_step)
        return total

    def _compare(self, time_step: int) -> None:
        acting = min(time_step, self.snn.active_steps or time_step)
        for name, counts in self.counts.items():
            theta = self.snn.tensors()[name]["threshold"]
            self.outputs[name] = counts * per_channel(theta, counts) / acting
            size = float(self.activations[name].norm())
            wrong = float((self.outputs[name] - self.activations[name]).norm())
            self.errors[name].append(wrong / size if size > 0 else wrong)
