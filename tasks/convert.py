"""Stage ``convert``: the trained network as a spiking one.

Artefact: ``snn.pt``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.states import State

from dynconf_core.conversion.convert import convert as converted
from dynconf_core.conversion.file import save_snn
from dynconf_core.data.load import data_set
from dynconf_core.networks.description import described
from dynconf_core.plan import Plan
from dynconf_core.training.checkpoint import load_checkpoint
from tasks.listening import Listener
from tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace, module_file


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__), module_file(f"dynconf_core.data.{plan.data.name}"))


def stage(plan: Plan, trained: Handle) -> Stage:
    """The stage of this plan. The thresholds are learned ones: of the data only the images' shape and the range that their
    normalisation allows matter, and both are known by the data set's name."""
    config = {"network": plan.network(), "data": plan.data.name, "time_steps": plan.time_steps, "grid": plan.grid}
    config["initial_potential"] = plan.initial_potential
    return Stage("convert", plan.setting, config, {"train": trained}, code(plan))


@task(name="convert", task_run_name="{plan.setting} · convert", **TASK_OPTIONS)
def convert(plan: Plan, work: Workplace, trained: Handle) -> State[Handle] | Handle:
    """Fold the batch normalisation away, put spiking neurons in the place of the activations, and round the weights."""

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        ann = described(plan.network(), plan.seed)
        load_checkpoint(ann, trained.file("checkpoint.pt"))
        data = plan.data
        images = data_set(data.name).load(work.data, "calibration", resolution=data.resolution, calibration=data.calibration)
        snn = converted(
            ann.eval(),
            images.normalisation(images.batch(torch.arange(1))),
            method="learned",
            time_steps=plan.time_steps,
            grid=plan.grid,
            initial_potential=plan.initial_potential,
            image_limit=images.normalisation.limit(),
        )
        save_snn(snn, folder / "snn.pt")
        thresholds = {name: float(layer.tensors["threshold"].mean()) for name, layer in snn.layers().items()}
        return {**snn.facts, "image_limit": snn.image_limit, "thresholds": thresholds}

    return stage(plan, trained).run(work, write)
