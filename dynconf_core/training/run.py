"""Training a network and writing its checkpoint."""

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dynconf_core.data.splits import SPLIT_SEED, held_out
from dynconf_core.errors import InputError
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.plan import Data
from dynconf_core.experiment.recipe import Recipe
from dynconf_core.networks.build import parameters
from dynconf_core.networks.checkpoint import save_checkpoint
from dynconf_core.progress import Progress, silent
from dynconf_core.schemes.network import described
from dynconf_core.training.loop import train
from dynconf_core.training.speed import SpeedUps


def train_to_file(
    description: Mapping[str, Any],
    recipe: Recipe,
    *,
    data: Data,
    data_root: Path,
    seed: int,
    device: torch.device,
    out: Path,
    resume: Path,
    progress: Progress = silent,
    speed_ups: SpeedUps | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """Train and write ``out``, a checkpoint with its provenance, which is also returned.

    Args:
        description: of the network, see ``described``.
        recipe: how it is trained.
        data: which images; those that it holds out are never seen here.
        data_root: the folder of the data sets.
        seed: of weights, shuffling and augmentation.
        device: where to train.
        out: the checkpoint file.
        resume: the state after the last finished epoch; an interrupted run goes on from it.
        progress: told of every batch.
        speed_ups: those to use; None: those that a trial shows to pay.
        half: round the weights of convolutions and linear layers to half precision, which halves the file.

    Raises:
        InputError: where the data set is missing or damaged, or has another number of classes than the network.
    """
    images = images_of(data, "train", data_root)
    if images.classes != description["classes"]:
        raise InputError(
            f"{data.name} under {data_root} has {images.classes} classes, not {description['classes']}: restore it."
        )
    network = described({**description, "initial_threshold": recipe.initial_threshold}, seed)
    record = train(network, images, recipe, seed=seed, device=device, resume=resume, progress=progress, speed_ups=speed_ups)
    provenance = {
        "network": dict(description),
        "parameters": parameters(network),
        "recipe": {**recipe.__dict__, "augmentation": list(recipe.augmentation)},
        "seed": seed,
        "data": {"name": data.name, "train": len(images), "split": _split_facts(len(images), data.calibration)},
        "record": record,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "half": half,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    save_checkpoint(network.cpu(), provenance, out, half=half)
    return provenance


def _split_facts(trained: int, calibration: int) -> dict[str, Any]:
    """How the calibration images were held out, so that a reader can tell which ones training never saw."""
    _, held = held_out(trained + calibration, calibration)
    indices = hashlib.sha256(held.numpy().tobytes()).hexdigest()
    return {"seed": SPLIT_SEED, "calibration": calibration, "calibration_indices_sha256": indices}
