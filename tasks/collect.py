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
from dynconf_core.data.splits import SPLIT_SEED
from dynconf_core.devices import device
from dynconf_core.experiment.plan import Data, Plan
from dynconf_core.networks.description import described
from dynconf_core.neurons.model import NEURONS
from dynconf_core.simulation.collect import collect as collected
from dynconf_core.simulation.footprint import BATCH
from dynconf_core.training.checkpoint import load_checkpoint, own_provenance
from dynconf_tasks.listening import Listener
from dynconf_tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace, data_config, module_file


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    neurons = (NEURONS.source(name) for name in NEURONS.names())
    return (Path(__file__), module_file(f"dynconf_core.data.{plan.data.name}"), *neurons)


def stage(plan: Plan, work: Workplace, data_digest: str, split: str, trained: Handle, snn: Handle) -> Stage:
    """The stage of this plan and split.

    With fixed-point weights its traces are the same bits on every device and for every batch. Without, the order of a sum shows
    in the last digits, which a spiking network amplifies: then device, batch and what bounds the batch are in its key.
    """
    config = {
        "split": split,
        "network": plan.network(),
        "time_steps": plan.time_steps,
        "data": data_config(plan, data_digest),
    }
    if not plan.fixed_point:
        kind = device(work.device).type
        config |= {"device": kind, "batch_size": BATCH[kind], "memory": work.memory}
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
        facts = {
            "source": f"dynconf, {plan.setting}, profile {plan.profile}, seed {plan.seed}",
            "data": plan.data.name,
            "stands_in_for": plan.data.stands_in_for,
            "split": split,
            "network": plan.network(),
        }
        seen = trained_on_calibration(provenance, plan.data)
        collected(
            load_snn(snn.file("snn.pt")),
            ann,
            images,
            plan.time_steps,
            folder,
            device=device(work.device),
            memory=work.memory,
            facts=facts if seen is None else {**facts, "trained_on_calibration": seen},
            progress=listener,
        )
        return {"images": len(images)}

    return stage(plan, work, data_digest, split, trained, snn).run(work, write)


def trained_on_calibration(provenance: Mapping[str, Any], data: Data) -> bool | None:
    """Whether a checkpoint's training saw images that ``data`` holds out; None where its provenance does not say."""
    images = own_provenance(provenance).get("data")
    split = images.get("split") if isinstance(images, dict) else None
    if not isinstance(split, dict) or (images.get("name"), split.get("seed")) != (data.name, SPLIT_SEED):
        return None
    trained, held = images.get("train"), split.get("calibration")
    if not isinstance(trained, int) or not isinstance(held, int) or trained + held != data.train + data.calibration:
        return None
    return held < data.calibration  # the larger of two held-out parts holds the smaller
