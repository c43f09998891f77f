"""ANN to SNN: every activation becomes a layer of spiking neurons, everything else stays.

QCFS layers become integrate-and-fire neurons with theta = lambda (Bu et al., ICLR 2022). LSQ layers become signed neurons
with theta = n s, and the input and the biases act in the first n steps only (Li, Ma, Furber, Front. Neurosci. 2022). Plain
ReLU, ReLU6 and clip layers become either, their thresholds found from calibration images (see ``thresholds``). The image is
a constant current; the output layer has no neuron, its current is the logits of the step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.conversion.correction import corrected
from dynconf_core.conversion.fixed_point import WEIGHT_BITS, with_fixed_point_weights
from dynconf_core.conversion.thresholds import find_thresholds
from dynconf_core.conversion.units import in_threshold_units
from dynconf_core.errors import InputError
from dynconf_core.graph.fold import activations_first, folded
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.graph.trace import traced
from dynconf_core.simulation.network import SpikingNetwork

HALF_CHARGED = 0.5
"""V(0) in thresholds: with it the mean error of a rate is 0 (Bu et al., ICLR 2022)."""
NEURONS = ("auto", "integrate-and-fire", "signed")
IMAGE_MARGIN = 1.5
"""How far beyond the largest calibration input an image may go, by default."""


def convert(
    ann: nn.Module,
    images: Tensor,
    method: str = "learned",
    *,
    time_steps: int = 32,
    neurons: str = "auto",
    levels: int | None = None,
    correct: bool = False,
    initial_potential: float = HALF_CHARGED,
    percentile: float = 99.9,
    per_channel: bool = True,
    fixed_point: bool = True,
    weight_bits: int = WEIGHT_BITS,
    image_limit: float | None = None,
) -> SpikingNetwork:
    """The spiking network of ``ann``, which stays as it is.

    Args:
        ann: in evaluation mode; logits ``(N, C)`` of images.
        images: normalised images ``(N, ...)`` from the training data: for ``learned`` thresholds one is enough (its shape and
            range matter), the other methods find the thresholds from them.
        method: where thresholds come from: "learned", "max", "percentile", "error"; see ``conversion.thresholds``.
        time_steps: T, for which thresholds are found, calibration is made and the fixed-point weights are proven exact.
        neurons: "auto" (signed after LSQ, else integrate-and-fire), or one of the two for layers that are plain ReLU or clip.
        levels: n of signed neurons after ReLU or clip layers.
        correct: correct biases and initial potentials layer by layer on ``images``; see ``conversion.calibration``.
        initial_potential: V(0) in thresholds, of integrate-and-fire neurons, where it is not corrected.
        percentile: for method "percentile", in per cent.
        per_channel: one threshold a channel where data choose it, else one a layer.
        fixed_point: round the weights so that float32 is exact; see ``conversion.fixed_point``.
        weight_bits: of the fixed-point weights, sign included.
        image_limit: the largest absolute value of a normalised image; default: half as much again as in ``images``.

    Raises:
        InputError: where the network, the images or the options cannot work; an operation is named with its place.
    """
    _check_options(time_steps, neurons, levels, weight_bits, image_limit)
    _check_images(images)
    limit = float(images.abs().max()) * IMAGE_MARGIN if image_limit is None else image_limit

    def spiking() -> Graph:
        """In threshold units, not rounded. It is handed on and not kept: of a large network each copy of the weights counts."""
        graph = activations_first(folded(traced(ann, images)))
        if not graph.of_kind("activation"):
            raise InputError(
                "the network has no activation that could become neurons: ReLU, ReLU6, clip, QCFS or LSQ is needed."
            )
        _check_max_pools(graph)
        kinds = {node.name: _neurons_of(node, neurons, levels) for node in graph.of_kind("activation")}
        _check_alike(graph, kinds)
        steps = levels if neurons == "signed" and levels is not None else time_steps
        thresholds = find_thresholds(graph, method, images, time_steps=steps, percentile=percentile, per_channel=per_channel)
        _check_thresholds(thresholds)
        _check_initial(initial_potential, kinds, correct)
        initial = dict.fromkeys(kinds, torch.tensor(float(initial_potential), dtype=torch.float64))
        if correct:
            found = corrected(graph, thresholds, kinds, images, time_steps)
            graph, thresholds, initial = found.graph, found.thresholds, found.initial
        if fixed_point and not limit > 0:
            raise InputError("images are all 0, so their range is not known: give real ones, or image_limit=... of them.")
        return in_threshold_units(graph, thresholds, kinds, initial)

    rounded = with_fixed_point_weights(spiking(), limit, time_steps, weight_bits) if fixed_point else spiking()
    settings = [node.settings for node in rounded.of_kind("neurons")]
    facts: dict[str, Any] = {
        "method": method,
        "time_steps": time_steps,
        "neurons": "signed" if settings[0]["signed"] else "integrate-and-fire",
        "levels": next((one["levels"] for one in settings if one["levels"]), None),
        "fixed_point": fixed_point,
        "corrected": correct,
    }
    if initial_potential != HALF_CHARGED:
        facts["initial_potential"] = initial_potential
    if not fixed_point:
        return SpikingNetwork(rounded, facts=facts)
    facts["binary_places"] = {node.name: node.settings["bits"] for node in rounded.nodes if "bits" in node.settings}
    return SpikingNetwork(rounded, image_limit=limit, time_steps_limit=time_steps, facts=facts)


def _neurons_of(node: Node, neurons: str, levels: int | None) -> dict[str, Any]:
    settings = node.settings
    if settings["function"] == "quantised":
        return {"signed": bool(settings["signed"]), "levels": int(settings["levels"]), "clipped": True}
    signed = neurons == "signed"
    return {"signed": signed, "levels": levels if signed else None, "clipped": signed or settings["function"] == "clip"}


def _check_options(time_steps: int, neurons: str, levels: int | None, weight_bits: int, image_limit: float | None) -> None:
    if time_steps < 1:
        raise InputError(f"time_steps={time_steps}: an SNN needs at least one.")
    if neurons not in NEURONS:
        raise InputError(f"neurons={neurons!r} is unknown: choose one of {', '.join(NEURONS)}.")
    if (neurons == "signed") != (levels is not None):
        raise InputError(f"neurons={neurons!r} with levels={levels}: signed neurons need levels (n, such as 15), others none.")
    if levels is not None and not 1 <= levels <= time_steps:
        raise InputError(
            f"levels={levels}: signed neurons send at most one spike a step, so 1 to time_steps={time_steps} work."
        )
    if not 3 <= weight_bits <= 20:
        raise InputError(f"weight_bits={weight_bits}: give 3 to 20, such as 8 or 13.")
    if image_limit is not None and not 0 < image_limit < 2.0**16:
        raise InputError(f"image_limit={image_limit}: give the largest absolute value of a normalised image, such as 3.")


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


def _check_alike(graph: Graph, kinds: dict[str, dict[str, Any]]) -> None:
    found = sorted({f"signed with n = {kind['levels']}" if kind["signed"] else "integrate-and-fire" for kind in kinds.values()})
    if len(found) > 1:
        raise InputError(f"the network's activations become neurons of several kinds ({', '.join(found)}): use one kind.")


def _check_initial(potential: float, kinds: dict[str, dict[str, Any]], correct: bool) -> None:
    if not 0 <= potential < 1:
        raise InputError(f"initial_potential={potential}: give 0 to below 1, in thresholds, such as 0.5.")
    if potential != HALF_CHARGED and any(kind["signed"] for kind in kinds.values()):
        raise InputError(
            f"initial_potential={potential}: signed neurons start half charged, or they would not settle at the quantised "
            "activation; leave it out."
        )
    if potential != HALF_CHARGED and correct:
        raise InputError(f"initial_potential={potential} and correct=True: calibration chooses it itself; leave one out.")


def _check_thresholds(thresholds: dict[str, Tensor]) -> None:
    for name, theta in thresholds.items():
        if not bool(torch.isfinite(theta).all()) or not bool((theta > 0).all()):
            raise InputError(f"{name} has the threshold {float(theta.min())}: it must be above 0; the training went astray.")
