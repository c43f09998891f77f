"""Stage ``convert``: the trained network as a spiking one.

Artefact: ``snn.pt``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from dynconf_core.conversion.convert import convert as converted
from dynconf_core.conversion.file import save_snn
from dynconf_core.networks.description import described
from dynconf_core.plan import Plan
from dynconf_core.training.checkpoint import load_checkpoint
from tasks.listening import Listener
from tasks.stage import TASK_OPTIONS, Handle, Stage, Workplace


def code(plan: Plan) -> tuple[Path, ...]:
    """Where this stage's code begins."""
    return (Path(__file__),)


def stage(plan: Plan, trained: Handle) -> Stage:
    """The stage of this plan."""
    return Stage("convert", plan.setting, {"network": plan.network()}, {"train": trained}, code(plan))


@task(name="convert", task_run_name="{plan.setting} · convert", **TASK_OPTIONS)
def convert(plan: Plan, work: Workplace, trained: Handle) -> State[Handle] | Handle:
    """Fold the batch normalisation away and put spiking neurons in the place of the activations."""

    def write(folder: Path, listener: Listener) -> Mapping[str, Any]:
        ann = described(plan.network(), plan.seed)
        load_checkpoint(ann, trained.file("checkpoint.pt"))
        snn = converted(ann)
        save_snn(snn, plan.network(), folder / "snn.pt")
        return {"thresholds": {name: float(layer.threshold) for name, layer in snn.layers().items()}}

    return stage(plan, trained).run(work, write)
