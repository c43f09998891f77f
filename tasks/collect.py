"""The stages ``collect_calibration`` and ``collect_test``: simulate a split and record its traces.

Artefact: a folder of traces (``logits.npy`` and so on).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.conversion.file import load_snn
from dynconf_core.data.images import Split
from dynconf_core.experiment.images import facts_of_traces, images_of
from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.machine import device
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.neurons.model import NEURONS
from dynconf_core.schemes.network import described
from dynconf_core.simulation.collect import collect
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run


@task(name="collect", task_run_name="{job.plan.setting} · collect calibration", **TASK_OPTIONS)
def collect_calibration(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Simulate the calibration images for T time steps and record their traces."""
    return _collected("calibration", job, inputs)


@task(name="collect", task_run_name="{job.plan.setting} · collect test", **TASK_OPTIONS)
def collect_test(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Simulate the test images for T time steps and record their traces."""
    return _collected("test", job, inputs)


def _collected(split: Split, job: Job, inputs: Inputs) -> State[Handle] | Handle:
    plan, context = job.plan, job.context

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        ann = described(plan.network(), plan.seed)
        provenance = load_checkpoint(ann, context.file(inputs["train"], "checkpoint.pt"))
        images = images_of(plan.data, split, context.data)
        collect(
            load_snn(context.file(inputs["convert"], "snn.pt"), NEURONS.get(plan.scheme.neurons)),
            ann,
            images,
            plan.time_steps,
            folder,
            device=device(context.device),
            memory=context.memory,
            facts=facts_of_traces(plan, split, provenance),
            progress=listener,
        )
        return {"images": len(images)}

    return run(f"collect_{split}", job, inputs, write)
