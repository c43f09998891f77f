"""The content of ``results.json`` of a reproduction, made from the entries of its settings."""

from collections.abc import Sequence

from dynconf_core.data.dataset import DATASETS
from dynconf_core.experiment.request import CheckedRequest
from dynconf_core.experiment.settings import SETTINGS, UNNAMED
from dynconf_core.results.environment import environment
from dynconf_core.results.types import AnySetting, PaperFootnote, RunResult, SettingResult
from dynconf_core.schemes.scheme import SCHEMES


def run_result(
    asked: CheckedRequest, run: str, rows: Sequence[AnySetting], command: str, tracking_error: str | None
) -> RunResult:
    """The result of a request.

    Args:
        asked: the checked request.
        run: the name of the run.
        rows: the entries of its settings.
        command: the command line.
        tracking_error: why the run was not logged to MLflow; None if it was.
    """
    savings = [row.exit.latency_saving for row in rows if isinstance(row, SettingResult)]
    ours = [plan.setting for plan in asked.plans if plan.setting in SETTINGS]
    return RunResult(
        run=run,
        profile=asked.request.profile,
        seed=asked.request.seed,
        overrides=dict(asked.overrides),
        command=command,
        environment=environment(),
        tracking_error=tracking_error,
        mean_latency_saving=sum(savings) / len(savings) if savings else None,
        paper_footnotes=tuple(
            PaperFootnote(family=f"{DATASETS.get(data).title}, {SCHEMES.get(method).title}", **vars(row))
            for (data, method), row in UNNAMED.items()
            if any(SETTINGS[name].dataset == data and SETTINGS[name].method == method for name in ours)
        ),
        settings=tuple(rows),
    )
