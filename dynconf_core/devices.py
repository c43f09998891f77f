"""The device that work runs on."""

import torch

from dynconf_core.errors import InputError


def device(name: str) -> torch.device:
    """The device called ``name``: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1".

    Raises:
        InputError: for another name, or a device that this machine has not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name!r} is unknown: use auto, cpu, cuda or cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device={name!r} is not supported: use auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={name!r} is absent ({torch.cuda.device_count()} CUDA devices here): use --device cpu.")
    return chosen
