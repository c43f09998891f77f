"""Stage ``train``: a network trained from scratch, or the checkpoint that the user gave.

Artefact: ``checkpoint.pt``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.devices import device
from dynconf_core.experiment.plan import Plan
from dynconf_core.networks.description import described, parameters
from dynconf_core.training.checkpoint import load_checkpoint, save_checkpoint
from dynconf_core.training.run import train_to_file
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace, data_config, module_file


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__), module_file(f"dynconf_core.data.{plan.data.name}"))


def stage(plan: Plan, data_digest: str, checkpoint: Path | None = None) -> Stage:
    """The stage of this plan; a given checkpoint is named by its content."""
    config: dict[str, Any] = {"network": plan.network()}
    if checkpoint is not None:
        config["given"] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    else:
        config |= {"recipe": asdict(plan.recipe), "seed": plan.seed, "data": data_config(plan, data_digest)}
    return Stage("train", plan.setting, config, {}, code(plan))


@task(name="train", task_run_name="{plan.setting} · train", **TASK_OPTIONS)
def train(plan: Plan, work: Workplace, data_digest: str, checkpoint: Path | None = None) -> State[Handle] | Handle:
    """Train the plan's network, going on from the last finished epoch of an interrupted run, or take ``checkpoint``."""
    this = stage(plan, data_digest, checkpoint)
    resume = work.home / "work" / this.key().key / "epoch.pt"

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        out = folder / "checkpoint.pt"
        if checkpoint is not None:
            network = described(plan.network(), plan.seed)
            provenance = load_checkpoint(network, checkpoint)
            save_checkpoint(network, {"given": checkpoint.name, "provenance": provenance}, out)
            return {"given": checkpoint.name, "parameters": parameters(network)}
        return train_to_file(
            plan.network(),
            plan.recipe,
            dataset=plan.data.name,
            calibration=plan.data.calibration,
            data_root=work.data,
            seed=plan.seed,
            device=device(work.device),
            out=out,
            resume=resume,
            progress=listener,
        )

    done = this.run(work, write, "given" if checkpoint is not None else "ran")
    if resume.is_file():
        resume.unlink()
        resume.parent.rmdir()
    return done
