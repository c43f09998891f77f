"""What a reproduction is called, as a study that processes share and as a run with results."""

import hashlib
import json

from dynconf_core.experiment.request import CheckedRequest
from dynconf_core.results.run_names import folder_name, titled
from dynconf_tasks.study.storage import some, title


def study_name(asked: CheckedRequest) -> str:
    """The name of a reproduction's study; equal requests have equal names."""
    request = asked.request
    told = [request.profile, request.seed, [plan.setting for plan in asked.plans], sorted(asked.identity().items())]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
    names = [plan.setting for plan in asked.plans]
    return title("reproduce", some(names), request.profile, f"seed {request.seed}", digest)


def run_name(asked: CheckedRequest) -> str:
    """The name of the results' folder, without the time."""
    return folder_name(asked.request.profile, asked.request.seed, asked.overrides)


def run_title(asked: CheckedRequest) -> str:
    """The name of the run in MLflow."""
    return titled(asked.request.profile, asked.request.seed, asked.overrides)
