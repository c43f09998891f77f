"""Stages ``collect_calibration`` and ``collect_test``: a split's images through the SNN, all time steps.

Artefact: a traces folder (``logits.npy`` and its neighbours).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.conversion.file import load_snn
from dynconf_core.data.load import data_set
from dynconf_core.devices import device
from dynconf_core.networks.description import described
from dynconf_core.plan import Plan
from dynconf_core.simulation.collect import collect as collected
from dynconf_core.training.checkpoint import load_checkpoint
from tasks.listening import Listener
from tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace, data_config, module_file

BATCH = {"cpu": 64, "cuda": 256}


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__), module_file(f"dynconf_core.data.{plan.data.name}"))


def stage(plan: Plan, work: Workplace, data_digest: str, split: str, trained: Handle, snn: Handle) -> Stage:
    """The stage of this plan and split. Device and batch size are part of its key: in floating point the order of a sum
    shows in the last digits, and a spiking network amplifies them."""
    kind = device(work.device).type
    config = {
        "split": split,
        "network": plan.network(),
        "time_steps": plan.time_steps,
        "data": data_config(plan, data_digest),
        "device": kind,
        "batch_size": BATCH[kind],
    }
    return Stage(f"collect_{split}", plan.setting, config, {"train": trained, "convert": snn}, code(plan))


@task(name="collect", task_run_name="{plan.setting} · collect {split}", **TASK_OPTIONS)
def collect(plan: Plan, work: Workplace, data_digest: str, split: str, trained: Handle, snn: Handle) -> State[Handle] | Handle:
    """Simulate the images of ``split`` ("calibration" or "test") for T time steps and write their traces."""

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        ann = described(plan.network(), plan.seed)
        provenance = load_checkpoint(ann, trained.file("checkpoint.pt"))
        images = data_set(plan.data.name).load(
            work.data, split, resolution=plan.data.resolution, calibration=plan.data.calibration
        )
        where = device(work.device)
        facts = {
            "source": f"dynconf, {plan.setting}, profile {plan.profile}, seed {plan.seed}",
            "data": plan.data.name,
            "stands_in_for": plan.data.stands_in_for,
            "split": split,
            "network": plan.network(),
            "trained_on_calibration": None if "given" in provenance else False,
        }
        collected(
            load_snn(snn.file("snn.pt")),
            ann,
            images,
            plan.time_steps,
            folder,
            device=where,
            batch_size=BATCH[where.type],
            facts=facts,
            progress=listener,
        )
        return {"images": len(images)}

    return stage(plan, work, data_digest, split, trained, snn).run(work, write)
