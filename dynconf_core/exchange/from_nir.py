"""A graph of NIR as a spiking network: plain integrate-and-fire networks, also of other libraries.

In every time step a neuron's membrane potential, in units of its threshold, rises by r dt / v_threshold times the sum of what
its edges bring.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import torch

from dynconf_core.arguments import number as a_number
from dynconf_core.arguments import one_of
from dynconf_core.conversion.fixed_point import with_wide_sums
from dynconf_core.conversion.places import Limits
from dynconf_core.errors import InputError
from dynconf_core.exchange.charges import with_currents_times
from dynconf_core.exchange.nir_file import read_nir
from dynconf_core.exchange.nir_nodes import NirNodes
from dynconf_core.exchange.nir_values import number
from dynconf_core.graph.checks import checked
from dynconf_core.graph.graph import Graph
from dynconf_core.libraries import nir as library
from dynconf_core.neurons.integrate_and_fire import IntegrateAndFire
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.neurons.reset_to_zero import ResetToZero
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.wording import told

if TYPE_CHECKING:
    import nir

NEURONS: Mapping[str, type[NeuronModel]] = {"subtract": IntegrateAndFire, "zero": ResetToZero}
"""By what a spike does to the membrane potential."""
SECONDS = "give the seconds of a time step, such as 1e-4"


def from_nir(
    graph: nir.NIRGraph | str | os.PathLike[str],
    *,
    dt: float | None = None,
    reset: str | None = None,
    initial_potential: float | None = None,
) -> SpikingNetwork:
    """The network of a graph of NIR, or of a file; one that ``to_nir`` wrote comes back with the same spikes, to the bit.

    Args:
        graph: with nodes of the types Input, Output, Conv1d, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten and
            IF (and LIF with tau = inf, as snnTorch writes a ``Leaky`` with beta = 1).
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
        raise InputError(f"{told('graph', graph)}: give a nir.NIRGraph, or the path of a file.")
    if dt is not None and not 0 < (dt := a_number("dt", dt, SECONDS)) < float("inf"):
        raise InputError(f"dt={dt}: {SECONDS}.")
    if reset is not None:
        one_of("reset", reset, NEURONS)
    if initial_potential is not None:
        initial_potential = a_number("initial_potential", initial_potential, "give V(0) in units of the threshold, such as 0.5")
    about = dict(graph.metadata or {})
    ours = about.get("writer") == "dynconf"
    reads = _reads(graph)
    nodes = NirNodes(dict(graph.nodes), reads, dt, initial_potential, ours)
    for name in _order(reads):
        nodes.add(name)
    found = checked(with_currents_times(nodes.graph(), nodes.factors) if nodes.scaled else nodes.graph())
    limits, facts = _meant(about) if ours else ({}, {})
    if limits and nodes.scaled:
        limits = {}
    neurons = NEURONS[reset or _reset(nodes.resets)]()
    if limits:
        _check_grid(found)
        found = with_wide_sums(found, Limits(neurons, limits["image_limit"], limits["time_steps_limit"]))
    return SpikingNetwork(found, neurons, **limits, facts=facts)


def _reads(graph: Any) -> dict[str, list[str]]:
    """What each node reads, in order; by edges between nodes that there are, from one input to one output."""
    for kind in ("Input", "Output"):
        found = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
        if len(found) != 1:
            raise InputError(f"the graph has {len(found)} nodes of the type {kind}, not one: {', '.join(found) or 'none'}.")
    reads: dict[str, dict[str, None]] = {name: {} for name in graph.nodes}
    for source, target in graph.edges:
        for name in (source, target):
            if name not in reads:
                raise InputError(f"the graph has an edge from {source!r} to {target!r}, but no node {name!r}: it is damaged.")
        reads[target][source] = None
    for name, node in graph.nodes.items():
        if (type(node).__name__ == "Input") == bool(reads[name]):
            raise InputError(f"node {name!r} ({type(node).__name__}) has {len(reads[name])} edges into it: connect it.")
    return {name: list(sources) for name, sources in reads.items()}


def _order(reads: Mapping[str, list[str]]) -> list[str]:
    """The nodes, each after those that it reads."""
    try:
        return list(TopologicalSorter(reads).static_order())
    except CycleError as error:
        circle = " -> ".join(map(str, error.args[1]))
        raise InputError(f"the graph is recurrent ({circle}): only networks without recurrence can be simulated.") from None


def _reset(resets: set[str]) -> str:
    """What the metadata of all neurons say of the reset."""
    if len(resets) > 1 or not resets <= NEURONS.keys():
        raise InputError(f"the neurons reset in different ways ({', '.join(sorted(resets))}): give reset=...")
    return next(iter(resets), "subtract")


def _meant(about: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The limits of exactness, if there are any, and the facts, as ``to_nir`` wrote them into the metadata."""
    try:
        facts = dict(json.loads(about.get("facts", "{}")))
        if "image_limit" not in about:
            return {}, facts
        image, steps = number(about["image_limit"], "image_limit"), number(about["time_steps_limit"], "time_steps_limit")
        if image > 0 and steps >= 1 and steps == int(steps):
            return {"image_limit": image, "time_steps_limit": int(steps)}, facts
    except (LookupError, TypeError, ValueError):
        pass
    raise InputError("the metadata of the graph are not those that to_nir writes: remove them, or write the graph again.")


def _check_grid(graph: Graph) -> None:
    """Raise ``InputError`` unless weights are the multiples that their binary places say."""
    for node in graph.nodes:
        if "weight" in node.tensors:
            whole = node.tensors["weight"].double() * 2.0 ** node.settings.get("bits", 0)
            if "bits" not in node.settings or not torch.equal(whole, whole.round()):
                raise InputError(
                    f"node {node.name!r}: its weights are not multiples of 2^-bits, as the metadata say: it is damaged."
                )
