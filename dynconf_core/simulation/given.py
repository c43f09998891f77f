"""What functions that simulate are given: checks of the network, the images, and how many of them at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.arguments import instance, tensor, whole
from dynconf_core.errors import InputError
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.wording import an, told

SPLIT = (
    "give a split with its labels: TensorImages(images, labels, classes, normalisation), Frames(frames, labels), or one of a "
    "data set, such as own_data(PATH).images('test')"
)


def check_network(snn: object) -> None:
    """Raise ``InputError`` unless ``snn`` is a converted network."""
    if isinstance(snn, SpikingNetwork):
        return
    if isinstance(snn, nn.Module):
        raise InputError(f"snn is {an(snn)}, which is not converted: give what convert(network, images, ...) returns.")
    raise InputError(
        f"{told('snn', snn)}: give a SpikingNetwork, as convert(network, images, ...) or load_snn(PATH) returns it."
    )


def check_network_to_compare(ann: object) -> None:
    """Raise ``InputError`` unless ``ann`` is a network from images to logits."""
    if isinstance(ann, SpikingNetwork):
        raise InputError("ann is a SpikingNetwork: give the trained network from which it was converted.")
    if not isinstance(ann, nn.Module) or hasattr(ann, "rule"):  # an agent is a module too
        raise InputError(f"{told('ann', ann)}: give the trained network, a torch.nn.Module.")


def check_split(images: Any) -> None:
    """Raise ``InputError`` unless ``images`` are a split: labels, normalisation, a length and batches."""
    missing = [name for name in ("labels", "normalisation", "batch", "__len__") if not hasattr(images, name)]
    if missing or isinstance(images, type):
        raise InputError(f"{told('images', images)}: {SPLIT}.")


def split_or_tensor(images: Any) -> Any:
    """The images of a live run: a split, or a tensor, which an array becomes."""
    if hasattr(images, "batch"):
        check_split(images)
        return images
    remedy = "give normalised images as a tensor (N, C, H, W), (N, C, L) or (N, F), frames (N, T, ...), or a split"
    found = tensor("images", images, remedy)
    if found.ndim < 2:
        raise InputError(f"images has the shape {tuple(found.shape)}: {remedy}.")
    return found


def at_a_time(batch: Any) -> int | None:
    """The number of images simulated at a time; None leaves it to the program."""
    if batch is None:
        return None
    found = whole("batch", batch, "give the number of images at a time, at least 1")
    if found < 1:
        raise InputError(f"batch={found}: give at least 1.")
    return found


def first_of(images: Any) -> Tensor:
    """The first image of a split, ``(1, ...)``, as the split gives it."""
    found = images.batch(torch.arange(1))
    return instance("images.batch(torch.arange(1))", found, Tensor, "the batches of a split are tensors (n, ...)")
