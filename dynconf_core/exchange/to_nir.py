"""A converted network as a graph of NIR, the Neuromorphic Intermediate Representation (Pedersen et al., Nature Communications
2024), through the package ``nir``.

What NIR has no word for stands in the metadata of its nodes, which ``from_nir`` reads; other readers ignore it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dynconf_core.arguments import one_of
from dynconf_core.errors import InputError
from dynconf_core.exchange.charges import with_currents_times
from dynconf_core.exchange.weights import AS_WEIGHTS, Weights, as_weights
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import per_channel
from dynconf_core.libraries import nir as library
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.neurons.reset_to_zero import ResetToZero
from dynconf_core.simulation.given import check_network
from dynconf_core.simulation.network import SpikingNetwork

if TYPE_CHECKING:
    import nir

UNITS = ("threshold", "physical")
RESETS: dict[type[NeuronModel], str] = {IntegrateAndFire: "subtract", ResetToZero: "zero"}
"""The neurons that an ``IF`` node can stand for, and what its metadata then say of the reset."""
SCHEMA = 1
"""Version of the metadata."""
_NO_WORD = {
    "max_pool": "use average pools or strided convolutions, and train again",
    "average_pool": "convert the network again",
}


def to_nir(snn: SpikingNetwork, units: str = "threshold") -> nir.NIRGraph:
    """The network as a graph of NIR.

    Neurons are ``IF`` nodes with ``r`` = 1 and ``v_reset`` = 0, one value a neuron; weighted layers ``Conv2d`` and ``Affine``;
    pools ``SumPool2d``; additions edges into one node; factors, slices, pads and concatenations convolutions 1 x 1. What stands
    in the metadata is listed in ``docs/howto/exchange.md``.

    Args:
        snn: a network of integrate-and-fire neurons.
        units: "threshold": every neuron fires at 1; "physical": at its threshold in units of the ANN's activations, with
            weights to match, which are then not in fixed point.

    Raises:
        InputError: for neurons or operations that NIR cannot express.
    """
    check_network(snn)
    one_of("units", units, UNITS)
    if type(snn.neurons) not in RESETS:
        raise InputError(
            f"{snn.neurons} neurons cannot be written as NIR, whose IF node sends only positive spikes and whose input always "
            "acts: convert with neurons='integrate-and-fire' (--neurons integrate-and-fire)."
        )
    package = library()
    graph = Graph(
        tuple(
            node.with_tensors(**{key: value.detach().cpu() for key, value in snn.tensors()[node.name].items()})
            for node in snn.graph.nodes
        )
    )
    if units == "physical":
        graph = with_currents_times(graph, {name: graph.by_name[name].tensors["threshold"].float() for name in snn.layers()})
    written = _Writing(package, graph, units, RESETS[type(snn.neurons)])
    for node in graph.nodes:
        written.add(node)
    written.end()
    about = {"writer": "dynconf", "schema": SCHEMA, "units": units, "neurons": snn.neurons.name, "facts": json.dumps(snn.facts)}
    if snn.exact and units == "threshold":
        about |= {"image_limit": snn.image_limit, "time_steps_limit": snn.time_steps_limit}
    return package.NIRGraph(nodes=written.nodes, edges=written.edges, metadata=about)


@dataclass
class _Writing:
    """The nodes and edges so far.

    Attributes:
        values: by node of ours, the nodes of NIR whose values add up to its own.
    """

    nir: Any
    graph: Graph
    units: str
    reset: str
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        """Write a node of ours."""
        if node.kind in _NO_WORD:
            raise InputError(
                f"the {node.kind.replace('_', ' ')} at {node.name!r} cannot be written as NIR: {_NO_WORD[node.kind]}."
            )
        write = getattr(self, f"_{node.kind}", None)
        if write is None and node.kind not in AS_WEIGHTS:
            raise InputError(f"{node.kind} at {node.name!r} cannot be written as NIR, which has no such operation.")
        (write or self._as_weights)(node)

    def end(self) -> None:
        """Write the output, and give every node its true shapes, which the package gets wrong for groups and oblong kernels."""
        output = self.graph.output
        self._put("output", self.nir.Output({"output": np.array(output.shape)}), output.shape, self.values[output.name])

    # Kinds of nodes

    def _input(self, node: Node) -> None:
        self.values[node.name] = (self._put("input", self.nir.Input({"input": np.array(node.shape)}), node.shape, ()),)

    def _round(self, node: Node) -> None:
        """What is rounded says so in its metadata; rounding of rescaled weights would be another one."""
        (source,) = node.inputs
        self.values[node.name] = (name,) = self.values[source]
        if self.units == "threshold" or self.graph.by_name[source].kind == "input":
            self.nodes[name].metadata["round_bits"] = int(node.settings["bits"])

    def _add(self, node: Node) -> None:
        self.values[node.name] = tuple(name for source in node.inputs for name in self.values[source])

    def _flatten(self, node: Node) -> None:
        before = self.graph.by_name[node.inputs[0]].shape
        made = self.nir.Flatten({"input": np.array(before)}, start_dim=0, end_dim=-1)
        self._keep(node, made, self.values[node.inputs[0]])

    def _sum_pool(self, node: Node) -> None:
        if len(node.shape) == 2:  # NIR pools images alone
            self._as_weights(node)
            return
        window = (np.array(node.settings[name]) for name in ("kernel", "stride", "padding"))
        self._keep(node, self.nir.SumPool2d(*window), self.values[node.inputs[0]])

    def _convolution(self, node: Node) -> None:
        found = Weights(node.tensors["weight"], node.tensors.get("bias"))
        self._keep(node, self._weighted(node, found, node.settings), self.values[node.inputs[0]])

    _linear = _convolution

    def _as_weights(self, node: Node) -> None:
        """An operation without weights of its own: one node an input."""
        names, before = [], 0
        for part, name in enumerate(node.inputs):
            source = self.graph.by_name[name].shape
            try:
                found = as_weights(node, node.tensors, source, before)
            except ValueError as error:
                raise InputError(f"{_operation(node)} at {node.name!r} cannot be written as NIR: {error}. {_REMEDY}") from None
            settings = {**node.settings, "bits": None} if self.units == "physical" else dict(node.settings)
            meant = {"kind": node.kind, "name": node.name, "settings": settings, "part": part, "parts": len(node.inputs)}
            made = self._weighted(node, found, {**found.settings, **{k: v for k, v in node.settings.items() if k == "bits"}})
            made.metadata["operation"] = json.dumps(meant)
            label = node.name if len(node.inputs) == 1 else f"{node.name}_{part}"
            names.append(self._put(label, made, node.shape, self.values[name]))
            before += source[0]
        self.values[node.name] = tuple(names)

    def _neurons(self, node: Node) -> None:
        theta = node.tensors["threshold"].float() if self.units == "physical" else torch.ones(())
        start = (node.tensors["initial"] * theta).numpy()
        made = self.nir.IF(
            r=np.ones(node.shape, dtype=np.float32),
            v_threshold=_each(theta, node),
            v_reset=np.zeros(node.shape, dtype=np.float32),
        )
        made.metadata |= {
            "initial_potential": start if start.ndim else float(start),
            "reset": self.reset,
            "fires": "at or above v_threshold",
            "clipped": bool(node.settings["clipped"]),
            "levels": int(node.settings["levels"] or 0),
        }
        if self.units == "threshold":
            theta = node.tensors["threshold"].float()
            made.metadata["ann_threshold"] = theta.numpy() if theta.ndim else float(theta)
        self._keep(node, made, _in_order(node, self.graph, self.values))

    # Their common parts

    def _weighted(self, node: Node, found: Weights, settings: Mapping[str, Any]) -> Any:
        weight = found.weight.float().contiguous().numpy()
        bias = np.zeros(len(weight), dtype=np.float32)
        if found.bias is not None:  # of wide nodes float64
            bias = (found.bias if self.units == "threshold" else found.bias.float()).numpy()
        if weight.ndim == 2:
            made = self.nir.Affine(weight=weight, bias=bias)
        else:
            made = self._convolved(self.graph.by_name[node.inputs[0]].shape[1:], weight, settings, bias)
        if settings.get("bits") is not None and self.units == "threshold":
            made.metadata["bits"] = int(settings["bits"])
        return made

    def _convolved(self, sides: tuple[int, ...], weight: Any, settings: Mapping[str, Any], bias: Any) -> Any:
        """A ``Conv2d``, or of a signal a ``Conv1d``."""
        stride, padding, dilation = (tuple(settings[name]) for name in ("stride", "padding", "dilation"))
        groups = int(settings["groups"])
        if len(sides) == 1:
            return self.nir.Conv1d(sides[0], weight[:, :, 0], stride[1], padding[1], dilation[1], groups, bias)
        return self.nir.Conv2d(sides, weight, stride, padding, dilation, groups, bias)

    def _keep(self, node: Node, made: Any, sources: tuple[str, ...]) -> None:
        self.values[node.name] = (self._put(node.name, made, node.shape, sources),)

    def _put(self, wanted: str, made: Any, shape: tuple[int, ...], sources: tuple[str, ...]) -> str:
        """Add a node of NIR that reads the sum of others; its name."""
        name = self._name(wanted)
        repeated = Counter(sources)
        read = tuple(self._multiple(source, times) if times > 1 else source for source, times in repeated.items())
        if sources:
            made.input_type = {"input": self.nodes[read[0]].output_type["output"]}
        made.output_type = {"output": np.array(shape)}
        self.nodes[name] = made
        self.edges += [(source, name) for source in read]
        return name

    def _multiple(self, source: str, times: int) -> str:
        """A node with a multiple of another's value: NIR has at most one edge between two nodes."""
        shape = tuple(int(side) for side in self.nodes[source].output_type["output"])
        label = f"{source}_times_{times}"
        if label in self.nodes:
            return label
        node = Node(label, "scale", (), shape, {"identity": True, "bits": 0}, {"weight": torch.tensor(float(times))})
        found = as_weights(node, node.tensors, shape)
        weight, bias = found.weight.numpy(), np.zeros(shape[0], dtype=np.float32)
        made = self._convolved(shape[1:], weight, found.settings, bias) if len(shape) > 1 else self.nir.Affine(weight, bias)
        meant = {"kind": "scale", "name": label, "settings": dict(node.settings), "part": 0, "parts": 1}
        made.metadata |= {"operation": json.dumps(meant), "bits": 0}
        return self._put(label, made, shape, (source,))

    def _name(self, wanted: str) -> str:
        """A name that HDF5, and modules of PyTorch, can have."""
        plain = re.sub(r"\W", "_", wanted, flags=re.ASCII)
        plain = f"{plain}_node" if hasattr(nn.ModuleDict, plain) else plain
        name, number = plain, 1
        while name in self.nodes:
            number += 1
            name = f"{plain}_{number}"
        return name


_REMEDY = (
    "Before the first layer do it to the images beforehand; elsewhere leave it out, or flatten the image as it is and permute "
    "the columns of the linear layer that follows."
)


def _operation(node: Node) -> str:
    """What the user's network calls it: consecutive moves of values are one node, named after the last."""
    return "the permute, view, flip, shuffle or repeat that ends" if node.kind == "rearrange" else node.kind


def _each(values: Tensor, node: Node) -> np.ndarray[Any, Any]:
    """One value a neuron."""
    return per_channel(values, torch.empty(1, *node.shape)).expand(1, *node.shape)[0].contiguous().numpy()


def _in_order(node: Node, graph: Graph, values: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The terms of a layer's current, in the order in which the simulation adds them up."""
    waiting, found = [node.inputs[0]], list[str]()
    while waiting:
        source = graph.by_name[waiting.pop(0)]
        if source.kind == "add":
            waiting += source.inputs
        else:
            found += values[source.name]
    return tuple(found)
