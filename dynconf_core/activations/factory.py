"""Which activation a conversion method trains with."""

from collections.abc import Callable

from torch import nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.errors import InputError

Activation = Callable[[], nn.Module]


def activation(method: str, *, levels: int | None, bits: int | None, initial_threshold: float) -> Activation:
    """The maker of one layer's activation: QCFS with ``levels`` for "qcfs", LSQ with ``bits`` for "qffs".

    Raises:
        InputError: for another method.
    """
    if method == "qcfs" and levels is not None:
        return lambda: QCFS(levels, initial_threshold)
    if method == "qffs" and bits is not None:
        return lambda: LSQ(bits)
    raise InputError(f"method={method!r} with levels={levels} and bits={bits}: use 'qcfs' with levels or 'qffs' with bits.")
