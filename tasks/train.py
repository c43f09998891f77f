"""The stage ``train``: train the network from scratch, or take the checkpoint given by the user.

Artefact: ``checkpoint.pt``, which holds what the stage's key determines: seconds, device, threads and versions, or the name of
the given file, stand in the manifest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import State, task

from dynconf_core.experiment.job import Handle, Inputs, Job
from dynconf_core.machine import device
from dynconf_core.networks.architecture import parameters
from dynconf_core.networks.checkpoint import load_checkpoint, save_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.training.run import train_to_file
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, run


@task(name="train", task_run_name="{job.plan.setting} · train", **TASK_OPTIONS)
def train(job: Job, inputs: Inputs) -> State[Handle] | Handle:
    """Train the plan's network, resuming an interrupted run after its last saved epoch, or take the given checkpoint."""
    plan, given = job.plan, job.checkpoint

    def write(folder: Path, work: Path, listener: Listener) -> Mapping[str, Any]:
        out = folder / "checkpoint.pt"
        if given is not None:
            network = described(plan.network(), plan.seed)
            save_checkpoint(network, load_checkpoint(network, given), out)
            return {"given": given.name, "parameters": parameters(network)}
        return train_to_file(
            plan,
            data_root=job.context.data,
            device=device(job.context.device),
            out=out,
            resume=work / "epoch.pt",
            progress=listener,
            facts_inside=False,
        )

    return run("train", job, inputs, write, "given" if given is not None else "ran")
