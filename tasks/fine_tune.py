"""The stage ``fine_tune``: fine-tune the trained network as an SNN over its first time steps.

Artefact: ``checkpoint.pt``, of the form that ``train`` writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.machine import device
from dynconf_core.training.fine_tuned import fine_tune_to_file
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run


@task(name="fine_tune", task_run_name="{job.plan.setting} · fine-tune", **TASK_OPTIONS)
def fine_tune(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Fine-tune the trained network, resuming an interrupted run after its last saved epoch."""

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        return fine_tune_to_file(
            job.plan,
            job.context.file(inputs["train"], "checkpoint.pt"),
            data_root=job.context.data,
            device=device(job.context.device),
            out=folder / "checkpoint.pt",
            resume=work / "epoch.pt",
            progress=listener,
            facts_inside=False,
        )

    return run("fine_tune", job, inputs, write)
