"""Binary places: on how fine a grid each value of an SNN may lie so that floating point holds all its sums exactly."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dynconf_core.conversion.resolution import sizes, too_coarse
from dynconf_core.errors import InputError
from dynconf_core.graph.bounds import in_one_step, of_reference, summed_over_time
from dynconf_core.graph.graph import WEIGHTED, Graph, Node
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.wording import counted

SENDERS = ("neurons", "activation")
"""Kinds that send whole numbers of spikes; activations do in a trained network, whose places only ``check_depth`` judges."""
MANTISSA = 24
"""Significand bits of float32: whole numbers up to 2^24 are exact."""
WIDE_MANTISSA = 53
"""Significand bits of float64."""
FEWEST_BITS = 6
"""The fewest binary places accepted. Rounding changes the logits: with 5 places those of a DenseNet-121 (random weights) by 16
%, with 9 those of a ResNet-18 by 3 %."""
ATTEMPTS = 3
"""Attempts to find places: without float64; with it for all that has met weights more than once, or, if nothing has, where
places are missing; and where they are still missing."""
IMAGE_BITS = 8
"""Binary places of the normalised image, whose pixel values are about 2^-6 apart. Places given to the image are not available
to the first layer's weights: with 8 the logits of ResNet-20 (CIFAR-10) change by 0.3 %, those of a ResNet-18 with random
weights by 3 %; with 10, by 0.4 and 6 %."""


@dataclass(frozen=True)
class Limits:
    """The range for which exactness is proven; see ``with_fixed_point_weights``."""

    neurons: NeuronModel
    image: float
    time_steps: int


@dataclass(frozen=True)
class Reach:
    """How far a graph's numbers reach: for a proven bound, the least whole e >= 0 for which it is at most 2^e.

    Attributes:
        values: of every value, in one time step and in the reference network, which computes all n levels at once.
        potentials: of every layer's membrane potential, over all time steps.
    """

    values: Mapping[str, int]
    potentials: Mapping[str, int]

    @classmethod
    def of(cls, graph: Graph, limits: Limits) -> "Reach":
        """The reach of a graph within ``limits``."""
        levels = {int(node.settings["levels"]) for node in graph.of_kind("neurons") if node.settings["levels"]}
        most = max(levels, default=1)
        steps = max(limits.time_steps, most)
        step = in_one_step(graph, limits.image, limits.neurons)
        total = summed_over_time(graph, limits.image, limits.neurons, steps)
        counted = of_reference(graph, limits.image, most)
        at_once = once(graph)
        values = {
            name: _exponent(max(bounds[name].largest() for bounds in ((step,) if name in at_once else (step, counted))), name)
            for name in step
        }
        potentials = {}
        for node in graph.of_kind("neurons"):
            potential = float(node.tensors["initial"].abs().max()) + 2 + total[node.inputs[0]].largest()
            potentials[node.name] = _exponent(potential + limits.neurons.excess(steps), node.name)
        return cls(values, potentials)

    def with_potentials(self, graph: Graph) -> dict[str, int]:
        """The reach of every value, and of the membrane potential that it is added to."""
        found = dict(self.values)
        for node in graph.of_kind("neurons"):
            found[node.inputs[0]] = max(found[node.inputs[0]], self.potentials[node.name])
        return found


@dataclass(frozen=True)
class Places:
    """Binary places of every value of a graph.

    Attributes:
        graph: the graph.
        values: 0 for spike counts, what the group allows for the others.
        groups: the group number of every value that is not a spike count.
        wide: numbers of the groups that may use float64.
    """

    graph: Graph
    values: Mapping[str, int]
    groups: Mapping[str, int]
    wide: frozenset[int]

    def hold(self, reach: Reach) -> bool:
        """Whether every number is exact if the numbers reach so far."""
        exponents = reach.with_potentials(self.graph)
        return all(bits + exponents[name] <= _mantissa(name, self.groups, self.wide) for name, bits in self.values.items())


def places_within(graph: Graph, reach: Reach, spare: int = 0, coarse: frozenset[str] = frozenset()) -> Places:
    """The binary places for values that reach so far.

    Args:
        graph: the graph.
        reach: how far its values reach.
        spare: bits of every number that are left over.
        coarse: names of layers that are known to need float64.

    Raises:
        InputError: naming a layer whose weights are left too few places, or too few for their size, even in float64.
    """
    groups, multiplied = _groups(graph), _multiplied(graph)
    again = {name for name, times in multiplied.items() if times > 1}
    short, errors, size = list[str](), dict[str, tuple[float, float]](), sizes(graph)
    widened = set[str]()
    for _ in range(ATTEMPTS):
        wide = _with_later(graph, groups, coarse | widened)
        values = _places(graph, reach, groups, wide, spare)
        short = [node.name for node in graph.of_kind(*WEIGHTED) if values[node.name] - values[node.inputs[0]] < FEWEST_BITS]
        errors = too_coarse(graph, values, groups, size, bool(again))
        if not short and not errors:
            return Places(graph, values, groups, wide)
        widened = widened | {*short, *errors} if widened or not again else again
    name = [*short, *errors][0]
    left = counted(values[name] - values[graph.by_name[name].inputs[0]], "binary place")
    if name in short:
        why = f"with at least {FEWEST_BITS} binary places for its weights: {left} would be left"
    else:
        error, limit = errors[name]
        why = (
            f"and finely enough: with the {left} that would be left for its weights, rounding them is expected to change its "
            f"sums by {error:.1%}, and at most {limit:.0%} is accepted"
        )
    raise InputError(
        f"{name}: not even float64 can hold its sums exactly {why}. (They may reach 2^{reach.with_potentials(graph)[name]} "
        f"thresholds, and {max(multiplied.values())} weighted layers follow each other without an activation.) Convert with "
        "fixed_point=False (--no-fixed-point), put activations between the layers, or convert for fewer time steps."
    )


def check_depth(graph: Graph) -> None:
    """Refuse a trained network in which no places are left for weights, whatever the thresholds.

    Raises:
        InputError: where too many weighted layers follow each other without an activation, or values are added to what weights
            have made of them.
    """
    groups, multiplied = _groups(graph), _multiplied(graph)
    for node in graph.of_kind(*WEIGHTED):
        if node.name in once(graph):
            continue
        own = groups.get(node.inputs[0]) == groups[node.name]
        if own or multiplied[node.name] * FEWEST_BITS > WIDE_MANTISSA:
            why = "its output is added to its input" if own else f"{multiplied[node.name]} weighted layers follow each other"
            raise InputError(
                f"{node.name}: {why} without an activation between them, so that not even float64 can hold the sums exactly: "
                "convert with fixed_point=False (--no-fixed-point), or put activations between the layers."
            )


def layers_without_activation(graph: Graph) -> int:
    """The most weighted layers that follow each other without an activation."""
    return max(_multiplied(graph).values())


def following(graph: Graph) -> frozenset[str]:
    """Names of the weighted layers that follow each other without an activation, and thus share the places of a number."""
    groups, at_once = _groups(graph), once(graph)
    later = [node for node in graph.of_kind(*WEIGHTED) if node.name not in at_once and node.inputs[0] in groups]
    read = {groups[node.inputs[0]] for node in later}
    before = {node.name for node in graph.of_kind(*WEIGHTED) if node.name not in at_once and groups[node.name] in read}
    return frozenset(before.union(node.name for node in later))


def _with_later(graph: Graph, groups: Mapping[str, int], names: Collection[str]) -> frozenset[int]:
    """The groups of these values, and of all values computed from them by weights."""
    found = {groups[name] for name in names}
    for node in graph.of_kind(*WEIGHTED):
        if groups.get(node.inputs[0]) in found:
            found.add(groups[node.name])
    return frozenset(found)


def wide_nodes(graph: Graph, places: Mapping[str, int], reach: Reach) -> frozenset[str]:
    """Names of the nodes whose value needs float64, by its own bound or because it is computed from such values, and of the
    layers of neurons whose membrane potential does."""
    found: set[str] = set()
    for node in graph.nodes:
        layer = node.kind == "neurons"
        if layer:
            bits = max(1, places[node.inputs[0]]) + reach.potentials[node.name]
        else:
            bits = places[node.name] + reach.values[node.name]
        read = (name for name in node.inputs if graph.by_name[name].kind != "neurons")  # spikes are whole in any case
        if bits > MANTISSA or found.intersection(read):
            found.add(node.name)
    return frozenset(found)


def _mantissa(name: str, groups: Mapping[str, int], wide: frozenset[int]) -> int:
    """Significand bits of a value; a spike count needs no places and takes what it needs."""
    return WIDE_MANTISSA if name not in groups or groups[name] in wide else MANTISSA


def once(graph: Graph) -> frozenset[str]:
    """Names of the nodes that depend on the image alone."""
    return frozenset(node.name for node in graph.nodes) - graph.after(SENDERS)


def _groups(graph: Graph) -> dict[str, int]:
    """The group number of every value that is not a spike count; values that are added together share a group."""
    group: dict[str, int] = {}
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for node in graph.nodes:
        joined = [] if node.kind in (*WEIGHTED, "round", "input") else [group[name] for name in node.inputs if name in group]
        if node.kind in SENDERS:
            continue
        if joined or node.kind in (*WEIGHTED, "round", "input"):
            if not joined:
                parent.append(len(parent))
                joined = [len(parent) - 1]
            first = root(joined[0])
            for other in joined[1:]:
                parent[root(other)] = first
            group[node.name] = first
    return {name: root(number) for name, number in group.items()}


def _multiplied(graph: Graph) -> dict[str, int]:
    """How many weighted layers each value has passed since it was a spike; those that depend on the image alone are rounded."""
    times: dict[str, int] = {}
    at_once = once(graph)
    for node in graph.nodes:
        if node.kind in SENDERS:
            times[node.name] = 0
        elif node.name in at_once:
            times[node.name] = 1
        else:
            times[node.name] = max(times[name] for name in node.inputs) + (node.kind in WEIGHTED)
    return times


def _places(graph: Graph, reach: Reach, groups: Mapping[str, int], wide: frozenset[int], spare: int) -> dict[str, int]:
    """Binary places of every value.

    A group whose values are multiplied by further weights leaves a share of the places to those weights: half of them, and
    fewer where it has been multiplied repeatedly itself.
    """
    at_once, times, exponents = once(graph), _multiplied(graph), reach.with_potentials(graph)
    left = {name: _mantissa(name, groups, wide) - spare - exponent for name, exponent in exponents.items()}
    most: dict[int, int] = {}
    for node in graph.nodes:
        # A product that is rounded immediately has its own limit; the rounded value belongs to the group.
        if not (node.kind in WEIGHTED and node.name in at_once):
            _limit(most, groups, node.name, min(left[node.name], IMAGE_BITS) if is_image(node, graph) else left[node.name])
    for node in reversed(graph.nodes):
        if node.kind in WEIGHTED and node.inputs[0] in groups:
            own = left[node.name] if node.name in at_once else most[groups[node.name]]
            before = times[node.inputs[0]] if groups[node.name] in wide else 1
            _limit(most, groups, node.inputs[0], own * before // (before + 1))
    places: dict[str, int] = {}
    for node in graph.nodes:
        if node.name not in groups or node.kind == "input":
            places[node.name] = 0
        else:
            places[node.name] = left[node.name] if node.kind in WEIGHTED and node.name in at_once else most[groups[node.name]]
    return places


def is_image(node: Node, graph: Graph) -> bool:
    """Whether a node rounds the image."""
    return node.kind == "round" and graph.by_name[node.inputs[0]].kind == "input"


def _limit(most: dict[int, int], groups: Mapping[str, int], name: str, bits: int) -> None:
    if name in groups:
        most[groups[name]] = min(most.get(groups[name], bits), bits)


def _exponent(largest: float, name: str) -> int:
    """The least whole number e >= 0 for which ``largest`` is at most 2^e."""
    if not math.isfinite(largest):
        raise InputError(f"{name}: its weights are not finite, or its sums overflow: check the training.")
    return max(0, math.ceil(math.log2(max(largest, 2**-10))))
