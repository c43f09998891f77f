"""A setting's SNN with its exit rule as a logged model of MLflow: the files, their signature, and what they need.

The model is code (``served_model.py``) beside data: no Python object is pickled. It holds all that it needs, so that it loads
anywhere, without the home that it was made in.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dynconf_core.data.class_names import class_names
from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import Normalisation
from dynconf_core.errors import InputError
from dynconf_core.exit.rule import Rule
from dynconf_core.serving import INPUT, RULE, SNN, ImageFacts
from dynconf_core.store.artefacts import Artefact, Store

NAME = "snn"
"""The name of the logged model of a run."""
MODEL_DIGEST = "dynconf.model"
"""The tag with the digest of a model's content, by which it is found again."""
CODE = Path(__file__).with_name("served_model.py")
PACKAGES = ("dynconf", "mlflow", "numpy", "pandas", "torch")


@dataclass(frozen=True)
class Served:
    """What a model is made of.

    Attributes:
        setting: the setting's name.
        snn, rule: the files.
        shape: channels, height and width of its images.
        facts: what it expects of images.
    """

    setting: str
    snn: Path
    rule: Path
    shape: tuple[int, int, int]
    facts: ImageFacts

    @property
    def digest(self) -> str:
        """Identifies the content: files, facts, code and the versions that it needs."""
        told = json.dumps([self.shape, self.facts.as_json(), requirements()], sort_keys=True)
        parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (self.snn, self.rule, CODE)]
        return hashlib.sha256("\n".join([*parts, told]).encode()).hexdigest()

    @property
    def tags(self) -> dict[str, str]:
        """Where it comes from, as tags."""
        return {name: str(value) for name, value in self.facts.origin.items() if value is not None}


def served(setting: str, artefacts: Mapping[str, str], store: Store, data: Path) -> Served:
    """What the model of a finished setting or point is made of.

    Args:
        setting: the setting's name.
        artefacts: the keys of its artefacts by stage.
        store: the store with its artefacts.
        data: the folder of the data sets, for the names of classes; it need not exist.

    Raises:
        InputError: if an artefact is missing, or the rule or the neurons are code of a user's own, which no model imports.
    """
    convert, evaluation = (_artefact(setting, artefacts, *wanted, store) for wanted in (("convert", SNN), ("evaluate", RULE)))
    config, judged = convert.manifest["parts"]["config"], evaluation.manifest["parts"]["config"]
    try:
        Rule.load(evaluation.file(RULE))
    except InputError as error:
        raise InputError(
            f"{setting}: {error} A served model imports no code from outside: publish the measure as an entry point of an "
            "installed package, or choose another --rule."
        ) from None
    images, classes = config["data"], config["network"]["classes"]
    origin = {
        "setting": setting,
        "profile": judged["profile"],
        "seed": judged["seed"],
        "dataset": images["name"],
        "stands_in_for": judged["stands_in_for"],
        "width": judged["width"],
        "method": config["network"]["method"],
        "evaluation": evaluation.digest,
    }
    facts = ImageFacts(
        config["time_steps"],
        _normalisation(images),
        class_names(images["name"], data, classes),
        origin,
    )
    shape = images.get("sample", [3, images["resolution"], images["resolution"]])
    if len(shape) != 3:
        raise InputError(f"{setting}: its network takes vectors of {shape[0]} features; only one that takes images is served.")
    return Served(setting, convert.file(SNN), evaluation.file(RULE), tuple(shape), facts)


def _normalisation(images: Mapping[str, Any]) -> Normalisation:
    """What the network expects, by the config of a stage."""
    if images["normalisation"] is None and "expects" in images:
        return Normalisation(**images["expects"])
    return DATASETS.get(images["normalisation"] or images["name"]).normalisation


def logged_model(client: Any, experiment: str, run: str | None, model: Served) -> str:
    """Find or make the logged model with this content in an experiment; returns its id.

    Args:
        client: an ``MlflowClient``.
        experiment: the id of the experiment.
        run: the id of the run that the model comes from; None if there is none.
        model: what it is made of.
    """
    from mlflow.entities import LoggedModelOutput

    digest = model.digest
    found = client.search_logged_models([experiment], filter_string=f"tags.`{MODEL_DIGEST}` = '{digest}'")
    ready = [one for one in found if one.status == "READY"]
    here = next((one for one in ready if one.source_run_id == run), None) or (ready[0] if ready and run is None else None)
    if here is not None:
        return str(here.model_id)
    tags = {**model.tags, MODEL_DIGEST: digest}
    params = {"time_steps": str(model.facts.time_steps), "measure": Rule.load(model.rule).measure.name}
    made = client.create_logged_model(experiment, NAME, run, tags, params)
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder) / "model", model_id=made.model_id, run_id=run)
            client.log_model_artifacts(made.model_id, str(Path(folder) / "model"))
    except BaseException:
        with suppress(Exception):
            client.finalize_logged_model(made.model_id, "FAILED")
        raise
    client.finalize_logged_model(made.model_id, "READY")
    if run is not None:
        client.log_outputs(run, [LoggedModelOutput(made.model_id, step=0)])  # the run's page lists it
    return str(made.model_id)


def save_model(model: Served, folder: Path, **known: Any) -> None:
    """Write the MLflow model into a new folder; ``known`` are further attributes of MLflow's ``Model``."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model as save

    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # or it copies the lock file of whatever project this runs in
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as beside:
        facts = Path(beside) / INPUT
        model.facts.save(facts)
        save(
            str(folder),
            python_model=str(CODE),
            artifacts={SNN: str(model.snn), RULE: str(model.rule), INPUT: str(facts)},
            signature=signature(model),
            input_example=example(model.shape),
            pip_requirements=requirements(),
            metadata={**model.facts.origin, "time_steps": model.facts.time_steps},
            mlflow_model=Model(**known),
        )


def signature(model: Served) -> Any:
    """uint8 images ``(-1, H, W, C)`` to the columns of the answer.

    MLflow would make any request fit the signature before the model sees it, and cut decimals off on the way: normalised images
    would silently become black. With the mark of a signature made from type hints, it passes on what was sent, and the model
    checks it.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    whole, real = ("class", "steps", "spikes", "synaptic_operations"), ("confidence", "score")
    columns: list[ColSpec | TensorSpec] = [
        ColSpec("long" if name in whole else "double", name) for name in ("class", "confidence", *whole[1:], real[1])
    ]
    if model.facts.classes is not None:
        columns.append(ColSpec("string", "label"))
    found = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, *model.shape[1:], model.shape[0]))]), Schema(columns))
    found._is_signature_from_type_hint = True
    return found


def example(shape: tuple[int, int, int]) -> Any:
    """A made-up image ``(1, H, W, C)`` uint8: a gradient downwards, one across, and grey in any further channel."""
    channels, *size = shape
    down, across = (np.linspace(0, 255, length).round() for length in size)
    gradients = [np.broadcast_to(down[:, None], size), np.broadcast_to(across, size)][:channels]
    picture = np.stack([*gradients, *[np.full(size, 128.0)] * (channels - len(gradients))], axis=-1)
    return picture.astype(np.uint8)[None]


def requirements() -> list[str]:
    """The packages that a model needs, in the versions installed here, without the build of a machine."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]


def _artefact(setting: str, artefacts: Mapping[str, str], stage: str, file: str, store: Store) -> Artefact:
    found = store.get(artefacts[stage]) if stage in artefacts else None
    if found is None or file not in found.manifest["files"]:
        raise InputError(
            f"{setting}: the artefact of stage {stage} is not in {store.root}: name the run's --home, or run "
            "`dynconf reproduce` again."
        )
    return found
