"""Saving and loading a converted network: graph, weights, thresholds and facts of the conversion, without pickled code."""

import os
import zipfile
from pathlib import Path
from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.graph.graph import Graph, Node
from dynconf_core.networks.checkpoint import read, write_atomically
from dynconf_core.neurons.model import NeuronModel, loaded
from dynconf_core.simulation.network import SpikingNetwork

SCHEMA = 2


def save_snn(snn: SpikingNetwork, path: str | os.PathLike[str]) -> None:
    """Write ``{"schema", "graph", "neurons", "limits", "facts"}`` to ``path``, for ``load_snn``."""
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
    write_atomically(content, Path(path))


def load_snn(path: str | os.PathLike[str], neurons: type[NeuronModel] | None = None) -> SpikingNetwork:
    """Load a network that ``save_snn`` wrote.

    Args:
        path: the file.
        neurons: the class of its neuron model, if that is not registered; a file alone never imports code.

    Raises:
        InputError: if the file is missing, damaged or holds something else, or its neurons are of another model.
    """
    path = Path(path)
    content = read(path)
    _check_sums(path)
    if content.get("schema") != SCHEMA or "graph" not in content or not isinstance(content.get("neurons"), dict):
        raise InputError(f"{path} holds no converted network of this version: name a file written by a conversion.")
    model = loaded(content["neurons"], neurons)
    try:
        graph = Graph(tuple(_node(entry) for entry in content["graph"]))
        limits = content["limits"]
        return SpikingNetwork(
            graph, model, image_limit=limits["image"], time_steps_limit=limits["time_steps"], facts=content["facts"]
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a complete converted network ({error!r}): convert again.") from error


def _check_sums(path: Path) -> None:
    """Compare the file's checksums, which torch.load does not: a flipped bit would silently change a weight."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive may raise almost anything
        raise InputError(f"{path} is damaged ({error}): convert again.") from error
    if damaged is not None:
        raise InputError(f"{path} is damaged (the checksum of {damaged} is wrong): convert again.")


def _node(entry: dict[str, Any]) -> Node:
    return Node(
        entry["name"], entry["kind"], tuple(entry["inputs"]), tuple(entry["shape"]), entry["settings"], entry["tensors"]
    )
