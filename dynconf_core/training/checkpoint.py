"""Checkpoints: a state dict, bare or with its provenance, and the state of a run between two epochs.

Everything is read with ``weights_only=True``: a file from somebody else runs no code of theirs.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError

SCHEMA = 1


def write_atomically(content: dict[str, Any], path: Path) -> None:
    """``torch.save`` beside ``path``, then rename: a killed process leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def save_checkpoint(network: nn.Module, provenance: dict[str, Any], path: Path) -> None:
    """Write ``{"schema", "state_dict", "provenance"}``."""
    content = {"schema": SCHEMA, "state_dict": network.state_dict(), "provenance": provenance}
    write_atomically(content, path)


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a checkpoint file.

    Raises:
        InputError: where the file is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist: name the file that a training run wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything: struct.error, IndexError, AssertionError, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"checkpoint {path} cannot be read ({reason[:200]}): it is damaged, or holds more than weights."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}: a state dict is needed.")
    return content


def load_checkpoint(network: nn.Module, path: Path) -> dict[str, Any]:
    """Load a checkpoint, bare or with provenance, ``module.`` prefixes accepted, into ``network``; its provenance.

    Raises:
        InputError: naming the first key that is missing, unexpected or of another shape; or where there is no state dict.
    """
    content = read(path)
    given: dict[str, Tensor] = content.get("state_dict", content)
    if not isinstance(given, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in given.items()):
        raise InputError(f"checkpoint {path} holds no state dict: give one, bare or under the key 'state_dict'.")
    given = {name.removeprefix("module."): value for name, value in given.items()}
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name not in given:
            raise InputError(f"checkpoint {path} lacks {name!r}: it was made for another network or method.")
        if given[name].shape != value.shape:
            found, needed = tuple(given[name].shape), tuple(value.shape)
            raise InputError(f"checkpoint {path}: {name!r} has shape {found}, the network needs {needed} (another width?).")
    extra = sorted(set(given) - set(wanted))
    if extra:
        raise InputError(f"checkpoint {path} holds {extra[0]!r}, which the network has not: it was made for another.")
    network.load_state_dict(given)
    provenance: dict[str, Any] = content.get("provenance", {})
    return provenance
