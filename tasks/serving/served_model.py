"""The MLflow model of a setting. MLflow copies this file into the model and runs it there, so it imports nothing but the core.

What can be wrong with a request is told as ``INVALID_PARAMETER_VALUE``, which MLflow's server answers with status 400.
"""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from dynconf_core.errors import InputError
from dynconf_core.serving import SNN, Classifier

MOST_IMAGES = 1024
"""The most images in a request, so that it ends before the server's time limit."""


class Refused(MlflowException):
    """A request that cannot be answered. MLflow's server would put the whole request in front of the message, and hide it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "message" or not hasattr(self, "message"):
            super().__setattr__(name, value)


class ServedModel(PythonModel):
    """Classifies images; the answer has a row for each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network and its rule from the model's own files, and prepare it for single images."""
        self.classifier = Classifier.load(Path(context.artifacts[SNN]).parent)
        channels, height, width = self.classifier.shape
        self.classifier([[[[0] * channels] * width] * height])
        gc.collect()
        gc.freeze()  # the lists of a request would make the collector walk through all that is loaded, again and again

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """The class, confidence, exit step, spikes and synaptic operations of each image."""
        try:
            return self._predicted(model_input)
        except InputError as error:
            raise Refused(str(error)) from None

    def _predicted(self, images: Any) -> pd.DataFrame:
        if isinstance(images, dict):
            given = ", ".join(map(str, images)) or "none"
            raise InputError(f"the inputs have names ({given}): give the images alone, as a list.")
        if isinstance(images, list | np.ndarray) and len(images) > MOST_IMAGES:
            raise InputError(f"{len(images)} images in one request: at most {MOST_IMAGES} are allowed; send several requests.")
        exits, names = self.classifier(images), self.classifier.facts.classes
        columns: dict[str, Any] = {
            "class": exits.predictions,
            "confidence": self.classifier.confidence(exits),
            "steps": exits.steps,
            "spikes": exits.spikes,
            "synaptic_operations": exits.synaptic_operations,
            "score": exits.scores,
        }
        if names is not None:
            columns["label"] = [names[number] for number in exits.predictions]
        return pd.DataFrame(columns)


set_model(ServedModel())
