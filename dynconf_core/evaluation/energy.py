"""The energy of an inference, estimated from what is counted: multiply-accumulates and accumulations. Nothing is measured.

    E = E_MAC (once + every_step t) + E_AC SOP(t)

for t time steps, where ``once`` are the multiply-accumulates that the image alone determines (computed once, as it is a
constant current), ``every_step`` those of analogue values within the network, and SOP(t) the synaptic operations up to step t,
one accumulation each; the ANN takes ``ann`` multiply-accumulates. E_MAC = 4.6 pJ (3.7 for the multiplication, 0.9 for the
addition) and E_AC = 0.9 pJ are those of 32-bit floating point in 45 nm: Horowitz, "Computing's energy problem (and what we can
do about it)", ISSCC 2014, figure 1.1.9. Memory, which costs more than arithmetic, neurons' updates and idle hardware are not
in it: it compares, it does not predict a meter.
"""

from collections.abc import Mapping
from typing import Any

from dynconf_core.errors import InputError

PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_AC = 0.9
SOURCE = "32-bit floating point in 45 nm, Horowitz, ISSCC 2014, 10.1109/ISSCC.2014.6757323"
FORMULA = "picojoules_per_mac * (once + every_step * steps) + picojoules_per_ac * synaptic_operations"
KINDS = ("once", "every_step", "ann")


def energy_estimate(
    multiply_accumulates: Mapping[str, float],
    synaptic_operations: Mapping[str, float],
    steps: Mapping[str, float],
    picojoules_per_mac: float = PICOJOULES_PER_MAC,
    picojoules_per_ac: float = PICOJOULES_PER_AC,
    source: str | None = None,
) -> dict[str, Any]:
    """Picojoules an inference: ``ann``, and one entry for each of ``steps``; with the formula and its constants.

    Args:
        multiply_accumulates: of one sample, ``{"once", "every_step", "ann"}``.
        synaptic_operations: mean over the samples, such as ``{"full", "exit"}``.
        steps: mean time steps under the same names. The formula is linear, so means may stand for the samples.
        picojoules_per_mac, picojoules_per_ac: of one operation.
        source: of these two; needed where they are not the defaults.

    Raises:
        InputError: for a cost that is negative or no number, names that do not match, or costs without a source.
    """
    for name, cost in (("picojoules_per_mac", picojoules_per_mac), ("picojoules_per_ac", picojoules_per_ac)):
        if not 0 <= cost < float("inf"):
            raise InputError(f"{name}={cost}: give picojoules, 0 or more, such as 4.6 for a multiply-accumulate.")
    if source is None and (picojoules_per_mac, picojoules_per_ac) != (PICOJOULES_PER_MAC, PICOJOULES_PER_AC):
        raise InputError("picojoules other than the defaults need their source=..., which is shown with every figure.")
    if set(multiply_accumulates) != set(KINDS) or set(steps) != set(synaptic_operations):
        raise InputError(
            f"multiply_accumulates needs {', '.join(KINDS)} (it has {', '.join(multiply_accumulates)}), and steps the names of "
            f"synaptic_operations ({', '.join(synaptic_operations)}; it has {', '.join(steps)})."
        )
    once, every_step, ann = (multiply_accumulates[kind] for kind in KINDS)
    if not all(isinstance(count, int | float) and 0 <= count < float("inf") for count in (once, every_step, ann)):
        raise InputError(f"multiply_accumulates={dict(multiply_accumulates)}: give counts, 0 or more.")
    spiking = {
        name: picojoules_per_mac * (once + every_step * steps[name]) + picojoules_per_ac * operations
        for name, operations in synaptic_operations.items()
    }
    return {
        "kind": "estimate",
        "ann": picojoules_per_mac * ann,
        **spiking,
        "formula": FORMULA,
        "picojoules_per_mac": picojoules_per_mac,
        "picojoules_per_ac": picojoules_per_ac,
        "source": source or SOURCE,
    }
