"""Checkpoints: a state dict with or without its provenance, and the state of a training run between two epochs.

Everything is read with ``weights_only=True``, so that a file from somebody else cannot run code.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.errors import InputError
from dynconf_core.files import written
from dynconf_core.networks.untrusted import Unsuitable, check_content, check_file

SCHEMA = 2
WRAPPERS = ("state_dict", "model")
"""Keys under which a training script may have stored the state dict."""
PREFIX = "module."
SHOWN = 5
"""How many names a message lists."""


def write_atomically(content: dict[str, Any], path: Path) -> None:
    """``torch.save``, whole or not at all: if the process is killed, ``path`` is either the old or the new file."""
    with written(path) as stream:
        torch.save(content, stream)


def save_checkpoint(network: nn.Module, provenance: dict[str, Any], path: Path, *, half: bool = False) -> None:
    """Write ``{"schema", "state_dict", "provenance"}``; with ``half``, weight matrices are stored as float16 and all else
    unchanged."""
    state = network.state_dict()
    if half:
        state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    write_atomically({"schema": SCHEMA, "state_dict": state, "provenance": provenance}, path)


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a checkpoint file.

    Raises:
        InputError: if the file is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist: name the file that a training run wrote.")
    try:
        check_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        check_content(content, path.stat().st_size)
    except Unsuitable as error:
        raise InputError(f"checkpoint {path} cannot be read: {error}. It is damaged, or holds no weights.") from error
    except Exception as error:  # a damaged pickle raises almost anything: struct.error, IndexError, AssertionError, ...
        raise InputError(
            f"checkpoint {path} cannot be read ({_reason(path, error)}): it is damaged, or holds more than weights, which are "
            "all that is loaded; save the network's state_dict() with torch.save."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}: a state dict is needed.")
    return content


def load_checkpoint(network: nn.Module, path: Path) -> dict[str, Any]:
    """Load a checkpoint, a state dict alone or under a key of ``WRAPPERS``, into ``network``; returns its provenance, or {} if
    it has none.

    The prefix ``module.`` that DataParallel puts before every name is removed. Missing batch counters of normalisation layers,
    which old versions of torch did not save, are accepted.

    Raises:
        InputError: naming the missing and unexpected names and those of another shape, or if there is no state dict. The
            network is then unchanged.
    """
    content = read(path)
    given = _state_dict(content, path)
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    shapes = [
        f"{name!r} has shape {tuple(given[name].shape)}, the network needs {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    faults = [f"it lacks {_keys(missing)}"] if missing else []
    faults += [f"it holds {_keys(unexpected)}, which the network does not have"] if unexpected else []
    faults += [
        f"{name!r} is of the type {given[name].dtype}, the network needs {value.dtype}"
        for name, value in wanted.items()
        if name in given and given[name].is_complex() and not value.is_complex()
    ][:SHOWN]
    faults += shapes[:SHOWN]
    faults += [f"{len(shapes) - SHOWN} more have other shapes too"] if len(shapes) > SHOWN else []
    if faults:
        raise InputError(
            f"checkpoint {path} does not fit the network: {'; '.join(faults)}. Was it made for another network, for another "
            "method or number of classes, or for another width?"
        )
    network.load_state_dict(given)
    provenance = content.get("provenance", {})
    return provenance if isinstance(provenance, dict) else {}


def _state_dict(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The names and tensors in a checkpoint's content, without the prefix of a wrapping module."""
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
    given = content[wrapper] if wrapper else content
    if not given or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in given.items()):
        raise InputError(
            f"checkpoint {path} holds no state dict (its keys: {', '.join(map(repr, list(content)[:SHOWN])) or 'none'}): "
            f"give names and tensors, bare or under one of the keys {', '.join(map(repr, WRAPPERS))}."
        )
    if all(name.startswith(PREFIX) for name in given):
        return {name.removeprefix(PREFIX): value for name, value in given.items()}
    return dict(given)


def _keys(names: list[str]) -> str:
    if len(names) == 1:
        return repr(names[0])
    return f"{len(names)} keys ({', '.join(map(repr, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''})"


def _reason(path: Path, error: Exception) -> str:
    """Why torch could not read it, without torch's advice to unpickle it anyway."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = str(error).strip()
    found = re.search(r"Unsupported (?:global|class|type).*?([A-Za-z_]\w*(?:\.\w+)+)", text)
    if found:
        return f"it is a pickle of the Python object {found[1]}"
    with path.open("rb") as file:
        begin = file.read(40)
    if not begin:
        return "the file is empty"
    if not begin.startswith((b"PK", b"\x80")):
        return f"it begins with {begin[:20]!r}, which no file written by torch.save does"
    if isinstance(error, pickle.UnpicklingError) or not text:
        return "it is a pickle that torch.save did not write, or a truncated one"
    return text.splitlines()[0][:200]
