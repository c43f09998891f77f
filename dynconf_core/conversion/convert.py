"""Conversion of an ANN into an SNN: every activation becomes a layer of spiking neurons; everything else is kept.

QCFS layers become integrate-and-fire neurons with theta = lambda (Bu et al., ICLR 2022). LSQ layers become signed neurons
with theta = n s, and the image and the biases act in the first n time steps only (Li, Ma, Furber, Front. Neurosci. 2022).
Plain ReLU, ReLU6 and clip layers may become either; their thresholds are found from calibration images (see
``thresholds``). The image is a constant input current. The output layer has no neurons: its current in a time step is the
logits of that step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.arguments import callback, instance, memory_limit, tensor
from dynconf_core.conversion.correction import corrected
from dynconf_core.conversion.fixed_point import FixedPoint, check_neurons, with_fixed_point_weights, with_rounding
from dynconf_core.conversion.options import HALF_CHARGED, ConversionOptions
from dynconf_core.conversion.places import Limits, Reach, check_depth, layers_without_activation, places_within
from dynconf_core.conversion.rounding_errors import RoundingErrors
from dynconf_core.conversion.thresholds import LEARNED, find_thresholds
from dynconf_core.conversion.ties import with_common_thresholds
from dynconf_core.conversion.units import in_threshold_units
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node, Settings
from dynconf_core.graph.sides import as_converted
from dynconf_core.neurons.model import NEURONS, NeuronModel
from dynconf_core.neurons.trial import check_model
from dynconf_core.progress import Progress, silent
from dynconf_core.simulation.network import SpikingNetwork

IMAGE_MARGIN = 1.5
"""Default limit on the images, as a multiple of the largest calibration input."""
TRIED = 8
"""The images whose thresholds tell whether a network can be converted in fixed point, before all are used."""
PLAIN = "integrate-and-fire"
"""The neuron model for activations that name none."""


def convert(
    ann: nn.Module,
    images: Tensor,
    options: ConversionOptions | None = None,
    *,
    memory: int | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> SpikingNetwork:
    """Convert ``ann``, which is not changed, into a spiking network.

    Args:
        ann: the trained network in evaluation mode, from images to logits ``(N, C)``.
        images: normalised images ``(N, ...)`` from the training data. For learned thresholds a single one is enough, since only
            its shape and range matter; the other sources find the thresholds from these images.
        options: options of the conversion; None stands for the defaults.
        memory: bytes the process may use on a CPU; None sets no limit.
        progress: called as thresholds are found and layers corrected.
        changes: fields of ``ConversionOptions`` by name, which override those of ``options``.

    Raises:
        InputError: if the network, the images or the options cannot work; an unsupported operation is named with its place.
    """
    given = ConversionOptions() if options is None else options
    asked = instance("options", given, ConversionOptions, "give ConversionOptions(...), or its fields by name").changed(changes)
    memory = memory_limit(memory)
    callback("progress", progress)
    _check_images(images)
    limit = float(images.abs().max()) * IMAGE_MARGIN if asked.image_limit is None else asked.image_limit
    made = _spiking(ann, images, asked, limit, memory, progress)
    if not asked.fixed_point:
        return SpikingNetwork(made.graph, made.neurons, facts=_facts(asked, made))
    return SpikingNetwork(
        made.graph, made.neurons, image_limit=limit, time_steps_limit=asked.time_steps, facts=_facts(asked, made)
    )


@dataclass(frozen=True)
class _Spiking:
    """The graph of an SNN, its neuron model, the number of images that calibrated it, the positions of each image on which the
    correction fitted a layer, of how many, what rounding changes on the images, and the layers that learned their V(0)."""

    graph: Graph
    neurons: NeuronModel
    images: int
    positions: Mapping[str, tuple[int, int]]
    rounding: RoundingErrors | None
    learned: frozenset[str]


def _spiking(
    ann: nn.Module,
    images: Tensor,
    asked: ConversionOptions,
    limit: float,
    memory: int | None,
    progress: Progress,
) -> _Spiking:
    graph = as_converted(ann, images)
    left_out = graph.left_out
    if not graph.of_kind("activation"):
        raise InputError("the network has no activation that can become neurons: use ReLU, ReLU6, clip, QCFS or LSQ.")
    _check_max_pools(graph)
    neurons = asked.model() or named_by_activations(graph)
    check_model(neurons, asked.time_steps)
    learned = learned_potentials(graph, neurons, asked)
    if asked.fixed_point:
        _check_fixed_point(graph, neurons, images, asked, limit)
    thresholds = find_thresholds(
        graph,
        asked.thresholds,
        images,
        time_steps=neurons.levels or asked.time_steps,
        percentile=asked.percentile,
        per_channel=asked.per_channel,
        progress=progress,
    )
    graph, thresholds = with_common_thresholds(graph, thresholds)
    _check_thresholds(thresholds)
    layers = {node.name: _settings(node, neurons) for node in graph.of_kind("activation")}
    initial = {**dict.fromkeys(layers, torch.tensor(float(asked.initial_potential), dtype=torch.float64)), **learned}
    positions: Mapping[str, tuple[int, int]] = {}
    if asked.correct:
        found = corrected(graph, thresholds, neurons, images, asked.time_steps, memory=memory, progress=progress)
        graph, thresholds, initial = found.graph, found.thresholds, found.initial
        positions = found.positions
        del found
    # Handed over and not kept: copies of the weights take memory.
    unrounded = [in_threshold_units(graph, thresholds, layers, initial)]
    del graph
    if asked.fixed_point:
        limits = Limits(neurons, limit, asked.time_steps)
        made = with_fixed_point_weights(unrounded.pop(), limits, asked.weight_bits, images, widen=_calibrated(asked))
    else:
        made = FixedPoint(unrounded.pop(), None)
    rounded = replace(made.graph, left_out=left_out)
    return _Spiking(rounded, neurons, len(images) if _calibrated(asked) else 0, positions, made.errors, frozenset(learned))


def _calibrated(asked: ConversionOptions) -> bool:
    """Whether the conversion depends on the images, beyond their shape and range."""
    return asked.correct or asked.thresholds != LEARNED


def _check_fixed_point(graph: Graph, neurons: NeuronModel, images: Tensor, asked: ConversionOptions, limit: float) -> None:
    """Refuse a network that fixed-point weights cannot represent, before the images are used to calibrate it.

    A network with weighted layers that follow each other is tried with the thresholds of a few images.
    """
    if not limit > 0:
        raise InputError("all images are 0, so their range is unknown: give real images, or image_limit=...")
    check_neurons(neurons)
    check_depth(graph)
    if not _calibrated(asked) or layers_without_activation(graph) < 2:
        return
    few = images[:TRIED]
    thresholds = find_thresholds(graph, asked.thresholds, few, time_steps=asked.time_steps, percentile=asked.percentile)
    graph, thresholds = with_common_thresholds(graph, thresholds)
    _check_thresholds(thresholds)
    layers = {node.name: _settings(node, neurons) for node in graph.of_kind("activation")}
    half = dict.fromkeys(layers, torch.tensor(HALF_CHARGED, dtype=torch.float64))
    copies = {node.name: node.with_tensors(**{key: one.clone() for key, one in node.tensors.items()}) for node in graph.nodes}
    tried = with_rounding(in_threshold_units(graph.map(copies), thresholds, layers, half))
    places_within(tried, Reach.of(tried, Limits(neurons, limit, asked.time_steps)))


def named_by_activations(graph: Graph) -> NeuronModel:
    """The neuron model that all activations name.

    Raises:
        InputError: if they name different models.
    """
    found: set[NeuronModel] = set()
    for node in graph.of_kind("activation"):
        levels = node.settings.get("levels")
        found.add(NEURONS.get(node.settings.get("neurons", PLAIN)).of(levels))
    if len(found) > 1:
        kinds = ", ".join(sorted(map(str, found)))
        raise InputError(f"the network's activations become neurons of different kinds ({kinds}): use one kind throughout.")
    return found.pop()


def _settings(node: Node, neurons: NeuronModel) -> Settings:
    """Settings of the layer of neurons that replaces an activation: what its mean output approximates."""
    levels = neurons.levels or node.settings.get("levels")
    return {"levels": levels, "clipped": levels is not None or node.settings["function"] == "clip"}


def _facts(asked: ConversionOptions, made: _Spiking) -> dict[str, Any]:
    """The facts of the conversion, as JSON."""
    graph = made.graph
    levels = (node.settings["levels"] for node in graph.of_kind("neurons"))
    facts: dict[str, Any] = {
        "thresholds": asked.thresholds,
        "time_steps": asked.time_steps,
        "neurons": made.neurons.name,
        "levels": next((one for one in levels if one), None),
        "fixed_point": asked.fixed_point,
        "corrected": asked.correct,
    }
    if asked.initial_potential != HALF_CHARGED:
        facts["initial_potential"] = asked.initial_potential
    if made.learned:
        facts["initial_potentials"] = {node.name: node.tensors["initial"].tolist() for node in graph.of_kind("neurons")}
    if graph.left_out:
        facts["left_out"] = list(graph.left_out)
    if asked.fixed_point:
        facts["binary_places"] = {node.name: node.settings["bits"] for node in graph.nodes if "bits" in node.settings}
        if wide := [node.name for node in graph.nodes if node.wide]:
            facts["wide"] = wide
    if made.rounding is not None:
        facts["rounding"] = made.rounding.to_json()
    if made.images:
        facts["images"] = made.images
    if made.positions:
        facts["fitted_positions"] = {name: list(count) for name, count in made.positions.items()}
    return facts


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim not in (2, 3, 4) or not len(images):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"images={shape}: give normalised images as a tensor (N, C, H, W), (N, C, L) or (N, F), at least one; of frames "
            "(N, T, ...) their mean, frames.mean(1)."
        )
    tensor("images", images, "give dense numbers")
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}: normalise them to floating point as in training.")
    if not bool(torch.isfinite(images).all()):
        raise InputError("images hold NaN or infinite values: normalise them as in training.")


def _check_max_pools(graph: Graph) -> None:
    """Raise ``InputError`` for a max pool whose inputs are not spikes."""
    spikes = graph.spikes()
    for node in graph.of_kind("max_pool"):
        if node.name not in spikes:
            raise InputError(
                f"the max pool at {node.name!r} does not pool activations (it follows {node.inputs[0]!r}): put an activation "
                "directly before or after it, or use an average pool."
            )


def learned_potentials(graph: Graph, neurons: NeuronModel, asked: ConversionOptions) -> dict[str, Tensor]:
    """V(0) of the layers whose activations have learned one, in units of the threshold, ``()`` or ``(C,)``.

    Raises:
        InputError: for a potential that is given besides, a correction that would replace them, neurons that would not settle
            at what their activation rounds to, or ones that never do.
    """
    potential = asked.initial_potential
    if potential != HALF_CHARGED and not neurons.free_potential:
        raise InputError(
            f"initial_potential={potential}: {neurons.name} neurons must start at half the threshold to settle at the "
            "quantised activation; leave it out."
        )
    found = {node.name: node.tensors["initial"] for node in graph.of_kind("activation") if "initial" in node.tensors}
    half = torch.tensor(HALF_CHARGED, dtype=torch.float64)
    for node in graph.of_kind("activation"):
        initial, shift = (node.tensors.get(name, half) for name in ("initial", "shift"))
        wanted = half if neurons.free_potential else initial
        if not bool((shift == wanted).all()):
            settles = "never settle, and need a shift of 1/2" if neurons.free_potential else "settle where it rounds like them"
            raise InputError(
                f"the activation at {node.name!r} rounds with the shift {_first(shift)}, and its neurons start at "
                f"{_first(initial)}: {neurons.name} neurons {settles}; convert it to the neurons that it was trained for."
            )
    for name, value in found.items():
        if potential != HALF_CHARGED:
            raise InputError(
                f"initial_potential={potential}, but the neurons at {name!r} have learned to start at {_first(value)}: leave "
                "it out."
            )
        if asked.correct:
            raise InputError(
                f"correct=True would replace what the neurons at {name!r} have learned to start at, {_first(value)}: leave it "
                "out."
            )
    return found


def _first(values: Tensor) -> str:
    return f"{float(values.flatten()[0]):.3g}"


def _check_thresholds(thresholds: dict[str, Tensor]) -> None:
    for name, theta in thresholds.items():
        if not bool(torch.isfinite(theta).all()) or not bool((theta > 0).all()):
            raise InputError(f"{name} has the threshold {float(theta.min())}, which must be above 0: retrain it.")
