"""Estimates of the energy of an inference from its multiply-accumulates and accumulations.

    E = E_MAC (once + every_step t) + E_AC SOP(t)

for t time steps, where ``once`` counts the multiply-accumulates that depend on the image alone (computed once, as the image is
a constant input current), ``every_step`` those on analogue values within the network, and SOP(t) the synaptic operations up to
step t, one accumulation each. The ANN takes ``ann`` multiply-accumulates. E_MAC = 4.6 pJ (3.7 for the multiplication, 0.9 for
the addition) and E_AC = 0.9 pJ are the costs of 32-bit floating point in 45 nm: Horowitz, "Computing's energy problem (and what
we can do about it)", ISSCC 2014, figure 1.1.9. Memory access, which costs more than arithmetic, updates of neurons and idle
hardware
are not included: the estimate serves for comparison and does not predict measured energy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynconf_core.errors import InputError

PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_AC = 0.9
SOURCE = "32-bit floating point in 45 nm, Horowitz, ISSCC 2014, 10.1109/ISSCC.2014.6757323"
FORMULA = "picojoules_per_mac * (once + every_step * steps) + picojoules_per_ac * synaptic_operations"


@dataclass(frozen=True)
class FullAndExit:
    """A mean over the samples, up to T (``full``) and up to each sample's exit (``exit``)."""

    full: float
    exit: float


@dataclass(frozen=True)
class MultiplyAccumulates:
    """Multiply-accumulates of one sample.

    Attributes:
        once: those that depend on the image alone.
        every_step: those repeated in every time step.
        ann: those of the ANN.

    Raises:
        InputError: for a count that is negative or not a number.
    """

    once: int | float
    every_step: int | float
    ann: int | float

    def __post_init__(self) -> None:
        for count in (self.once, self.every_step, self.ann):
            if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < float("inf"):
                raise InputError(f"multiply_accumulates={vars(self)}: give counts, 0 or more.")

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> "MultiplyAccumulates":
        """The counts ``{"once", "every_step", "ann"}`` in the meta data of traces.

        Raises:
            InputError: if one is missing or not a count.
        """
        if set(counts) != {"once", "every_step", "ann"}:
            raise InputError(f"multiply_accumulates needs once, every_step, ann (it has {', '.join(counts)}).")
        return cls(**counts)


@dataclass(frozen=True)
class Energy:
    """Estimated energy of an inference in picojoules, with the formula and its constants.

    Attributes:
        kind: "estimate".
        ann: energy of the ANN.
        full, exit: energy of the SNN up to T, and up to the exit.
        formula: the formula in terms of the counts.
        picojoules_per_mac, picojoules_per_ac: energy of one operation.
        source: source of these two constants.
    """

    kind: str
    ann: float
    full: float
    exit: float
    formula: str
    picojoules_per_mac: float
    picojoules_per_ac: float
    source: str


def energy_estimate(
    multiply_accumulates: MultiplyAccumulates,
    synaptic_operations: FullAndExit,
    steps: FullAndExit,
    picojoules_per_mac: float = PICOJOULES_PER_MAC,
    picojoules_per_ac: float = PICOJOULES_PER_AC,
    source: str | None = None,
) -> Energy:
    """Estimate the energy of an inference.

    Args:
        multiply_accumulates: multiply-accumulates of one sample.
        synaptic_operations: mean synaptic operations of the samples.
        steps: mean time steps of the samples. The formula is linear, so means can be used.
        picojoules_per_mac, picojoules_per_ac: energy of one operation.
        source: source of these two constants, required if they are not the defaults.

    Raises:
        InputError: for a cost that is negative or not a number, or costs without a source.
    """
    for name, cost in (("picojoules_per_mac", picojoules_per_mac), ("picojoules_per_ac", picojoules_per_ac)):
        if not 0 <= cost < float("inf"):
            raise InputError(f"{name}={cost}: give picojoules, 0 or more, such as 4.6 for a multiply-accumulate.")
    if source is None and (picojoules_per_mac, picojoules_per_ac) != (PICOJOULES_PER_MAC, PICOJOULES_PER_AC):
        raise InputError("picojoules other than the defaults need a source=..., which is shown with every figure.")
    counts = multiply_accumulates

    def spiking(operations: float, time_steps: float) -> float:
        return picojoules_per_mac * (counts.once + counts.every_step * time_steps) + picojoules_per_ac * operations

    return Energy(
        kind="estimate",
        ann=picojoules_per_mac * counts.ann,
        full=spiking(synaptic_operations.full, steps.full),
        exit=spiking(synaptic_operations.exit, steps.exit),
        formula=FORMULA,
        picojoules_per_mac=picojoules_per_mac,
        picojoules_per_ac=picojoules_per_ac,
        source=source or SOURCE,
    )
