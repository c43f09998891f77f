"""`prefect.yaml`, `automations.yaml`: Prefect ignores unknown keys and leaves schedules unchecked, so both are checked here."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from dynconf_core.errors import InputError
from dynconf_core.experiment.points import points_of
from dynconf_core.experiment.request import Request
from dynconf_flows.deployments import FOLDER, SHORTEST_GRACE, schema
from dynconf_tasks.parameters import checkpoint_files, swept_texts

FILE = Path(__file__).resolve().parent.parent / "prefect.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
AUTOMATIONS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
DEPLOYMENTS = {deployment["entrypoint"]: deployment for deployment in CONTENT["deployments"]}
REPRODUCE, SETTING, SWEEP, ANALYSE = FLOWS = [
    f"dynconf_flows.{name}.{name}" for name in ("reproduce", "setting", "sweep", "analyse")
]
QFFS = ["cifar10-vgg16-qffs"]
SCHEDULES = [
    pytest.param(entrypoint, schedule, id=schedule["slug"])
    for entrypoint, deployment in DEPLOYMENTS.items()
    for schedule in deployment.get("schedules", [])
]


def flow_of(entrypoint: str) -> Flow[..., Any]:
    module, _, name = entrypoint.rpartition(".")
    found: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return found


def refusal(entrypoint: str, parameters: dict[str, Any]) -> str | None:
    """What a server with `enforce_parameter_schema` says to a run with these parameters."""
    found = schema(flow_of(entrypoint))
    try:
        validate(parameters, found, raise_on_error=True)
    except Exception as error:
        return str(error)
    unknown = set(parameters) - set(found["properties"])
    return f"unknown: {sorted(unknown)}" if unknown else None


def unknown_keys(given: dict[str, Any], model: type[BaseModel]) -> set[str]:
    return set(given) - {field.alias or name for name, field in model.model_fields.items()}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_the_four_flows_are_deployed() -> None:
    assert [deployment["entrypoint"] for deployment in CONTENT["deployments"]] == FLOWS
    for entrypoint in FLOWS:
        found = flow_of(entrypoint)
        assert isinstance(found, Flow)
        assert found.name == entrypoint.rpartition(".")[2]


def test_runs_import_the_package_that_is_installed_and_are_not_limited() -> None:
    """No step depends on a folder. One run a machine is `worker start --limit 1`: a limit here would be of all machines."""
    assert CONTENT["pull"] == []
    assert not [one for one in CONTENT["deployments"] if "concurrency_limit" in one or "pull" in one]


def test_the_checkout_and_the_package_have_one_file() -> None:
    assert FILE.resolve() == (FOLDER / "prefect.yaml").resolve()


def test_prefect_reads_the_file_and_knows_every_key() -> None:
    PrefectYamlModel.model_validate(CONTENT)
    assert not unknown_keys(CONTENT, PrefectYamlModel)
    for deployment in CONTENT["deployments"]:
        assert not unknown_keys(deployment, DeploymentConfig)
        assert not unknown_keys(deployment["work_pool"], WorkPoolConfig)
        for schedule in deployment.get("schedules", []):
            assert not unknown_keys(schedule, RawScheduleConfig)


def test_no_place_of_any_machine() -> None:
    assert not [text for text in strings(CONTENT) if text.startswith(("/", "~"))]
    for deployment in CONTENT["deployments"]:
        assert not {"home", "data", "checkpoint", "checkpoints"} & set(deployment["parameters"])


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_a_deployment_is_described_and_refuses_bad_parameters(entrypoint: str) -> None:
    deployment = DEPLOYMENTS[entrypoint]
    assert deployment["description"].strip()
    assert "dynconf" in deployment["tags"]
    assert deployment["work_pool"]["name"] == "dynconf"
    heartbeat = int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 30 <= heartbeat <= SHORTEST_GRACE / 3, "Prefect takes no fewer, and the automations want three"
    assert deployment["enforce_parameter_schema"] is True


def test_a_study_asks_for_its_traces() -> None:
    parameters = DEPLOYMENTS[ANALYSE]["parameters"]
    assert "traces" in (refusal(ANALYSE, parameters) or "")
    assert refusal(ANALYSE, {**parameters, "traces": "calibration.npz", "test": "test.npz", "epsilon": 0.01}) is None


@pytest.mark.parametrize("entrypoint", [REPRODUCE, SETTING])
def test_default_parameters_make_a_run_that_can_work(entrypoint: str) -> None:
    parameters = DEPLOYMENTS[entrypoint]["parameters"]
    assert refusal(entrypoint, parameters) is None
    given = flow_of(entrypoint).validate_parameters(parameters)
    named = given.get("settings") or ([given["name"]] if "name" in given else [])
    assert Request(given["profile"], tuple(named), seed=given["seed"]).plans()


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        ({"grid": ["time_steps=8,16,32"]}, None),
        ({"grid": ["time_steps = 8, 16", "seed=0,1", "alpha=.5,1.,1e2"], "study": None}, None),
        ({"grid": ["rule=entropy,my.package:Measure"], "study": []}, None),
        ({"study": ["alpha=1..100"]}, None),
        ({"study": ["alpha=0.5..8", "rule=entropy,gap"], "grid": None, "trials": 4}, None),
        ({}, "'study' is a required property"),
        ({"grid": [], "study": None}, "study"),
        ({"grid": ["time_steps=8"], "study": ["alpha=1..100"]}, "study"),
        ({"grid": ["epocs=8"]}, "grid[0]"),
        ({"grid": ["time_steps"]}, "grid[0]"),
        ({"grid": ["time_steps=8,,16"]}, "grid[0]"),
        ({"grid": ["bits=2,3", "alpha=1..100"]}, "grid[1]"),
        ({"grid": {"time_steps": "8,16"}}, "grid"),
        ({"study": ["alpha=5"]}, "study[0]"),
        ({"study": ["alfa=1..100"]}, "study[0]"),
    ],
)
def test_a_sweep_takes_one_of_grid_and_study_and_known_fields_before_a_run_is_made(
    swept: dict[str, Any], said: str | None
) -> None:
    parameters = {**DEPLOYMENTS[SWEEP]["parameters"], **swept}
    assert {"grid", "study", "trials"}.isdisjoint(DEPLOYMENTS[SWEEP]["parameters"]), "it has no grid of its own"
    found = refusal(SWEEP, parameters)
    assert found is None if said is None else said in (found or "")
    if said is None:
        given = flow_of(SWEEP).validate_parameters(parameters)
        request = Request(given["profile"], tuple(given["settings"]), seed=given["seed"])
        if "package" not in str(swept):  # that measure does not exist
            points, ranges = points_of(request, swept_texts(given["grid"], "grid"), swept_texts(given["study"], "study"))
            assert len(points) > 1 or ranges


def test_what_no_schema_can_see_the_flow_refuses() -> None:
    assert swept_texts(["time_steps = 8, 16", "bits=2"], "grid") == {"time_steps": "8, 16", "bits": "2"}
    with pytest.raises(InputError, match="grid bits is given twice"):
        swept_texts(["bits=2", "bits=3"], "grid")
    with pytest.raises(InputError, match="study alpha: write FIELD=VALUES"):
        swept_texts(["alpha"], "study")
    assert checkpoint_files(["mine:SETTING=/a b/c=d.npz"]) == {"mine:SETTING": "/a b/c=d.npz"}


def test_the_automations_are_prefects_and_see_three_heartbeats() -> None:
    silent, again = (AutomationCore.model_validate(one) for one in AUTOMATIONS)
    assert isinstance(silent.trigger, EventTrigger) and isinstance(again.trigger, EventTrigger)
    assert silent.trigger.within.total_seconds() >= SHORTEST_GRACE
    for described, read in zip(AUTOMATIONS, (silent, again), strict=True):
        assert not unknown_keys(described, AutomationCore)
        assert not unknown_keys(described["trigger"], EventTrigger)
        for given, action in zip(described["actions"], read.actions, strict=True):
            assert not unknown_keys(given, type(action))


@pytest.mark.parametrize(("entrypoint", "schedule"), SCHEDULES)
def test_a_schedule_ships_inactive_with_parameters_that_fit(entrypoint: str, schedule: dict[str, Any]) -> None:
    assert schedule["active"] is False
    assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    parameters = {**DEPLOYMENTS[entrypoint]["parameters"], **schedule["parameters"]}
    assert refusal(entrypoint, parameters) is None
    assert Request(parameters["profile"], tuple(parameters.get("settings", ()))).plans()


def test_nightly_smoke_and_weekly_quick() -> None:
    assert {schedule.id for schedule in SCHEDULES} == {"nightly-smoke", "weekly-quick-cifar10"}


@pytest.mark.parametrize(
    ("entrypoint", "bad"),
    [
        (SETTING, {"profile": "nope"}),
        (SETTING, {"name": "cifar10-vgg16-qfss"}),
        (SETTING, {"seed": "x"}),
        (SETTING, {"seed": -1}),
        (SETTING, {"overrides": {"epocs": 1}}),
        (SETTING, {"overrides": {"epochs": "many"}}),
        (SETTING, {"colour": "red"}),
        (SETTING, {"overrides": {"fixed_point": "maybe"}}),
        (SETTING, {"memory": "8"}),
        (SWEEP, {"settings": QFFS, "grid": ["bits=2,3"], "memory": "lots"}),
        (SETTING, {"stage_timeout": "2 hours"}),
        (REPRODUCE, {"settings": ["cifar10-vgg16-qcfs", "nope"]}),
        (SWEEP, {"settings": QFFS, "study": ["alpha=1..100"], "trials": 0}),
        (SWEEP, {"grid": ["bits=2,3"]}),
    ],
)
def test_the_form_refuses(entrypoint: str, bad: dict[str, Any]) -> None:
    assert refusal(entrypoint, bad)


@pytest.mark.parametrize("entrypoint", [REPRODUCE, SETTING, SWEEP])
def test_the_form_takes_a_size_a_truth_and_a_time(entrypoint: str) -> None:
    given = {**DEPLOYMENTS[entrypoint]["parameters"], "memory": "8 GiB", "overrides": {"fixed_point": False}}
    given["stage_timeout"] = "2h"
    given |= {"grid": ["time_steps=8,16"]} if entrypoint == SWEEP else {}
    assert refusal(entrypoint, given) is None


def test_the_form_takes_a_setting_of_ones_own() -> None:
    assert refusal(SETTING, {"name": "mine:SETTING"}) is None
    assert refusal(REPRODUCE, {"settings": ["cifar10-vgg16-qcfs", "my.package:SETTING"]}) is None
    assert refusal(SETTING, {"name": "mine: SETTING"})


def test_checkpoints_can_be_typed_too() -> None:
    assert refusal(REPRODUCE, {"checkpoints": ["cifar10-vgg16-qcfs=/weights/a.npz"]}) is None
    assert refusal(REPRODUCE, {"checkpoints": ["/weights/a.npz"]}) and refusal(REPRODUCE, {"checkpoints": {"a": "b"}})


def test_every_parameter_has_a_description() -> None:
    for entrypoint in FLOWS:
        for name, entry in schema(flow_of(entrypoint))["properties"].items():
            assert entry.get("description"), f"{entrypoint} {name}"
