"""Nodes of NIR as nodes of ours, one type after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynconf_core.errors import InputError
from dynconf_core.exchange.charges import unused
from dynconf_core.exchange.nir_values import by_channel, conv_padding, flag, number, numbers, pair, shape_of
from dynconf_core.exchange.weights import restored
from dynconf_core.graph.checks import computed_shape
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.operations import area

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


@dataclass
class NirNodes:
    """The nodes read so far; ``add`` reads one more.

    Attributes:
        nodes: those of NIR.
        reads: the names of those that each of them reads.
        dt: seconds of a time step; None if the caller named none.
        initial: V(0) in units of the threshold; None if the caller named none.
        ours: whether ``to_nir`` wrote the graph, so that its metadata mean what they say.
        made: those of ours, by name.
        names: by node of NIR, the node of ours with its value.
        derived: nodes of ours that no node of NIR stands for, by what they are.
        shares: by node of NIR, the part of a spike that each of its values stands for, where that is not 1: behind an average
            pool.
        parts: by node of NIR that is a part of a concatenation: the concatenation's name, the number of the part and of all
            parts, and the part's input.
        factors: by layer of neurons, r dt / v_threshold.
        resets: what the metadata say of the reset.
    """

    nodes: Mapping[str, Any]
    reads: Mapping[str, list[str]]
    dt: float | None
    initial: float | None
    ours: bool
    made: dict[str, Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    derived: dict[tuple[Any, ...], Node] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    parts: dict[str, tuple[str, int, int, str]] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    resets: set[str] = field(default_factory=set)

    @property
    def scaled(self) -> bool:
        """Whether any neuron has r dt / v_threshold other than 1."""
        return any(not bool((factor == 1).all()) for factor in self.factors.values())

    def add(self, name: str) -> None:
        """Read a node of NIR, whose inputs are read.

        Raises:
            InputError: if its type is not known, or its values cannot be.
        """
        node = self.nodes[name]
        kind = type(node).__name__
        try:
            leaky = kind == "LIF" and not bool(torch.isinf(torch.as_tensor(node.tau)).all())
            read = None if leaky else _TYPES.get(kind)
            if read is None:
                reason = _REFUSED.get(kind, f"known are {', '.join(_TYPES)}")
                raise InputError(f"node {name!r} is of the type {kind}: {reason}.")
            read(self, name, node)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"node {name!r} ({kind}) cannot be computed: {str(error)[:200]}.") from error

    def graph(self) -> Graph:
        """The nodes that the output needs."""
        (output,) = (self.names[name] for name, node in self.nodes.items() if type(node).__name__ == "Output")
        needed, waiting = {next(iter(self.made))}, [output]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += self.made[name].inputs
        return Graph((*(node for node in self.made.values() if node.name in needed - {output}), self.made[output]))

    # Types of nodes

    def _input(self, name: str, node: Any) -> None:
        self._rounded(name, node, self._keep(name, Node(name, "input", (), shape_of(node.input_type["input"], name))))

    def _output(self, name: str, node: Any) -> None:
        source = self._source(name)
        if source.kind == "input":
            raise InputError("the graph has no layers: nothing lies between its input and its output.")
        self.names[name] = source.name

    def _conv2d(self, name: str, node: Any) -> None:
        weight = numbers(node.weight, "weight")
        stride, dilation = pair(node.stride, "stride"), pair(node.dilation, "dilation")
        padding = conv_padding(node.padding, weight.shape[2:], dilation, stride)
        groups = pair(node.groups, "groups")[0]
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self._weighted(name, node, "convolution", weight, settings)

    def _conv1d(self, name: str, node: Any) -> None:
        """A signal is an image of height 1."""
        weight = numbers(node.weight, "weight")
        stride, dilation = pair(node.stride, "stride")[0], pair(node.dilation, "dilation")[0]
        padding = conv_padding(node.padding, (1, *weight.shape[2:]), (1, dilation), (1, stride))[1]
        geometry = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
        groups = pair(node.groups, "groups")[0]
        self._weighted(name, node, "convolution", weight.unsqueeze(2), {**geometry, "groups": groups})

    def _affine(self, name: str, node: Any) -> None:
        self._weighted(name, node, "linear", numbers(node.weight, "weight"), {})

    def _scale(self, name: str, node: Any) -> None:
        source = self._source(name, whole=True)
        weight = by_channel(numbers(node.scale, "scale"), source.shape, "scale")
        self._computed(name, Node(name, "scale", (source.name,), source.shape, {}, {"weight": weight}))

    def _sum_pool(self, name: str, node: Any) -> None:
        kernel, stride = pair(node.kernel_size, "kernel_size"), pair(node.stride, "stride")
        settings = {"kernel": kernel, "stride": stride, "padding": pair(node.padding, "padding", 0)}
        self._computed(name, Node(name, "sum_pool", (self._source(name).name,), (), settings))
        self._pass_share(name)

    def _average_pool(self, name: str, node: Any) -> None:
        """Sums, each value of which stands for a part of a spike."""
        self._sum_pool(name, node)
        self.shares[name] = self.shares.get(name, 1.0) / area(self.made[name])

    def _flatten(self, name: str, node: Any) -> None:
        source = self._source(name)
        first, last = int(number(node.start_dim, "start_dim")), int(number(node.end_dim, "end_dim"))
        rank = len(source.shape)
        if (first % rank, last % rank) != (0, rank - 1):
            raise InputError(f"node {name!r} flattens dimensions {first} to {last} of {source.shape}: flatten all of them.")
        self._computed(name, Node(name, "flatten", (source.name,), ()))
        self._pass_share(name)

    def _neurons(self, name: str, node: Any) -> None:
        source = self._source(name, whole=True)
        theta = by_channel(numbers(node.v_threshold, "v_threshold"), source.shape, "v_threshold")
        gain = self._gain(name, node, source.shape)
        if not bool((theta > 0).all()) or not bool((gain > 0).all()):
            raise InputError(f"node {name!r}: r and v_threshold must be above 0.")
        if bool(numbers(node.v_reset, "v_reset").any()):
            raise InputError(f"node {name!r}: v_reset is not 0, and no other reset can be simulated.")
        meant = node.metadata if self.ours else {}
        if meant:
            self.resets.add(str(meant.get("reset", "subtract")))
        start = torch.tensor(float(self.initial or 0.0))
        if "initial_potential" in (node.metadata or {}):
            given = numbers(node.metadata["initial_potential"], "initial_potential", np.float64)
            start = by_channel(given, source.shape, "initial_potential") / theta
        known = numbers(meant["ann_threshold"], "ann_threshold") if "ann_threshold" in meant else theta
        tensors = {"threshold": by_channel(known, source.shape, "ann_threshold"), "initial": start}
        settings = {
            "levels": int(number(meant.get("levels", 0), "levels")) or None,
            "clipped": flag(meant.get("clipped", False)),
        }
        self._keep(name, Node(name, "neurons", (source.name,), source.shape, settings, tensors))
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

    def _source(self, name: str, whole: bool = False) -> Node:
        """The node of ours with the sum of what a node of NIR reads.

        Args:
            name: the node of NIR.
            whole: whether values that stand for parts of spikes are multiplied by them.
        """
        reads, found = self.reads[name], dict[str, None]()
        for one in reads:
            share = self.shares.get(one, 1.0)
            joined = self._joined(one, reads)
            if joined is not None:
                found[joined] = None
            elif share != 1 and (whole or len(reads) > 1):
                found[self._factor(self.names[one], share)] = None
            else:
                found[self.names[one]] = None
        if len(found) == 1:
            return self.made[next(iter(found))]
        inputs = tuple(found)
        return self._derive(("add", inputs), " + ".join(inputs), "add", inputs, self.made[inputs[0]].shape)

    def _joined(self, one: str, reads: list[str]) -> str | None:
        """The concatenation of which ``one`` is a part, if all of its parts are read."""
        if one not in self.parts:
            return None
        group, _, count, _ = self.parts[one]
        together = sorted((self.parts[name] for name in reads if name in self.parts), key=lambda part: part[1])
        together = [part for part in together if part[0] == group]
        if [part[1] for part in together] != list(range(count)):
            return None
        inputs = tuple(part[3] for part in together)
        return self._derive(("concatenate", group), group, "concatenate", inputs, self.made[self.names[one]].shape).name

    def _factor(self, source: str, factor: float) -> str:
        tensors = {"weight": torch.tensor(factor)}
        key, shape = ("scale", source, factor), self.made[source].shape
        return self._derive(key, f"{source} * {factor:g}", "scale", (source,), shape, {"identity": True}, tensors).name

    def _weighted(self, name: str, node: Any, kind: str, weight: Tensor, settings: Mapping[str, Any]) -> None:
        source = self._source(name)
        share = self.shares.get(self.reads[name][0], 1.0) if len(self.reads[name]) == 1 else 1.0
        tensors = {"weight": weight * share if share != 1 else weight}
        if getattr(node, "bias", None) is not None and bool((bias := numbers(node.bias, "bias", np.float64)).any()):
            tensors["bias"] = bias
        meant = node.metadata if self.ours else {}
        bits = {"bits": int(number(meant["bits"], "bits"))} if "bits" in meant else {}
        made = self._computed(name, Node(name, kind, (source.name,), (), {**settings, **bits}, tensors))
        if "operation" in meant:
            operation = json.loads(meant["operation"])
            again = restored(made, operation, source.shape)
            if again.kind == "concatenate":
                part, parts = (int(number(operation[key], key)) for key in ("part", "parts"))
                self.parts[name] = (str(operation["name"]), part, parts, source.name)
            else:
                made = self.made[name] = again
        self._rounded(name, node, made)

    def _rounded(self, name: str, node: Any, made: Node) -> None:
        """Behind what the metadata say is rounded."""
        if self.ours and "round_bits" in node.metadata:
            settings = {"bits": int(number(node.metadata["round_bits"], "round_bits"))}
            rounding = self._derive(("round", name), f"{name}.round", "round", (made.name,), made.shape, settings)
            self.names[name] = rounding.name

    def _pass_share(self, name: str) -> None:
        reads = self.reads[name]
        if len(reads) == 1 and reads[0] in self.shares:
            self.shares[name] = self.shares[reads[0]]

    def _computed(self, name: str, node: Node) -> Node:
        """The node with the shape that its operation gives."""
        given = [tuple(self.made[one].shape) for one in node.inputs]
        shape = computed_shape(node, given)
        if shape is None:
            raise ValueError(f"{node.kind} of values of the shape {given[0]}")
        return self._keep(name, replace(node, shape=shape))

    def _keep(self, name: str, node: Node) -> Node:
        """The node of ours for a node of NIR, under its name."""
        self.made[name], self.names[name] = node, name
        return node

    def _derive(self, key: tuple[Any, ...], name: str, *node: Any) -> Node:
        """A node of ours that no node of NIR stands for, made once; its other fields are ``node``."""
        if key not in self.derived:
            found = Node(unused(name, self.nodes, self.made), *node)
            self.derived[key] = self.made[found.name] = found
        return self.derived[key]


_TYPES: Mapping[str, Callable[[NirNodes, str, Any], None]] = {
    "Input": NirNodes._input,
    "Output": NirNodes._output,
    "Conv1d": NirNodes._conv1d,
    "Conv2d": NirNodes._conv2d,
    "Affine": NirNodes._affine,
    "Linear": NirNodes._affine,
    "Scale": NirNodes._scale,
    "SumPool2d": NirNodes._sum_pool,
    "AvgPool2d": NirNodes._average_pool,
    "Flatten": NirNodes._flatten,
    "IF": NirNodes._neurons,
    "LIF": NirNodes._neurons,
}
"""How each type of NIR is read."""
