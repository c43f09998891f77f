"""Fine-tuning a checkpoint and writing another."""

from pathlib import Path
from typing import Any

import torch

from dynconf_core.conversion.options import ConversionOptions
from dynconf_core.errors import InputError
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.plan import Plan
from dynconf_core.networks.architecture import parameters
from dynconf_core.networks.checkpoint import load_checkpoint, save_checkpoint
from dynconf_core.progress import Progress, silent
from dynconf_core.schemes.network import described
from dynconf_core.training.fine_tuning import fine_tune
from dynconf_core.training.run import facts_of_run, split_facts
from dynconf_core.training.speed import SpeedUps


def fine_tune_to_file(
    plan: Plan,
    trained: Path,
    *,
    data_root: Path,
    device: torch.device,
    out: Path,
    resume: Path,
    progress: Progress = silent,
    speed_ups: SpeedUps | None = None,
    half: bool = False,
    facts_inside: bool = True,
) -> dict[str, Any]:
    """Fine-tune the network of a plan, by its ``fine_tuning``, and write its checkpoint.

    Args:
        trained: the checkpoint of the trained network.
        plan, data_root, device, out, resume, progress, speed_ups, half, facts_inside: as for ``train_to_file``.

    Returns:
        the provenance of the fine-tuning, with the facts of this run.

    Raises:
        InputError: if the checkpoint or the data set does not fit, it has been fine-tuned before, or the network cannot be
            fine-tuned (see ``Spiking``).
        FineTuningDiverged: as ``fine_tune``.
    """
    how, data = plan.fine_tuning, plan.data
    network = described(plan.network(), plan.seed)
    before = FineTuning.recorded(load_checkpoint(network, trained))
    if before:
        raise InputError(
            f"checkpoint {trained} is {before} already: give the network as it was trained, and fine_tune_epochs for all."
        )
    images = images_of(data, "train", data_root)
    record = fine_tune(
        network,
        images,
        plan.recipe,
        how,
        ConversionOptions(time_steps=plan.time_steps).changed(plan.scheme.conversion(plan.time_steps)),
        seed=plan.seed,
        device=device,
        resume=resume,
        progress=progress,
        speed_ups=speed_ups,
    )
    determined = {
        "network": plan.network(),
        "parameters": parameters(network),
        "fine_tuning": how.as_dict(plan.recipe),
        "seed": plan.seed,
        "data": {"name": data.name, "train": len(images), "split": split_facts(len(images), data.calibration)},
        "record": {"losses": record["losses"]},
        "half": half,
    }
    facts = {**determined, **facts_of_run(record, device)}
    save_checkpoint(network.cpu(), facts if facts_inside else determined, out, half=half)
    return facts
