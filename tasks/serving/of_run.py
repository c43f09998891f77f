"""Giving a setting's run in MLflow its model. Light to import: most runs have theirs already."""

import logging
from collections.abc import Mapping
from pathlib import Path

from dynconf_core.store.artefacts import Store

_log = logging.getLogger(__name__)


def log_model(uri: str, run: str, setting: str, artefacts: Mapping[str, str], store: Store, data: Path) -> str | None:
    """Log the model of a finished setting in its run, unless it has one; returns the model's id.

    What goes wrong is a warning and no more: ``dynconf register`` can make the model later.

    Args:
        uri: of MLflow's database or server.
        run: the run's id.
        setting: the setting's name.
        artefacts: the keys of its artefacts by stage.
        store: the store that they are in.
        data: the folder of the data sets, for the names of classes; it need not exist.
    """
    from mlflow import MlflowClient

    from dynconf_tasks.tracking.runs import errors

    client = MlflowClient(tracking_uri=uri)
    try:
        experiment = client.get_run(run).info.experiment_id
        found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run}'")
        ready = [one for one in found if one.status == "READY"]
        if ready:
            return str(ready[0].model_id)
        from dynconf_tasks.serving.logged_model import logged_model, served

        return logged_model(client, experiment, run, served(setting, artefacts, store, data))
    except errors() as error:  # an InputError is among them
        _log.warning("The model of %s is not in MLflow: %s", setting, " ".join(str(error).split())[:500])
        return None
