"""`prefect.yaml`: Prefect ignores unknown keys and leaves a schedule's parameters unchecked, so both are checked here."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from dynconf_core.experiment.points import points_of
from dynconf_core.experiment.request import Request

FILE = Path(__file__).resolve().parent.parent / "prefect.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
DEPLOYMENTS = {deployment["entrypoint"]: deployment for deployment in CONTENT["deployments"]}
ANALYSE = "flows/analyse.py:analyse"
FLOWS = ["flows/reproduce.py:reproduce", "flows/setting.py:setting", "flows/sweep.py:sweep", ANALYSE]
SCHEDULES = [
    pytest.param(entrypoint, schedule, id=schedule["slug"])
    for entrypoint, deployment in DEPLOYMENTS.items()
    for schedule in deployment.get("schedules", [])
]


def flow_of(entrypoint: str) -> Flow[..., Any]:
    path, name = entrypoint.split(":")
    assert (FILE.parent / path).is_file()
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def refusal(entrypoint: str, parameters: dict[str, Any]) -> str | None:
    """What a server with `enforce_parameter_schema` says to a run with these parameters."""
    schema = parameter_schema(flow_of(entrypoint)).model_dump_for_openapi()
    try:
        validate(parameters, schema, raise_on_error=True)
    except Exception as error:
        return str(error)
    unknown = set(parameters) - set(schema["properties"])
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
        assert found.name == entrypoint.split(":")[1]


def test_prefect_reads_the_file_and_knows_every_key() -> None:
    PrefectYamlModel.model_validate(CONTENT)
    assert not unknown_keys(CONTENT, PrefectYamlModel)
    for deployment in CONTENT["deployments"]:
        assert not unknown_keys(deployment, DeploymentConfig)
        assert not unknown_keys(deployment["work_pool"], WorkPoolConfig)
        assert not unknown_keys(deployment["concurrency_limit"], ConcurrencyLimitSpec)
        ConcurrencyLimitStrategy(deployment["concurrency_limit"]["collision_strategy"])
        for schedule in deployment.get("schedules", []):
            assert not unknown_keys(schedule, RawScheduleConfig)


def test_no_place_of_any_machine() -> None:
    assert not [text for text in strings(CONTENT) if text.startswith(("/", "~"))]
    for deployment in CONTENT["deployments"]:
        assert not {"home", "data", "checkpoint", "checkpoints"} & set(deployment["parameters"])


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_a_deployment_is_described_limited_and_refuses_bad_parameters(entrypoint: str) -> None:
    deployment = DEPLOYMENTS[entrypoint]
    assert deployment["description"].strip()
    assert "dynconf" in deployment["tags"]
    assert deployment["work_pool"] == {"name": "dynconf"}
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["enforce_parameter_schema"] is True


def test_a_study_asks_for_its_traces() -> None:
    parameters = DEPLOYMENTS[ANALYSE]["parameters"]
    assert "traces" in (refusal(ANALYSE, parameters) or "")
    assert refusal(ANALYSE, {**parameters, "traces": "calibration.npz", "test": "test.npz", "epsilon": 0.01}) is None


@pytest.mark.parametrize("entrypoint", [entrypoint for entrypoint in FLOWS if entrypoint != ANALYSE])
def test_default_parameters_make_a_run_that_can_work(entrypoint: str) -> None:
    parameters = DEPLOYMENTS[entrypoint]["parameters"]
    assert refusal(entrypoint, parameters) is None
    given = flow_of(entrypoint).validate_parameters(parameters)
    if entrypoint == "flows/sweep.py:sweep":
        request = Request(given["profile"], tuple(given["settings"]), given["overrides"], given["seed"])
        points, _ = points_of(request, given["grid"], {})
        assert len(points) > 1
    else:
        named = given.get("settings") or ([given["name"]] if "name" in given else [])
        assert Request(given["profile"], tuple(named), given["overrides"], given["seed"]).plans()


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
        ("flows/setting.py:setting", {"profile": "nope"}),
        ("flows/setting.py:setting", {"name": "cifar10-vgg16-qfss"}),
        ("flows/setting.py:setting", {"seed": "x"}),
        ("flows/setting.py:setting", {"seed": -1}),
        ("flows/setting.py:setting", {"overrides": {"epocs": 1}}),
        ("flows/setting.py:setting", {"overrides": {"epochs": "many"}}),
        ("flows/setting.py:setting", {"colour": "red"}),
        ("flows/setting.py:setting", {"overrides": {"fixed_point": "maybe"}}),
        ("flows/setting.py:setting", {"memory": "8"}),
        ("flows/sweep.py:sweep", {"settings": ["cifar10-vgg16-qcfs"], "memory": "lots"}),
        ("flows/reproduce.py:reproduce", {"settings": ["cifar10-vgg16-qcfs", "nope"]}),
        ("flows/sweep.py:sweep", {"settings": ["cifar10-vgg16-qcfs"], "trials": 0}),
        ("flows/sweep.py:sweep", {}),
    ],
)
def test_the_form_refuses(entrypoint: str, bad: dict[str, Any]) -> None:
    assert refusal(entrypoint, bad)


@pytest.mark.parametrize("entrypoint", [entrypoint for entrypoint in FLOWS if entrypoint != ANALYSE])
def test_the_form_takes_a_size_and_a_truth(entrypoint: str) -> None:
    given = {**DEPLOYMENTS[entrypoint]["parameters"], "memory": "8 GiB", "overrides": {"fixed_point": False}}
    assert refusal(entrypoint, given) is None


def test_the_form_takes_a_setting_of_ones_own() -> None:
    assert refusal("flows/setting.py:setting", {"name": "mine:SETTING"}) is None
    assert refusal("flows/reproduce.py:reproduce", {"settings": ["cifar10-vgg16-qcfs", "my.package:SETTING"]}) is None
    assert refusal("flows/setting.py:setting", {"name": "mine: SETTING"})


def test_every_parameter_has_a_description() -> None:
    for entrypoint in FLOWS:
        for name, entry in parameter_schema(flow_of(entrypoint)).properties.items():
            assert entry.get("description"), f"{entrypoint} {name}"
