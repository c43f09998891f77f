"""The stages of a setting. Running, ``dynconf explain``, ``dynconf export`` and the results iterate over ``stages_of(plan)``.

The key of a stage's artefact covers its config (the values that can change the outcome), the content of its inputs, and all
code reached from the stage's task and from the registered implementations named by the plan. Keys name modules instead of
files, so that an installed package and a checkout give the same key.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import SPLIT_SEED
from dynconf_core.errors import InputError
from dynconf_core.experiment.equal_code import equal_code
from dynconf_core.experiment.job import Inputs, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.networks.architecture import ARCHITECTURES
from dynconf_core.registry import Registry
from dynconf_core.schemes.scheme import SCHEMES
from dynconf_core.store.fingerprint import fingerprint, reached
from dynconf_core.store.keys import StageKey, stage_key

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package ``dynconf_core``."""
WITHOUT_INFLUENCE = {
    "dynconf_core/__init__.py": "finds the public names, which no stage uses",
    "dynconf_core/arguments.py": "refuses arguments of the wrong type, and gives back the values of the others",
    "dynconf_core/errors.py": "the exception for unusable input: no result comes of it",
    "dynconf_core/experiment/job.py": "carries a stage's inputs, which its key covers",
    "dynconf_core/experiment/plan.py": "carries the values of a setting; those that a stage uses are in its key",
    "dynconf_core/failing.py": "does nothing outside tests",
    "dynconf_core/files.py": "says how a file gets to disk, not what is in it",
    "dynconf_core/machine.py": "chooses the device, which is in the key where it can change a result, and sets up memory",
    "dynconf_core/networks/other_files.py": "says what a file is that is refused",
    "dynconf_core/networks/untrusted.py": "refuses files, and changes nothing in those that it lets pass",
    "dynconf_core/progress.py": "reports to people",
    "dynconf_core/registry.py": "finds implementations, which the key names and whose code it covers",
    "dynconf_core/wording.py": "words messages",
}
"""The only files that stages reach and that are no part of their keys, each with the reason."""
_fingerprinting = threading.Lock()
"""Serialises parsing: Python 3.11 tracks the depth of a syntax tree across threads, so that parallel parses fail."""


Used = list[tuple[Registry[Any], str]]
"""Implementations, as pairs of a registry and a name in it."""


@dataclass(frozen=True)
class Stage:
    """A stage, independent of the setting.

    Attributes:
        name: its name in the results.
        inputs: the stages whose artefacts it reads, by role.
        config: gives the values that can change its outcome.
        task: the Prefect task that runs it, as ``module:function``; its code is followed from that module.
        reads: the kinds of registered implementations it uses, as named in ``_IMPLEMENTATIONS``.
        published: whether a published run contains files of its artefact.
    """

    name: str
    inputs: Mapping[str, str]
    config: Callable[[Job], dict[str, Any]]
    task: str
    reads: tuple[str, ...] = ()
    published: bool = True

    def modules(self, plan: Plan) -> dict[str, Path]:
        """The files from which the stage's code is followed, by their names in the key: the task's module and the registered
        implementations."""
        task = self.task.partition(":")[0]
        found = {task: module_file(task)}
        for what in self.reads:
            for registry, name in _IMPLEMENTATIONS[what](plan):
                found[registry.origin(name)] = registry.source(name)
        return found

    def code(self, plan: Plan) -> list[Path]:
        """The files whose code the key covers."""
        return reached(list(self.modules(plan).values()), ROOT, without=WITHOUT_INFLUENCE)

    def key(self, job: Job, inputs: Inputs) -> StageKey:
        """The key of the stage's artefact."""
        digests = {role: inputs[role].digest for role in self.inputs}
        return stage_key(self.name, self.config(job), digests, code_fingerprint(self.modules(job.plan)))


def _neurons(plan: Plan) -> Used:
    from dynconf_core.neurons.model import NEURONS  # imports torch, which `dynconf --help` avoids

    return [(NEURONS, plan.scheme.neurons)]


def _tried(plan: Plan) -> Used:
    from dynconf_core.choosing.candidates import measures_tried
    from dynconf_core.confidence.measure import MEASURES

    return [(MEASURES, name) for name in measures_tried(plan.search.rule)]


def _compared(plan: Plan) -> Used:
    from dynconf_core.choosing.candidates import measures_compared
    from dynconf_core.confidence.measure import MEASURES

    return [(MEASURES, name) for name in measures_compared(plan.search.rule)]


_IMPLEMENTATIONS: dict[str, Callable[[Plan], Used]] = {
    "data": lambda plan: [(DATASETS, plan.data.source)],
    "architecture": lambda plan: [(ARCHITECTURES, plan.architecture)],
    "scheme": lambda plan: [(SCHEMES, plan.method)],
    "neurons": _neurons,
    "measures tried": _tried,
    "measures compared": _compared,
}


def _data(job: Job) -> dict[str, Any]:
    """The content, size, split and normalisation of the images."""
    data = job.plan.data
    return {
        "name": data.name,
        "digest": job.data_digest,
        "resolution": data.resolution,
        "train": data.train,
        "calibration": data.calibration,
        "split_seed": SPLIT_SEED,
        "normalisation": data.normalisation,
        **({} if data.sample is None else {"sample": list(data.sample)}),
        **({} if data.expects is None else {"expects": data.expects.as_json()}),
    }


def _train(job: Job) -> dict[str, Any]:
    """The recipe and data, or the content of a given checkpoint."""
    plan = job.plan
    if job.checkpoint is not None:
        return {"network": plan.network(), "given": hashlib.sha256(job.checkpoint.read_bytes()).hexdigest()}
    return {"network": plan.network(), "recipe": plan.recipe.as_dict(), "seed": plan.seed, "data": _data(job)}


def _fine_tune(job: Job) -> dict[str, Any]:
    """The conversion determines the neurons that are simulated."""
    plan = job.plan
    return {
        "network": plan.network(),
        "fine_tuning": plan.fine_tuning.as_dict(plan.recipe),
        "conversion": plan.scheme.conversion(plan.time_steps),
        "seed": plan.seed,
        "data": _data(job),
    }


def _convert(job: Job) -> dict[str, Any]:
    """The images count even where thresholds are learned: the report shows how well both networks agree on them."""
    plan = job.plan
    return {
        "network": plan.network(),
        "data": _data(job),
        "time_steps": plan.time_steps,
        "fixed_point": plan.fixed_point,
        "conversion": plan.scheme.conversion(plan.time_steps),
    }


def _collect(split: str) -> Callable[[Job], dict[str, Any]]:
    """Config of the stage that collects a split.

    With fixed-point weights the traces are bit-identical on every device and for every batch size. Without, the last digits
    depend on the order of summation, which a spiking network amplifies: device, batch size and memory are then in the key.
    """

    def config(job: Job) -> dict[str, Any]:
        plan = job.plan
        values = {
            "split": split,
            "network": plan.network(),
            "time_steps": plan.time_steps,
            "data": _data(job),
            "origin": plan.origin(),
        }
        if plan.fixed_point:
            return values
        from dynconf_core.machine import device
        from dynconf_core.simulation.footprint import BATCH

        kind = device(job.context.device).type
        return {**values, "device": kind, "batch_size": BATCH[kind], "memory": job.context.memory}

    return config


def _search(job: Job) -> dict[str, Any]:
    """The names of the measures are included, because the first of equal candidates is chosen, and the version of Optuna,
    which draws the smoothings to try."""
    measures = [name for _, name in _tried(job.plan)]
    return {**asdict(job.plan.search), "seed": job.plan.seed, "measures": measures, "optuna": version("optuna")}


def _evaluate(job: Job) -> dict[str, Any]:
    """The names are included because the figures show them."""
    plan = job.plan
    return {
        "setting": plan.setting,
        "profile": plan.profile,
        "data": plan.data.name,
        "stands_in_for": plan.data.stands_in_for,
        "width": plan.width,
        "seed": plan.seed,
        "paper_time_steps": plan.paper_time_steps,
        "readout": plan.search.readout,
        "measures": [name for _, name in _compared(plan)],
        **({"fine_tuning": str(plan.tuned)} if plan.tuned else {}),
    }


_NETWORK = ("data", "architecture", "scheme")
_SPIKING = (*_NETWORK, "neurons")
_SNN = {"train": "train", "convert": "convert"}
_JUDGED = {"search": "search", "calibration": "collect_calibration", "test": "collect_test"}
STAGES: tuple[Stage, ...] = (
    Stage("train", {}, _train, "dynconf_tasks.train:train", _NETWORK),
    Stage("convert", {"train": "train"}, _convert, "dynconf_tasks.convert:convert", _SPIKING),
    Stage("collect_calibration", _SNN, _collect("calibration"), "dynconf_tasks.collect:collect_calibration", _SPIKING),
    Stage("collect_test", _SNN, _collect("test"), "dynconf_tasks.collect:collect_test", _SPIKING),
    Stage("search", {"calibration": "collect_calibration"}, _search, "dynconf_tasks.search:search", ("measures tried",), False),
    Stage("evaluate", _JUDGED, _evaluate, "dynconf_tasks.evaluate:evaluate", ("measures compared",)),
)
"""The stages of a setting that is not fine-tuned, in the order in which they run."""
FINE_TUNE = Stage("fine_tune", {"train": "train"}, _fine_tune, "dynconf_tasks.fine_tune:fine_tune", _SPIKING)
"""Runs before ``convert``, which then reads its checkpoint. The ANN whose accuracy is shown remains the trained one."""


def job(plan: Plan, context: RunContext, checkpoint: Path | None = None) -> Job:
    """The job of a plan; computes the digest of its data set."""
    try:
        digest = DATASETS.get(plan.data.source).digest(context.data)
    except OSError as error:
        raise InputError(
            f"data set {plan.data.name!r} cannot be read: {error}. (The data folder is {context.data}.)"
        ) from error
    return Job(plan, context, digest, checkpoint)


def known_everywhere(plan: Plan) -> bool:
    """Whether every process finds the implementations that a plan names, that is, none was added with ``register``."""
    used = [pair for implementations in _IMPLEMENTATIONS.values() for pair in implementations(plan)]
    return all(":" in name or registry.lasting(name) for registry, name in used)


def stages_of(plan: Plan) -> tuple[Stage, ...]:
    """The stages of a plan, in the order in which they run."""
    if not plan.fine_tuning:
        return STAGES
    place = [one.name for one in STAGES].index("convert")
    converting = replace(STAGES[place], inputs={"train": FINE_TUNE.name})
    return (*STAGES[:place], FINE_TUNE, converting, *STAGES[place + 1 :])


def stage_names() -> tuple[str, ...]:
    """The names of all stages that there may be, in their order."""
    names = [one.name for one in STAGES]
    names.insert(names.index("convert"), FINE_TUNE.name)
    return tuple(names)


def stage(name: str) -> Stage:
    """The stage called ``name``; what it reads in a fine-tuned setting is said by ``stages_of`` alone."""
    return next(one for one in (*STAGES, FINE_TUNE) if one.name == name)


def module_file(module: str) -> Path:
    """The file of a module, which is not imported."""
    found = find_spec(module)
    if found is None or found.origin is None:
        raise InputError(f"module {module}, whose code a stage's key covers, has no file: reinstall dynconf.")
    return Path(found.origin).resolve()


def code_fingerprint(modules: Mapping[str, Path]) -> str:
    """The fingerprint of all code reached from these files, cached at the first call of the process.

    After an edit during a run, artefacts made by the old code are thus not recorded under the new code's key.
    """
    with _fingerprinting:
        return _fingerprint(tuple(modules.items()))


@cache
def _fingerprint(modules: tuple[tuple[str, Path], ...]) -> str:
    names: dict[Path, str] = {}
    for name, file in sorted(modules):
        names[file] = f"{names[file]}, {name}" if file in names else name
    return fingerprint(list(names), ROOT, names=names, without=WITHOUT_INFLUENCE, equal=equal_code())
