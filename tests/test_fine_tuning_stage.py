"""Fine-tuning as a stage: asked for by fields, made between training and conversion, named wherever its figures stand."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stage_cases import run_stages
from torch import nn
from training_cases import equal

from dynconf_core.activations.potential import Charging
from dynconf_core.conversion.file import load_snn
from dynconf_core.errors import InputError
from dynconf_core.experiment.fine_tuning import FineTuning
from dynconf_core.experiment.job import Handle, Job
from dynconf_core.experiment.overrides import OF_FINE_TUNING, check_values
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.stages import job, stage
from dynconf_core.experiment.trial import try_out
from dynconf_core.networks.architecture import Activation
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.progress import silent
from dynconf_core.results.environment import environment
from dynconf_core.results.export import export
from dynconf_core.results.markdown import results_markdown
from dynconf_core.results.records import json_text, read, to_json
from dynconf_core.results.rows import completed
from dynconf_core.results.types import RunResult, SettingResult
from dynconf_core.schemes.network import described
from dynconf_core.schemes.qcfs import QCFSScheme
from dynconf_core.simulation.reference import reference_logits
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.traces.schema import Traces
from dynconf_core.training.stored import fine_tune_into_store
from dynconf_tasks.tracking.descriptions import failed_description

SETTING = "training_cases:SMALL_SETTING"
TUNED = {"epochs": 1, "time_steps": 4, "fine_tune_epochs": 1, "fine_tune_steps": 2, "fine_tune_potentials": True}


def request(home: Path, settings: tuple[str, ...] = (SETTING,), **overrides: object) -> Request:
    return Request(settings=settings, overrides={**TUNED, **overrides}, home=str(home), device="cpu")  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Job:
    asked = request(tmp_path_factory.mktemp("tuned") / "home")
    return job(asked.plans()[0], asked.context())


@pytest.fixture(scope="module")
def done(given: Job) -> dict[str, Handle]:
    return run_stages(given)


def network(given: Job, handle: Handle) -> nn.Module:
    found = described(given.plan.network(), 0)
    load_checkpoint(found, given.context.file(handle, "checkpoint.pt"))
    return found.eval()


def test_the_snn_is_that_of_the_fine_tuned_network_and_the_ann_the_trained_one(given: Job, done: dict[str, Handle]) -> None:
    assert list(done) == ["train", "fine_tune", "convert", "collect_calibration", "collect_test", "search", "evaluate"]
    trained, tuned = network(given, done["train"]), network(given, done["fine_tune"])
    traces = Traces.load(given.context.folder(done["collect_test"]))
    snn = load_snn(given.context.file(done["convert"], "snn.pt"))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with torch.no_grad():
        of_tuned, of_trained, of_snn = tuned(images), trained(images), reference_logits(snn, images)
    assert (of_snn - of_tuned).abs().median() < 0.3 * (of_trained - of_tuned).abs().median()  # rounding to fixed point
    fires = {name: one for name, one in tuned.named_modules() if isinstance(one, Charging)}
    learned = {name: 0.5 + float(one.offset.detach()) for name, one in fires.items() if one.offset is not None}
    assert len(learned) == 2 and all(value != 0.5 for value in learned.values())
    assert snn.facts["initial_potentials"] == pytest.approx(learned, abs=0.01)
    assert not any(name.endswith("offset") for name in trained.state_dict())
    assert traces.reference_logits is not None and traces.ann_logits is not None
    assert "fine-tuned for 1 epoch over 2 steps" in str(traces.meta["source"])


def result_of(row: SettingResult) -> RunResult:
    return RunResult(
        run="one",
        profile="smoke",
        seed=0,
        overrides={"fine_tune_epochs": 1},
        command="",
        environment=environment(),
        tracking_error=None,
        mean_latency_saving=row.exit.latency_saving,
        paper_footnotes=(),
        settings=(row,),
    )


def test_its_figures_are_named_and_stand_beside_none_of_the_paper(given: Job, done: dict[str, Handle], tmp_path: Path) -> None:
    published = resolve("imagenet-vgg16-qffs", "smoke").published
    row = completed(replace(given.plan, published=published), done, given.context)
    assert row.fine_tuning == FineTuning(1, 2, potentials=True) and row.paper is None
    result = result_of(row)
    page = results_markdown(result)
    assert "fine_tune_epochs=1" in page.splitlines()[0]
    assert (
        f"ANN is the network before it: {row.name} fine-tuned for 1 epoch over 2 steps with learned initial potentials, itself"
        in page
    )
    assert "Rounding the weights to fixed point changes the ANN's" not in page
    assert "fine-tuned for 1 epoch over 2 steps" in failed_description("evaluate", given.plan, None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json_text(to_json(result)))
    assert read(RunResult, tmp_path / "run" / "results.json") == result
    assert to_json(row)["fine_tuning"]["potentials"] is True
    assert "potentials" not in to_json(replace(row, fine_tuning=FineTuning(1, 2)))["fine_tuning"]
    export(tmp_path / "run", tmp_path / "out", str(given.context.home), traces=False)
    record = json.loads((tmp_path / "out" / f"{row.name}-fine-tuning.json").read_text())
    assert record["fine_tuning"]["epochs"] == 1 == len(record["record"]["losses"])
    assert "is the record of a fine-tuning" in (tmp_path / "out" / "README.md").read_text()


def test_a_checkpoint_that_was_fine_tuned_elsewhere_is_named_too(given: Job, done: dict[str, Handle]) -> None:
    """The plan knows it from its provenance, so that traces, figures and tables name it."""

    def taken(stage: str, **overrides: object) -> Plan:
        file = given.context.file(done[stage], "checkpoint.pt")
        asked = Request(settings=(SETTING,), overrides={"time_steps": 4, **overrides}, home=str(given.context.home))  # type: ignore[dict-item]
        return replace(asked, checkpoints={given.plan.setting: str(file)}).plans()[0]

    before = taken("fine_tune")
    assert before.given_tuned == FineTuning(1, 2, potentials=True) and not before.fine_tuning
    assert before.origin()["source"] == given.plan.origin()["source"]
    published = resolve("imagenet-vgg16-qffs", "smoke").published
    row = completed(replace(before, published=published), done, given.context)
    assert (row.fine_tuning, row.paper, row.tuned_here) == (before.given_tuned, None, False)
    assert f"ANN is that network: {row.name} fine-tuned for 1 epoch over 2 steps" in results_markdown(result_of(row))
    with pytest.raises(InputError, match="over 2 steps with learned initial potentials already: give the network as it was"):
        taken("fine_tune", fine_tune_epochs=2)
    other = plan("cifar10-resnet18-qcfs", initial_potential=0.3, fine_tune_potentials=False)
    with pytest.raises(InputError, match=r"initial_potential=0\.3, but its checkpoint has learned initial potentials"):
        check_values(replace(other, given_tuned=before.given_tuned))

    assert not taken("train", epochs=1).tuned and taken("train", batch_size=16, fine_tune_epochs=1).fine_tuning
    with pytest.raises(InputError, match=r"epochs=2, but --checkpoint .*\.pt was trained with epochs=1: leave it out"):
        taken("train", epochs=2)
    with pytest.raises(InputError, match=r"noise=0\.5, but --checkpoint .*\.pt was trained with noise=0: leave"):
        taken("train", noise=0.5)
    with pytest.raises(InputError, match="takes the place of a training, and initial_weights starts one"):
        taken("train", initial_weights="weights.pt")


def test_without_the_pipeline_the_stage_has_the_same_key_and_content(
    given: Job, done: dict[str, Handle], tmp_path: Path
) -> None:
    home = Path(shutil.copytree(given.context.home, tmp_path / "home"))
    context = replace(given.context, home=home)
    trained = Store(context.artefacts).get(stage("train").key(given, {}))
    assert trained is not None

    def made() -> tuple[Artefact, bool]:
        return fine_tune_into_store(given.plan, context, trained, device=torch.device("cpu"), progress=silent, speed_ups=None)

    found, now = made()
    assert (found.key, now) == (done["fine_tune"].key, False)
    shutil.rmtree(home / "artefacts" / "fine_tune")
    again, now = made()
    assert (again.key, again.digest, now) == (found.key, done["fine_tune"].digest, True)


def test_the_command_trains_and_fine_tunes_into_files(given: Job, done: dict[str, Handle], root: Path, tmp_path: Path) -> None:
    """The same weights as the pipeline's; what has been trained already is given as a file."""

    def command(*more: str) -> subprocess.CompletedProcess[str]:
        fields = [word for name, value in TUNED.items() for word in ("--set", f"{name}={value}")]
        words = [sys.executable, "-m", "dynconf_core.training", "--fine-tune", "--setting", SETTING, "--device", "cpu", *more]
        path = os.pathsep.join((str(root), str(root / "tests")))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        return subprocess.run([*words, *fields], capture_output=True, text=True, env=environment, timeout=120)

    out = tmp_path / "tuned.pt"
    ran = command("--checkpoint", str(given.context.file(done["train"], "checkpoint.pt")), "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    assert "fine-tuned for 1 epoch over 2 steps" in ran.stdout and [path.name for path in tmp_path.iterdir()] == ["tuned.pt"]
    alone = described(given.plan.network(), 0)
    load_checkpoint(alone, out)
    assert equal(alone, network(given, done["fine_tune"]))
    for words, told in (
        (("--checkpoint", str(out)), "give --fine-tune and --out FILE too"),
        (("--checkpoint", str(out), "--out", str(out)), "is --checkpoint, which would be lost: name another file"),
        (
            ("--checkpoint", str(out), "--out", str(tmp_path / "more.pt")),
            "learned initial potentials already: give the network",
        ),
    ):
        refused = command(*words)
        assert refused.returncode == 2 and told in refused.stderr


def plan(*settings: str, **overrides: object) -> Plan:
    return request(Path("home"), settings, **overrides).plans()[0]


def test_the_fields_reach_the_plan() -> None:
    fields = {"fine_tune_rate": 0.02, "fine_tune_settled": 0.5, "fine_tune_distilled": 0.25, "fine_tune_potentials": False}
    tuned = plan("cifar10-resnet18-qcfs", **fields).fine_tuning
    assert tuned == FineTuning(1, 2, 0.02, 0.5, 0.25)
    assert plan("cifar10-resnet18-qcfs").fine_tuning == FineTuning(1, 2, potentials=True)
    names = ("epochs", "steps", "rate", "settled", "distilled", "potentials")
    assert set(OF_FINE_TUNING) == {f"fine_tune_{name}" for name in names}
    assert not plan("cifar10-resnet18-qcfs", fine_tune_epochs=0).fine_tuning
    assert (
        str(tuned) == "fine-tuned for 1 epoch over 2 steps" and str(FineTuning(2, 1)) == "fine-tuned for 2 epochs over 1 step"
    )


def test_networks_without_learned_thresholds_are_not_fine_tuned() -> None:
    """With others they are left as they are; alone, the request is refused."""
    both = request(Path("home"), ("cifar10-resnet18-qcfs", "cifar10-resnet20-post-training"), width=1.0).plans()
    assert [bool(one.fine_tuning) for one in both] == [True, False]
    with pytest.raises(InputError, match="'fine_tune_epochs' belongs to none of the chosen settings"):
        plan("cifar10-resnet20-post-training", width=1.0)


class _Plain(QCFSScheme):
    """QCFS but for its activation."""

    def activation(self, initial_threshold: float) -> Activation:
        return nn.ReLU


def test_what_cannot_work_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fine_tune_steps=8 exceeds time_steps=4"):
        plan("cifar10-resnet18-qcfs", fine_tune_steps=8)
    tuned = plan("cifar10-resnet18-qcfs")
    with pytest.raises(InputError, match="fine_tune_potentials=true: no activation of the network can learn"):
        try_out([replace(tuned, scheme=_Plain(4))], tmp_path)
    try_out([tuned, replace(tuned, scheme=_Plain(4), fine_tuning=FineTuning(1, 2))], tmp_path)
    with pytest.raises(InputError, match=r"initial_potential=0\.25 and fine_tune_potentials=true: they are learned"):
        plan("cifar10-resnet18-qcfs", initial_potential=0.25)
    assert plan("cifar10-resnet18-qcfs", initial_potential=0.25, fine_tune_potentials=False).fine_tuning
    with pytest.raises(InputError, match="fine_tune_distilled=2: needs a fraction from 0 to 1"):
        plan("cifar10-resnet18-qcfs", fine_tune_distilled=2)
