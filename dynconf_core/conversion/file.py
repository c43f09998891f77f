"""A converted network as a file: the description of the ANN it came from, and the SNN's weights and thresholds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynconf_core.conversion.convert import convert
from dynconf_core.errors import InputError
from dynconf_core.networks.description import described
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.training.checkpoint import SCHEMA, read, write_atomically


def save_snn(snn: SpikingNetwork, description: Mapping[str, Any], path: Path) -> None:
    """Write ``{"schema", "network", "state_dict"}``; ``description`` as ``described`` takes it."""
    write_atomically({"schema": SCHEMA, "network": dict(description), "state_dict": snn.state_dict()}, path)


def load_snn(path: Path) -> SpikingNetwork:
    """The network in a file that ``save_snn`` wrote.

    Raises:
        InputError: where the file is missing, damaged or holds something else.
    """
    content = read(path)
    if "network" not in content or "state_dict" not in content:
        raise InputError(f"{path} holds no converted network: name the file that a conversion wrote.")
    snn = convert(described(content["network"], seed=0))
    try:
        snn.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its own description: {str(error).splitlines()[0]}") from error
    return snn
