"""Stage ``convert``: the trained network as a spiking one, and layer by layer how far it is from the ANN.

Artefact: ``snn.pt``, ``report.json``, ``report.txt``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.states import State

from dynconf_core.conversion.convert import convert as converted
from dynconf_core.conversion.file import save_snn
from dynconf_core.conversion.report import conversion_report, images_for_report
from dynconf_core.data.load import data_set
from dynconf_core.experiment.plan import Plan
from dynconf_core.networks.description import described
from dynconf_core.neurons.model import NEURONS
from dynconf_core.training.checkpoint import load_checkpoint
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace, module_file

REPORTED = 64
"""Calibration images of the report, at most."""


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    neurons = (NEURONS.source(name) for name in NEURONS.names())
    return (Path(__file__), module_file(f"dynconf_core.data.{plan.data.name}"), *neurons)


def stage(plan: Plan, trained: Handle) -> Stage:
    """The stage of this plan. The thresholds are learned ones: of the data only the images' shape and the range that their
    normalisation allows matter, and both are known by the data set's name."""
    config = {"network": plan.network(), "data": plan.data.name, "time_steps": plan.time_steps, "fixed_point": plan.fixed_point}
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
            thresholds="learned",
            time_steps=plan.time_steps,
            fixed_point=plan.fixed_point,
            initial_potential=plan.initial_potential,
            image_limit=images.normalisation.limit(),
        )
        few = torch.arange(min(len(images), images_for_report(snn, REPORTED)))
        pixels = images.normalisation(images.batch(few))
        report = conversion_report(snn, ann, pixels, plan.time_steps, images.labels[few])
        save_snn(snn, folder / "snn.pt")
        (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1))
        (folder / "report.txt").write_text(f"{report}\n")
        found = {"agreement": report.agreement, "worst_layer": report.worst_layer}
        return {**snn.facts, "image_limit": snn.image_limit, **found}

    return stage(plan, trained).run(work, write)
