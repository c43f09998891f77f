"""The stage ``convert``: convert the trained network into an SNN and report on the conversion.

Artefact: ``snn.pt``, ``report.json``, ``report.txt``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from prefect import State, task

from dynconf_core.conversion.convert import convert as converted
from dynconf_core.conversion.file import save_snn
from dynconf_core.conversion.report import conversion_report, images_for_report
from dynconf_core.data.images import limit
from dynconf_core.experiment.images import images_of
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run

REPORTED = 64
"""The most calibration images in the report."""


@task(name="convert", task_run_name="{job.plan.setting} · convert", **TASK_OPTIONS)
def convert(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Fold batch normalisation, replace activations by spiking neurons, and round the weights to fixed point."""
    plan = job.plan

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        ann = described(plan.network(), plan.seed)
        load_checkpoint(ann, job.context.file(inputs["train"], "checkpoint.pt"))
        images = images_of(plan.data, "calibration", job.context.data)
        snn = converted(
            ann.eval(),
            images.normalisation(images.batch(torch.arange(min(len(images), plan.scheme.images)))),
            **plan.scheme.conversion(plan.time_steps),
            time_steps=plan.time_steps,
            fixed_point=plan.fixed_point,
            image_limit=limit(images),
        )
        few = torch.arange(min(len(images), images_for_report(snn, REPORTED)))
        pixels = images.normalisation(images.batch(few))
        report = conversion_report(snn, ann, pixels, plan.time_steps, images.labels[few])
        save_snn(snn, folder / "snn.pt")
        (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1))
        (folder / "report.txt").write_text(f"{report}\n", encoding="utf-8")
        found = {"agreement": report.agreement, "worst_layer": report.worst_layer}
        return {**snn.facts, "image_limit": snn.image_limit, **found}

    return run("convert", job, inputs, write)
