"""QCFS (quantisation, clip, floor, shift): the activation that converts to integrate-and-fire neurons.

    h(x) = lambda * clip(floor(x L / lambda + 1/2) / L, 0, 1)

Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022, arXiv
2303.04347, equation 15. The gradient of floor is taken as 1 (straight-through estimator); lambda is learned, one per layer, and
becomes the firing threshold.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dynconf_core.activations.course import Course
from dynconf_core.activations.potential import Charging
from dynconf_core.activations.quantisation import Quantisation


class _QuantiseClipFloorShift(torch.autograd.Function):
    """One node of the autograd graph instead of seven: only the input is kept for the backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, threshold: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x, threshold)
        ctx.levels = levels  # type: ignore[attr-defined]
        return _quantised(x / threshold, levels) * threshold

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, threshold = ctx.saved_tensors  # type: ignore[attr-defined]
        u = x / threshold
        inside = ((u >= 0) & (u <= 1)).to(gradient.dtype)
        gradient_x = gradient * inside
        quantised = _quantised(u, ctx.levels)  # type: ignore[attr-defined]
        gradient_threshold = (gradient * quantised).sum() - (gradient_x * u).sum()
        return gradient_x, gradient_threshold.reshape(threshold.shape).to(threshold.dtype), None


def _quantised(u: Tensor, levels: int) -> Tensor:
    return torch.floor(u * levels + 0.5).clamp(0, levels) / levels


class QCFS(Charging):
    """The QCFS activation with ``levels`` steps (L) and a learned ``threshold`` (lambda).

    Args:
        levels: L, the number of quantisation levels above 0.
        initial_threshold: lambda at the start of training, in units of the activation. The paper starts at 8; short recipes
            need 4 (a deep network does not get down from 8 in a few epochs).

    Attributes:
        percentile: the percentile of its positive inputs at which ``initialise`` sets the threshold; None: it is not called.
        course: see ``dynconf_core.activations.course``.
    """

    def __init__(self, levels: int, initial_threshold: float = 8.0) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(initial_threshold)))
        self.percentile: float | None = None
        self.course: Course | None = None

    @property
    def initialised(self) -> bool:
        """Whether the threshold does not wait for a batch."""
        return self.percentile is None

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the threshold from a batch ``x`` of any shape, once."""
        assert self.percentile is not None
        positive = x.detach()[x > 0].float()
        if positive.numel():
            place = max(1, round(self.percentile / 100 * positive.numel()))
            self.threshold.copy_(positive.kthvalue(place).values)
        self.percentile = None

    def forward(self, x: Tensor) -> Tensor:
        """Quantise ``x`` of any shape; the result has the same shape and values in {0, lambda / L, ..., lambda}."""
        levels = self.levels
        if self.training and self.course is not None:
            levels *= self.course.fineness
            x = self.course.shaken(x, self.threshold / levels)
        result: Tensor = _QuantiseClipFloorShift.apply(x, self.threshold, levels)
        if self.training and self.course is not None:
            self.course.watch(result)
        return result

    def quantisation(self) -> Quantisation:
        """L levels up to lambda; integrate-and-fire neurons with theta = lambda."""
        return Quantisation(self.levels, self.threshold, "integrate-and-fire", initial=self.initial)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
