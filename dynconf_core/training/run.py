"""Training a network and writing its checkpoint."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

from dynconf_core.data.images import SPLIT_SEED, held_out
from dynconf_core.errors import InputError
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.start import untrained
from dynconf_core.networks.architecture import parameters
from dynconf_core.networks.checkpoint import save_checkpoint
from dynconf_core.progress import Progress, silent
from dynconf_core.training.epochs import TrainingRecord
from dynconf_core.training.loop import train
from dynconf_core.training.processes import ALONE, Processes
from dynconf_core.training.speed import SpeedUps


def train_to_file(
    plan: Plan,
    *,
    data_root: Path,
    device: torch.device,
    out: Path,
    resume: Path,
    progress: Progress = silent,
    speed_ups: SpeedUps | None = None,
    half: bool = False,
    facts_inside: bool = True,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Train the network of a plan and write its checkpoint.

    Args:
        plan: the setting's plan; the images that it holds out are not used.
        data_root: the folder of the data sets.
        device: the device to train on.
        out: the checkpoint file.
        resume: file of the state after the last saved epoch, from which an interrupted run resumes.
        progress: called after every batch.
        speed_ups: the speed-ups to use; None means ``speed.chosen``.
        half: whether to round the weights of convolutions and linear layers to half precision, which halves the file.
        facts_inside: whether the checkpoint also holds what differs from one run of a training to the next: seconds, speed-ups,
            device, threads and versions.
        processes: those that train the network, each of which calls this; the first writes the checkpoint.

    Returns:
        the provenance of the training, with these facts.

    Raises:
        InputError: if the data set is missing or damaged, or its number of classes is not that of the plan.
        Diverged: if the loss or a weight is no longer finite.
    """
    data, recipe, seed = plan.data, plan.recipe, plan.seed
    images = processes.checked(lambda: images_of(data, "train", data_root))
    if images.classes != data.classes:
        raise InputError(f"{data.name} under {data_root} has {images.classes} classes, not {data.classes}: restore it.")
    network, started = untrained(plan)
    processes.same(images=len(images), labels=hashlib.sha256(images.labels.numpy().tobytes()).hexdigest())
    record = train(
        network,
        images,
        recipe,
        seed=seed,
        device=device,
        resume=resume,
        progress=progress,
        speed_ups=speed_ups,
        processes=processes,
    )
    several = {"processes": processes.count} if processes.count > 1 else {}
    determined = {
        **several,
        "network": plan.network(),
        "parameters": parameters(network),
        "recipe": recipe.as_dict(),
        **started,
        "seed": seed,
        "data": {"name": data.name, "train": len(images), "split": split_facts(len(images), data.calibration)},
        "record": {"losses": record["losses"]},
        "half": half,
    }
    facts = {**determined, **facts_of_run(record, device, processes)}
    if processes.first:
        save_checkpoint(network.cpu(), facts if facts_inside else determined, out, half=half)
    return facts


def facts_of_run(record: TrainingRecord, device: torch.device, processes: Processes = ALONE) -> dict[str, Any]:
    """What differs from one run of a training to the next."""
    return {
        "record": record,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        **processes.facts(device),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }


def split_facts(trained: int, calibration: int) -> dict[str, Any]:
    """How the calibration images were held out, which identifies the images not used in training."""
    _, held = held_out(trained + calibration, calibration)
    indices = hashlib.sha256(held.numpy().tobytes()).hexdigest()
    return {"seed": SPLIT_SEED, "calibration": calibration, "calibration_indices_sha256": indices}
