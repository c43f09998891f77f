"""A graph of NIR as a spiking network: plain integrate-and-fire networks, also of other libraries.

In every time step a neuron's membrane potential, in units of its threshold, rises by r dt / v_threshold times the sum of what
its edges bring.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.exchange.charges import with_currents_times
from dynconf_core.exchange.nir_file import read_nir
from dynconf_core.exchange.nir_values import by_channel, conv_padding, flag, number, numbers, pair, shape_of, tensor
from dynconf_core.exchange.weights import AS_WEIGHTS, as_weights
from dynconf_core.graph.checks import checked
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import area, evaluate
from dynconf_core.libraries import nir as library
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.neurons.reset_to_zero import ResetToZero
from dynconf_core.simulation.network import SpikingNetwork

if TYPE_CHECKING:
    import nir

NEURONS: Mapping[str, type[NeuronModel]] = {"subtract": IntegrateAndFire, "zero": ResetToZero}
"""By what a spike does to the membrane potential."""
STRANGE_R = 1e3
"""A resistance from which on a graph is taken to be written for time steps in seconds."""
_REFUSED = {
    "LIF": "its neurons leak; only IF nodes can be simulated (or LIF nodes with tau = inf)",
    "CubaLIF": "its neurons leak and have synaptic currents; only IF nodes can be simulated",
    "LI": "it leaks; only IF nodes can be simulated",
    "CubaLI": "it leaks; only IF nodes can be simulated",
    "I": "it integrates without firing; end the network with its weighted layer, whose current is the logits",
    "Delay": "spikes arrive in the time step in which they are sent; remove the delays",
    "Threshold": "it fires without integrating; use IF nodes",
    "NIRGraph": "it is a subgraph (snnTorch writes recurrent layers so); write one flat graph without recurrence",
}


def from_nir(
    graph: nir.NIRGraph | str | os.PathLike[str],
    *,
    dt: float | None = None,
    reset: str | None = None,
    initial_potential: float | None = None,
) -> SpikingNetwork:
    """The network of a graph of NIR, or of a file; one that ``to_nir`` wrote comes back with the same spikes, to the bit.

    Args:
        graph: with nodes of the types Input, Output, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF (and LIF
            with tau = inf, as snnTorch writes a ``Leaky`` with beta = 1).
        dt: seconds of a time step, by which ``r`` is multiplied; None for 1. SpikingJelly writes r = 1 / dt with dt = 1e-4.
        reset: what a spike does to the potential: "subtract" the threshold (sinabs, snnTorch's default, converted networks), or
            set it to "zero" (what SpikingJelly writes); NIR does not tell the two apart. None for what the metadata say, and
            "subtract" without them.
        initial_potential: V(0) in units of the threshold, of neurons whose metadata give none; None for 0, as NIR means it.

    Raises:
        InputError: for anything else; the message names the node and the reason.
    """
    package = library()
    if isinstance(graph, str | os.PathLike):
        graph = read_nir(graph)
    if not isinstance(graph, package.NIRGraph):
        raise InputError(f"graph is a {type(graph).__name__}: give a nir.NIRGraph, or the path of a file.")
    if dt is not None and not 0 < dt < float("inf"):
        raise InputError(f"dt={dt}: give the seconds of a time step, such as 1e-4.")
    if reset is not None and reset not in NEURONS:
        raise InputError(f"reset={reset!r} is unknown: choose {' or '.join(NEURONS)}.")
    about = dict(graph.metadata or {})
    read = _Reading(dict(graph.nodes), _edges(graph), dt, initial_potential, about.get("writer") == "dynconf")
    for name in read.order():
        read.add(name)
    found = with_currents_times(read.finished(), read.factors) if read.scaled else read.finished()
    limits = {
        name: number(about[name], f"the metadata {name}") for name in ("image_limit", "time_steps_limit") if name in about
    }
    exact = read.ours and len(limits) == 2 and not read.scaled
    if exact:
        _check_grid(found)
    try:
        facts = json.loads(about["facts"]) if read.ours else {}
    except (LookupError, TypeError, ValueError):
        facts = {}
    return SpikingNetwork(
        checked(found),
        NEURONS[reset or read.reset](),
        image_limit=limits["image_limit"] if exact else None,
        time_steps_limit=int(limits["time_steps_limit"]) if exact else None,
        facts=facts if isinstance(facts, dict) else {},
    )


def _edges(graph: Any) -> list[tuple[str, str]]:
    """The edges, each between nodes that there are."""
    found = [(str(source), str(target)) for source, target in graph.edges]
    for source, target in found:
        for name in (source, target):
            if name not in graph.nodes:
                raise InputError(f"the graph has an edge from {source!r} to {target!r}, but no node {name!r}: it is damaged.")
    return list(dict.fromkeys(found))


@dataclass
class _Reading:
    """The nodes of ours so far.

    Attributes:
        nodes: those of NIR.
        ours: whether ``to_nir`` wrote the graph, so that its metadata mean what they say.
        names: by node of NIR, the node of ours with its value.
        shares: by node of NIR, the part of a spike that each of its values stands for, where that is not 1: behind an average
            pool.
        parts: by node of NIR, the concatenation of which it is a part.
        factors: by layer of neurons, r dt / v_threshold.
    """

    nodes: dict[str, Any]
    edges: list[tuple[str, str]]
    dt: float | None
    initial: float | None
    ours: bool
    made: dict[str, Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    parts: dict[str, tuple[Node, str]] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    resets: set[str] = field(default_factory=set)

    @property
    def reset(self) -> str:
        """What the metadata of all neurons say."""
        if len(self.resets) > 1 or not self.resets <= NEURONS.keys():
            raise InputError(f"the neurons reset in different ways ({', '.join(sorted(self.resets))}): give reset=...")
        return next(iter(self.resets), "subtract")

    @property
    def scaled(self) -> bool:
        """Whether any neuron has r dt / v_threshold other than 1."""
        return any(not bool((factor == 1).all()) for factor in self.factors.values())

    def order(self) -> list[str]:
        """The nodes, each after those that it reads."""
        for kind in ("Input", "Output"):
            found = [name for name, node in self.nodes.items() if type(node).__name__ == kind]
            if len(found) != 1:
                raise InputError(f"the graph has {len(found)} nodes of the type {kind}, not one: {', '.join(found) or 'none'}.")
        reads = {name: [source for source, target in self.edges if target == name] for name in self.nodes}
        for name, node in self.nodes.items():
            if (type(node).__name__ == "Input") == bool(reads[name]):
                raise InputError(f"node {name!r} ({type(node).__name__}) has {len(reads[name])} edges into it: connect it.")
        try:
            return list(TopologicalSorter(reads).static_order())
        except CycleError as error:
            raise InputError(
                f"the graph is recurrent ({' -> '.join(map(str, error.args[1]))}): only networks without recurrence can be "
                "simulated."
            ) from None

    def add(self, name: str) -> None:
        """Read a node of NIR."""
        node = self.nodes[name]
        kind = type(node).__name__
        read = getattr(self, f"_{kind.lower()}", None)
        if kind == "LIF" and np.size(node.tau) and np.isinf(_plain(node.tau)).all():
            read = self._if
        if read is None:
            reason = _REFUSED.get(kind, "its type is none of those that from_nir knows")
            raise InputError(f"node {name!r} is of the type {kind}: {reason}.")
        try:
            read(name, node)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            raise InputError(f"node {name!r} ({kind}) cannot be computed: {str(error)[:200]}.") from error

    def finished(self) -> Graph:
        """The nodes as a graph, without those that nothing reads."""
        (output,) = (name for name, node in self.nodes.items() if type(node).__name__ == "Output")
        needed, waiting = set[str](), [self.names[output]]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += self.made[name].inputs
        needed.add(next(iter(self.made)))
        nodes = [node for node in self.made.values() if node.name in needed and node.name != self.names[output]]
        return Graph((*nodes, self.made[self.names[output]]))

    # Types of nodes

    def _input(self, name: str, node: Any) -> None:
        shape = shape_of(node.input_type["input"], name)
        self._rounded(name, node, self._keep(Node(name, "input", (), shape)))

    def _output(self, name: str, node: Any) -> None:
        source = self._source(name)
        if source.kind == "input":
            raise InputError("the graph has no layers: nothing lies between its input and its output.")
        self.names[name] = source.name

    def _conv2d(self, name: str, node: Any) -> None:
        weight = tensor(node.weight, "weight")
        stride, dilation = pair(node.stride, "stride"), pair(node.dilation, "dilation")
        kernel = weight.shape[2:]
        settings = {"stride": stride, "padding": conv_padding(node.padding, kernel, dilation, stride), "dilation": dilation}
        self._weighted(name, node, "convolution", weight, {**settings, "groups": int(number(node.groups, "groups"))})

    def _affine(self, name: str, node: Any) -> None:
        self._weighted(name, node, "linear", tensor(node.weight, "weight"), {})

    _linear = _affine

    def _scale(self, name: str, node: Any) -> None:
        source = self._source(name, whole=True)
        weight = by_channel(numbers(node.scale, "scale"), source.shape, "scale")
        self._computed(name, Node(name, "scale", (source.name,), source.shape, {}, {"weight": weight}))

    def _sumpool2d(self, name: str, node: Any, averaging: bool = False) -> None:
        source, reads = self._source(name), self._reads(name)
        kernel = pair(node.kernel_size, "kernel_size")
        settings = {"kernel": kernel, "stride": pair(node.stride, "stride"), "padding": pair(node.padding, "padding", 0)}
        share = self.shares.get(reads[0], 1.0) if len(reads) == 1 else 1.0
        pool = Node(name, "sum_pool", (source.name,), source.shape, settings)
        self._computed(name, pool)
        if share != 1 or averaging:
            self.shares[name] = share / area(pool) if averaging else share

    def _avgpool2d(self, name: str, node: Any) -> None:
        self._sumpool2d(name, node, averaging=True)

    def _flatten(self, name: str, node: Any) -> None:
        source, reads = self._source(name), self._reads(name)
        first, last = int(number(node.start_dim, "start_dim")), int(number(node.end_dim, "end_dim"))
        rank = len(source.shape)
        if (first % rank, last % rank) != (0, rank - 1):
            raise InputError(f"node {name!r} flattens dimensions {first} to {last} of {source.shape}: flatten all of them.")
        self._computed(name, Node(name, "flatten", (source.name,), source.shape))
        if len(reads) == 1 and reads[0] in self.shares:
            self.shares[name] = self.shares[reads[0]]

    def _if(self, name: str, node: Any) -> None:
        source = self._source(name, whole=True)
        theta = by_channel(numbers(node.v_threshold, "v_threshold"), source.shape, "v_threshold")
        gain = self._gain(name, node, source.shape)
        if not bool((theta > 0).all()) or not bool((gain > 0).all()):
            raise InputError(f"node {name!r}: r and v_threshold must be above 0.")
        if np.any(_plain(node.v_reset) != 0):
            raise InputError(f"node {name!r}: v_reset is not 0, and no other reset can be simulated.")
        meant = node.metadata if self.ours else {}
        if meant:
            self.resets.add(str(meant.get("reset", "subtract")))
        start = torch.tensor(float(self.initial or 0.0))
        if "initial_potential" in (node.metadata or {}):
            start = (
                by_channel(numbers(node.metadata["initial_potential"], "initial_potential"), source.shape, "its V(0)") / theta
            )
        known = (
            by_channel(numbers(meant["ann_threshold"], "ann_threshold"), source.shape, "threshold")
            if "ann_threshold" in meant
            else theta
        )
        levels = int(number(meant.get("levels", 0), "levels")) or None
        settings = {"levels": levels, "clipped": flag(meant.get("clipped", False))}
        self._keep(Node(name, "neurons", (source.name,), source.shape, settings, {"threshold": known, "initial": start}))
        self.factors[name] = gain / theta

    def _gain(self, name: str, node: Any, shape: tuple[int, ...]) -> Tensor:
        """r dt: the potential that a current of 1 adds in a time step."""
        if type(node).__name__ == "LIF":
            return torch.ones(())  # snnTorch: r = tau / dt
        r = by_channel(numbers(node.r, "r"), shape, "r")
        if self.dt is None and bool((r >= STRANGE_R).any()):
            seconds = f"{1 / float(r.max()):g}"
            raise InputError(
                f"node {name!r}: r = {float(r.max()):g}, as SpikingJelly writes it for time steps of {seconds} s: give "
                f"dt={seconds}, or dt=1 if it is meant so."
            )
        return r * (1.0 if self.dt is None else self.dt)

    # Their common parts

    def _reads(self, name: str) -> list[str]:
        return [source for source, target in self.edges if target == name]

    def _source(self, name: str, whole: bool = False) -> Node:
        """The node of ours with the sum of what a node of NIR reads; ``whole``: not in parts of spikes."""
        reads = self._reads(name)
        found, seen = list[str](), set[str]()
        for one in reads:
            share = self.shares.get(one, 1.0)
            joined = self._joined(one, reads)
            if joined is not None:
                if joined not in seen:
                    found.append(joined)
                seen.add(joined)
            elif share != 1 and (whole or len(reads) > 1):
                found.append(self._factor(self.names[one], share))
            else:
                found.append(self.names[one])
        if len(found) == 1:
            return self.made[found[0]]
        label = "+".join(found)
        shape = self.made[found[0]].shape
        return self.made.get(label) or self._keep(Node(label, "add", tuple(found), shape))

    def _joined(self, one: str, reads: list[str]) -> str | None:
        """The concatenation of which ``one`` is a part, if all of its parts are read."""
        if one not in self.parts:
            return None
        meant, group = self.parts[one]
        together = [name for name, (_, other) in self.parts.items() if other == group and name in reads]
        if len(together) != meant.settings["parts"]:
            return None
        label = f"{group}.joined"
        if label not in self.made:
            inputs = [self.parts[name][0] for name in together]
            inputs.sort(key=lambda node: int(node.settings["part"]))
            self._keep(Node(label, "concatenate", tuple(node.inputs[0] for node in inputs), meant.shape))
        return label

    def _factor(self, source: str, factor: float) -> str:
        label = f"{source}*{factor:g}"
        if label not in self.made:
            shape = self.made[source].shape
            self._keep(Node(label, "scale", (source,), shape, {"identity": True}, {"weight": torch.tensor(factor)}))
        return label

    def _weighted(self, name: str, node: Any, kind: str, weight: Tensor, settings: Mapping[str, Any]) -> None:
        source, reads = self._source(name), self._reads(name)
        share = self.shares.get(reads[0], 1.0) if len(reads) == 1 else 1.0
        tensors = {"weight": weight * share if share != 1 else weight}
        if getattr(node, "bias", None) is not None and bool((bias := tensor(node.bias, "bias")).any()):
            tensors["bias"] = bias
        bits = {"bits": int(number(node.metadata["bits"], "bits"))} if self.ours and "bits" in node.metadata else {}
        made = self._computed(name, Node(name, kind, (source.name,), source.shape, {**settings, **bits}, tensors))
        if self.ours and "operation" in node.metadata:
            self._restored(name, made, json.loads(node.metadata["operation"]), source)
        self._rounded(name, node, made)

    def _restored(self, name: str, made: Node, meant: Mapping[str, Any], source: Node) -> None:
        """The operation that weights stand for, by the metadata, in their place, if they do."""
        if meant["kind"] not in AS_WEIGHTS:
            raise InputError(f"node {name!r}: the operation {str(meant['kind'])[:40]!r} in its metadata is unknown.")
        tensors = {}
        settings = {key: value for key, value in meant["settings"].items() if value is not None}
        if meant["kind"] == "scale":
            channels = range(made.channels)
            diagonal = made.tensors["weight"].flatten(1)[channels, channels] if len(source.shape) in (1, 3) else torch.ones(())
            tensors = {"weight": diagonal[0] if bool((diagonal == diagonal[0]).all()) else diagonal.clone()}
            tensors |= {"bias": made.tensors["bias"]} if "bias" in made.tensors else {}
        inputs, shape = (source.name,), made.shape
        node = Node(made.name, meant["kind"], inputs, shape, settings, tensors)
        before = 0
        if meant["kind"] == "concatenate":
            rows = made.tensors["weight"].flatten(1).any(1).nonzero()
            before = int(rows[0]) if len(rows) else 0
        again = as_weights(node, tensors, source.shape, before)
        if not torch.equal(again.weight, made.tensors["weight"]) or any(
            tuple(made.settings[key]) != value for key, value in again.settings.items() if key in ("stride", "padding")
        ):
            raise InputError(
                f"node {name!r}: its weights are not those of the {meant['kind']} that its metadata name: remove them."
            )
        if meant["kind"] == "concatenate":
            parts = {"part": int(meant["part"]), "parts": int(meant["parts"])}
            self.parts[name] = (Node(made.name, "concatenate", inputs, shape, parts), str(meant["name"]))
        else:
            self.made[made.name] = node

    def _rounded(self, name: str, node: Any, made: Node) -> None:
        """Behind what the metadata say is rounded."""
        if self.ours and "round_bits" in node.metadata:
            bits = int(number(node.metadata["round_bits"], "round_bits"))
            rounding = Node(f"{made.name}.round", "round", (made.name,), made.shape, {"bits": bits})
            self.names[name] = self._keep(rounding).name

    def _computed(self, name: str, node: Node) -> Node:
        """The node with the shape that its operation gives, found without computing a value."""
        inputs = [torch.empty((1, *self.made[one].shape), device="meta") for one in node.inputs]
        tensors = {key: value.to("meta") for key, value in node.tensors.items()}
        return self._keep(replace(node, shape=tuple(evaluate(node, inputs, tensors).shape[1:])))

    def _keep(self, node: Node) -> Node:
        self.made[node.name] = node
        self.names.setdefault(node.name, node.name)
        return node


def _plain(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _check_grid(graph: Graph) -> None:
    """Raise ``InputError`` unless weights are the multiples that their binary places say."""
    for node in graph.nodes:
        if "weight" in node.tensors:
            whole = node.tensors["weight"].double() * 2.0 ** node.settings.get("bits", 0)
            if "bits" not in node.settings or not torch.equal(whole, whole.round()):
                raise InputError(
                    f"node {node.name!r}: its weights are not multiples of 2^-bits, as the metadata say: it is damaged."
                )
