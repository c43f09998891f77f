"""Saving and loading a converted network: graph, weights, thresholds and facts of the conversion, without pickled code."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynconf_core.arguments import file_path
from dynconf_core.errors import InputError
from dynconf_core.graph.checks import check_indices, checked
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.networks.checkpoint import read, write_atomically
from dynconf_core.networks.state_dicts import candidates
from dynconf_core.networks.untrusted import of_index, of_weights
from dynconf_core.neurons.model import NeuronModel, loaded
from dynconf_core.simulation.given import check_network
from dynconf_core.simulation.network import SpikingNetwork

SCHEMA = 2


def save_snn(snn: SpikingNetwork, path: str | os.PathLike[str]) -> None:
    """Write ``{"schema", "graph", "neurons", "limits", "facts"}`` to ``path``, for ``load_snn``."""
    check_network(snn)
    target = file_path("path", path)
    tensors = snn.tensors()
    graph = [
        {
            "name": node.name,
            "kind": node.kind,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "settings": dict(node.settings),
            "tensors": {key: value.detach().cpu() for key, value in tensors[node.name].items()},
        }
        for node in snn.graph.nodes
    ]
    limits = {"image": snn.image_limit, "time_steps": snn.time_steps_limit}
    content = {"schema": SCHEMA, "graph": graph, "neurons": snn.neurons.to_json(), "limits": limits, "facts": snn.facts}
    write_atomically(content, target)


def load_snn(path: str | os.PathLike[str], neurons: type[NeuronModel] | None = None) -> SpikingNetwork:
    """Load a network that ``save_snn`` wrote.

    Args:
        path: the file.
        neurons: the class of its neuron model, if that is not registered; a file alone never imports code.

    Raises:
        InputError: if the file is missing, damaged or holds something else, or its neurons are of another model.
    """
    path = file_path("path", path)
    content = read(path)
    if not _is(content.get("schema"), SCHEMA) or "graph" not in content or not isinstance(content.get("neurons"), dict):
        holds = "weights, and no converted network" if candidates(content) else "no converted network of this version"
        raise InputError(
            f"{path} holds {holds}: name a file that `dynconf convert` or save_snn wrote (convert(network, images) converts)."
        )
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is in the old format of torch.save, which has no checksums: convert again.")
    model = _model(content["neurons"], neurons, path)
    try:
        graph = checked(Graph(tuple(_node(entry) for entry in content["graph"])))
        _check_tensors(graph, path.stat().st_size)
        check_indices(graph)
        image, time_steps = _limits(content["limits"])
        facts = json.loads(json.dumps(content["facts"]))
        if not isinstance(facts, dict):
            raise TypeError("facts")
    except InputError as error:
        raise InputError(f"{path} is not a complete converted network: {str(error).rstrip('.')}; convert again.") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is not a complete converted network ({error!r}): convert again.") from error
    return SpikingNetwork(graph, model, image_limit=image, time_steps_limit=time_steps, facts=content["facts"])


def _is(value: object, number: int) -> bool:
    """Equality with a number, also for a tensor."""
    return type(value) is int and value == number


def _model(values: Mapping[str, Any], given: type[NeuronModel] | None, path: Path) -> NeuronModel:
    """The neuron model in the file ``path``."""
    try:
        return loaded(values, given)
    except InputError:
        raise
    except Exception as error:  # of a model that is given values of other types
        raise InputError(f"{path}: neurons={str(dict(values))[:200]} do not fit their model ({error}).") from error


def _node(entry: Mapping[str, Any]) -> Node:
    settings, tensors = dict(entry["settings"]), dict(entry["tensors"])
    return Node(entry["name"], entry["kind"], tuple(entry["inputs"]), tuple(entry["shape"]), settings, tensors)


def _check_tensors(graph: Graph, size: int) -> None:
    """Raise ``InputError`` unless all tensors are dense and finite, and not larger together than the file of ``size`` bytes."""
    bytes_left = size
    for node in graph.nodes:
        for name, tensor in node.tensors.items():
            fault = of_index(tensor, bytes_left) if name == "index" else of_weights(tensor, bytes_left)
            if fault is not None:
                raise InputError(f"{name} of node {node.name!r} {fault}.")
            bytes_left -= tensor.nbytes


def _limits(limits: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """The largest absolute value of a normalised image and the most time steps, or None for each."""
    image, time_steps = limits["image"], limits["time_steps"]
    if not (image is None or (type(image) in (int, float) and 0 < image < float("inf"))):
        raise InputError(f"its limit of the image is {image!r}, not a number above 0.")
    if not (time_steps is None or (type(time_steps) is int and time_steps >= 1)):
        raise InputError(f"its limit of the time steps is {time_steps!r}, not a whole number above 0.")
    return image, time_steps
