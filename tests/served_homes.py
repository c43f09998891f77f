"""A home in which one setting is finished, with a real, untrained network; made in about two seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from homes import VGG, handle
from numpy.typing import NDArray
from result_cases import run_result, setting_result
from training_cases import network

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import save_snn
from dynconf_core.data.digits import DIGITS
from dynconf_core.data.images import TensorImages
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.job import Job, RunContext
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.stages import STAGES
from dynconf_core.results.files import write_results
from dynconf_core.schemes.scheme import SCHEMES
from dynconf_core.serving import Classifier, ImageFacts
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.traces.schema import Traces

TIME_STEPS = 8
RUN = "20261127-000000-smoke-seed0"


def images(count: int = 24) -> TensorImages:
    """Handwritten digits of the test split at the network's size."""
    return DIGITS.load(Path(), "test", resolution=32, calibration=300).subset(torch.arange(count))  # type: ignore[attr-defined,no-any-return]


def converted() -> SpikingNetwork:
    """A network with quantised activations, as an SNN."""
    ann, few = network("qffs", seed=1, resolution=32), images(8)
    for module in ann.modules():
        if "initialised" in dict(module.named_buffers(recurse=False)):
            module.initialise(torch.linspace(0, 2, 64))
    options = SCHEMES.get("qffs")(bits=2).conversion(TIME_STEPS)
    pixels = few.normalisation(few.pixels)
    limit = few.normalisation.limit()
    return convert(ann.eval(), pixels, **options, time_steps=TIME_STEPS, fixed_point=True, image_limit=limit)


def dividing_rule(traces: Traces) -> Rule:
    """A rule whose threshold lets about half of the samples exit before T."""
    scores = Rule("max_softmax", Smoothing("sum", 1.0), 0.0).scores(traces)
    return Rule("max_softmax", Smoothing("sum", 1.0), float(np.median(scores[:, TIME_STEPS // 2])))


@dataclass(frozen=True)
class Case:
    """A classifier, and what it has to answer to ``images()``: classes and exit steps according to collected traces."""

    classifier: Classifier
    traces: Traces

    @property
    def steps(self) -> NDArray[np.int64]:
        return self.classifier.rule.exit_steps(self.traces)

    @property
    def classes(self) -> NDArray[np.int64]:
        logits = np.cumsum(self.traces.logits.astype(np.float64), axis=1)
        found: NDArray[np.int64] = logits[np.arange(len(logits)), self.steps - 1].argmax(axis=1)
        return found


def case() -> Case:
    snn = converted()
    traces = collect(snn, None, images(), TIME_STEPS)
    facts = ImageFacts(TIME_STEPS, DIGITS.normalisation, tuple("0123456789"), {"setting": VGG})
    return Case(Classifier(snn, dividing_rule(traces), facts), traces)


def make_home(home: Path, case: Case) -> Path:
    """Write the setting's artefacts, and the results of a run that name them."""
    job = Job(resolve(VGG, "smoke"), RunContext(home, home / "data"), "digest")
    made: dict[str, Artefact] = {}
    for stage in STAGES:
        key = stage.key(job, {role: handle(made[name]) for role, name in stage.inputs.items()})
        with (new := Store(home / "artefacts").create(key, {})) as folder:
            (folder / "file").write_text(stage.name)
            if stage.name == "convert":
                save_snn(case.classifier.snn, folder / "snn.pt")
            if stage.name == "evaluate":
                case.classifier.rule.save(folder / "rule.json")
        made[stage.name] = new.created
    row = replace(setting_result(), name=VGG, artefacts={name: one.key for name, one in made.items()})
    write_results(home, replace(run_result(row), run=RUN))
    return home
