"""ANN to SNN: every activation becomes a layer of spiking neurons, everything else stays.

QCFS layers become integrate-and-fire neurons with theta = lambda (Bu et al., ICLR 2022). LSQ layers become signed neurons
with theta = n s, and the image and the biases act in the first n steps only (Li, Ma, Furber, Front. Neurosci. 2022). Plain
ReLU, ReLU6 and clip layers become either, their thresholds found from calibration images (see ``thresholds``). The image is
a constant input current; the output layer has no neuron, its current is the logits of the step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.conversion.correction import corrected
from dynconf_core.conversion.fixed_point import with_fixed_point_weights
from dynconf_core.conversion.options import HALF_CHARGED, ConversionOptions
from dynconf_core.conversion.thresholds import find_thresholds
from dynconf_core.conversion.units import in_threshold_units
from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node, Settings
from dynconf_core.graph.trace import activations_first, folded, traced
from dynconf_core.neurons.model import NEURONS, NeuronModel
from dynconf_core.neurons.trial import check_model
from dynconf_core.simulation.network import SpikingNetwork

IMAGE_MARGIN = 1.5
"""How far beyond the largest calibration input an image may go, by default."""
PLAIN = "integrate-and-fire"
"""The neurons of activations that name none."""


def convert(ann: nn.Module, images: Tensor, options: ConversionOptions | None = None, **changes: Any) -> SpikingNetwork:
    """The spiking network of ``ann``, which stays as it is.

    Args:
        ann: in evaluation mode; logits ``(N, C)`` of images.
        images: normalised images ``(N, ...)`` from the training data: for learned thresholds one is enough (its shape and
            range matter), the other sources find the thresholds from them.
        options: of the conversion; None: the defaults.
        changes: fields of ``ConversionOptions`` by name, in the place of those in ``options``.

    Raises:
        InputError: where the network, the images or the options cannot work; an operation is named with its place.
    """
    asked = (options or ConversionOptions()).changed(changes)
    _check_images(images)
    limit = float(images.abs().max()) * IMAGE_MARGIN if asked.image_limit is None else asked.image_limit
    rounded, neurons = _spiking(ann, images, asked, limit)
    facts = _facts(asked, neurons, rounded)
    if not asked.fixed_point:
        return SpikingNetwork(rounded, neurons, facts=facts)
    return SpikingNetwork(rounded, neurons, image_limit=limit, time_steps_limit=asked.time_steps, facts=facts)


def _spiking(ann: nn.Module, images: Tensor, asked: ConversionOptions, limit: float) -> tuple[Graph, NeuronModel]:
    """The graph of the SNN and the model of its neurons."""
    graph = activations_first(folded(traced(ann, images)))
    if not graph.of_kind("activation"):
        raise InputError("the network has no activation that could become neurons: ReLU, ReLU6, clip, QCFS or LSQ is needed.")
    _check_max_pools(graph)
    neurons = asked.model() or _named_by_activations(graph)
    check_model(neurons, asked.time_steps)
    thresholds = find_thresholds(
        graph,
        asked.thresholds,
        images,
        time_steps=neurons.levels or asked.time_steps,
        percentile=asked.percentile,
        per_channel=asked.per_channel,
    )
    _check_thresholds(thresholds)
    _check_initial(asked.initial_potential, neurons)
    layers = {node.name: _settings(node, neurons) for node in graph.of_kind("activation")}
    initial = dict.fromkeys(layers, torch.tensor(float(asked.initial_potential), dtype=torch.float64))
    if asked.correct:
        found = corrected(graph, thresholds, neurons, images, asked.time_steps)
        graph, thresholds, initial = found.graph, found.thresholds, found.initial
        del found
    unrounded = [in_threshold_units(graph, thresholds, layers, initial)]  # handed on and not kept: copies of the weights count
    del graph
    if not asked.fixed_point:
        return unrounded.pop(), neurons
    if not limit > 0:
        raise InputError("images are all 0, so their range is not known: give real ones, or image_limit=... of them.")
    return with_fixed_point_weights(unrounded.pop(), neurons, limit, asked.time_steps, asked.weight_bits), neurons


def _named_by_activations(graph: Graph) -> NeuronModel:
    """The neurons that all activations name.

    Raises:
        InputError: where they name several kinds.
    """
    found: set[NeuronModel] = set()
    for node in graph.of_kind("activation"):
        levels = node.settings.get("levels")
        found.add(NEURONS.get(node.settings.get("neurons", PLAIN)).of(levels))
    if len(found) > 1:
        kinds = ", ".join(sorted(map(str, found)))
        raise InputError(f"the network's activations become neurons of several kinds ({kinds}): use one kind.")
    return found.pop()


def _settings(node: Node, neurons: NeuronModel) -> Settings:
    """Of the layer of neurons in the place of an activation: what their mean output approximates."""
    levels = neurons.levels or node.settings.get("levels")
    return {"levels": levels, "clipped": levels is not None or node.settings["function"] == "clip"}


def _facts(asked: ConversionOptions, neurons: NeuronModel, graph: Graph) -> dict[str, Any]:
    """Of the conversion, as JSON holds them."""
    levels = (node.settings["levels"] for node in graph.of_kind("neurons"))
    facts: dict[str, Any] = {
        "thresholds": asked.thresholds,
        "time_steps": asked.time_steps,
        "neurons": neurons.name,
        "levels": next((one for one in levels if one), None),
        "fixed_point": asked.fixed_point,
        "corrected": asked.correct,
    }
    if asked.initial_potential != HALF_CHARGED:
        facts["initial_potential"] = asked.initial_potential
    if asked.fixed_point:
        facts["binary_places"] = {node.name: node.settings["bits"] for node in graph.nodes if "bits" in node.settings}
    return facts


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim not in (2, 4) or not len(images):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images={shape}: give normalised images as a tensor (N, C, H, W) (or (N, F)), at least one.")
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}: normalise them to floating point as in training.")
    if not bool(torch.isfinite(images).all()):
        raise InputError("images hold NaN or infinite values: normalise them as in training.")


def _check_max_pools(graph: Graph) -> None:
    """A max pool is spiking where it chooses among spikes."""
    spikes = graph.spikes()
    for node in graph.of_kind("max_pool"):
        if node.name not in spikes:
            raise InputError(
                f"the max pool at {node.name!r} does not choose among activations (it follows {node.inputs[0]!r}): put an "
                "activation right before or after it, or use an average pool."
            )


def _check_initial(potential: float, neurons: NeuronModel) -> None:
    if potential != HALF_CHARGED and not neurons.free_potential:
        raise InputError(
            f"initial_potential={potential}: {neurons.name} neurons start half charged, or they would not settle at the "
            "quantised activation; leave it out."
        )


def _check_thresholds(thresholds: dict[str, Tensor]) -> None:
    for name, theta in thresholds.items():
        if not bool(torch.isfinite(theta).all()) or not bool((theta > 0).all()):
            raise InputError(f"{name} has the threshold {float(theta.min())}: it must be above 0; the training went astray.")
