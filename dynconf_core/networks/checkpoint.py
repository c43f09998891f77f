"""Checkpoints: a state dict with or without its provenance, and the state of a training run between two epochs.

Everything is read with ``weights_only=True`` or as safetensors, so that a file from somebody else cannot run code.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynconf_core.activations.potential import OFFSET, not_learning
from dynconf_core.errors import InputError
from dynconf_core.files import written
from dynconf_core.libraries import safetensors
from dynconf_core.networks.numpy_numbers import numpy_numbers
from dynconf_core.networks.other_files import other_kind
from dynconf_core.networks.state_dicts import Candidate, candidates, fitted
from dynconf_core.networks.unfit import faults, likely_cause
from dynconf_core.networks.untrusted import Unsuitable, check_content, check_file
from dynconf_core.wording import an

SCHEMA = 2
SHOWN = 5
"""How many names a message lists."""
SAFETENSORS = ".safetensors"


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
        fault = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"checkpoint {path} {fault}: name the file that a training, or a conversion, wrote.")
    if _is_safetensors(path):
        return _read_safetensors(path)
    try:
        check_file(path)
        with numpy_numbers():
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_content(content, path.stat().st_size)
    except Exception as error:  # a damaged pickle raises almost anything: struct.error, IndexError, AssertionError, ...
        if (kind := other_kind(path)) is not None:
            raise InputError(f"checkpoint {path} {kind}.") from error
        if not isinstance(error, Unsuitable):
            raise InputError(
                f"checkpoint {path} cannot be read ({_reason(path, error)}): it is damaged, or holds more than weights, which "
                "are all that is loaded; save the network's state_dict() with torch.save."
            ) from error
        raise InputError(f"checkpoint {path} cannot be read: {error}. It is damaged, or holds no weights.") from error
    if not isinstance(content, dict):
        raise InputError(f"checkpoint {path} holds {an(content)}: a state dict is needed.")
    return content


def _is_safetensors(path: Path) -> bool:
    """By its name, or as eight bytes with the length of the JSON object that follows."""
    with path.open("rb") as file:
        begin = file.read(9)
    length = int.from_bytes(begin[:8], "little")
    return path.suffix == SAFETENSORS or (begin[8:] == b"{" and 8 + length <= path.stat().st_size)


def _read_safetensors(path: Path) -> dict[str, Any]:
    library = safetensors()
    try:
        tensors: dict[str, Any] = library.load_file(path)
        check_content(tensors, path.stat().st_size)
    except Exception as error:  # the library's own, OSError, ...
        raise InputError(f"checkpoint {path} cannot be read: {error}. It is damaged, or no safetensors file.") from error
    return tensors


def load_checkpoint(
    network: nn.Module, path: Path, *, key: str | None = None, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Load the weights in a file into ``network``; returns their provenance, or {} if it has none.

    The state dict may stand alone or under any key, with the names as the network has them or with the words of wrappers in
    front, such as ``DataParallel``'s (see ``state_dicts``). Missing batch counters of normalisation layers are accepted. From a
    file with learned initial potentials, the network's activations get theirs.

    Args:
        network: the network that the weights are for.
        path: a file that ``torch.save`` wrote, or a ``.safetensors`` file.
        key: where in the file the state dict stands, such as "model" or "ema"; None: the first that fits the network, averaged
            copies (``ema``, ``swa``) last.
        say: called with a sentence about the choice where the file holds several state dicts that fit.

    Raises:
        InputError: naming the missing and unexpected names and those of another shape, and the likely cause, or if there is no
            state dict. The network is then unchanged.
    """
    content = read(path)
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    learning = not_learning(network) if _holds_potentials(content) else {}
    wanted |= dict.fromkeys(learning, torch.zeros(()))
    found = _candidates(content, wanted, key, path)
    if not found and {"graph", "neurons"} <= content.keys():
        raise InputError(f"checkpoint {path} holds a converted network: load_snn(PATH) loads it; here weights are needed.")
    if not found:
        raise InputError(
            f"checkpoint {path} holds no state dict (its keys: {', '.join(map(repr, list(content)[:SHOWN])) or 'none'}): "
            "give names and tensors, bare or under one of the keys of a dictionary, such as 'state_dict'."
        )
    fitting = [(one, given) for one, given in found if not faults(given, wanted)]
    if not fitting:
        _, given = max(found, key=lambda pair: len(pair[1].keys() & wanted.keys()))
        told = "; ".join(faults(given, wanted))
        raise InputError(f"checkpoint {path} does not fit the network: {told}. {likely_cause(given, wanted)}")
    fitting.sort(key=lambda pair: pair[0].averaged)
    chosen, given = fitting[0]
    if len(fitting) > 1 and say is not None:
        others = ", ".join(repr(one.key) for one, _ in fitting[1:])
        say(f"{path.name} holds several state dicts that fit: that under {chosen.key!r} is taken, not {others}.")
    for module in learning.values():
        module.learn_potential()
    network.load_state_dict(given, strict=False)
    provenance = content.get("provenance", {})
    return provenance if isinstance(provenance, dict) else {}


def _holds_potentials(content: Mapping[Any, Any]) -> bool:
    """Whether a state dict in the file holds what neurons have learned to start from."""
    return any(name.rpartition(".")[2] == OFFSET for one in candidates(content) for name in one.tensors)


def _candidates(
    content: Mapping[Any, Any], wanted: Mapping[str, Tensor], key: str | None, path: Path
) -> list[tuple[Candidate, dict[str, Tensor]]]:
    """The state dicts in the file, or the one under ``key``, each with its tensors under the network's names."""
    found = candidates(content)
    if key is not None:
        names = [one.key for one in found if one.key]
        found = [one for one in found if one.key == key]
        if not found:
            raise InputError(
                f"checkpoint {path} holds no state dict under {key!r}: there are some under "
                f"{', '.join(map(repr, names[:SHOWN])) or 'no key'}."
            )
    return [(one, fitted(one.tensors, wanted)) for one in found]


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
