"""LSQ: an unsigned activation quantiser with a learned step, the activation of QFFS networks.

    y = s * clip(floor(x / s + 1/2), 0, n),   n = 2^bits - 1

Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv 1902.08153, equations 1 to 3 and section 2.2; used by Li, Ma,
Furber, "Quantization Framework for Fast Spiking Neural Networks", Front. Neurosci. 2022, 10.3389/fnins.2022.918793. Ties are
rounded up rather than to even, because a spiking neuron whose membrane potential starts at half a threshold fires at a tie, and
the two must agree.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dynconf_core.activations.course import Course
from dynconf_core.activations.quantisation import Quantisation


class _LearnedStepQuantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, step: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.top = top  # type: ignore[attr-defined]
        return _rounded(x / step).clamp(0, top) * step

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, step = ctx.saved_tensors  # type: ignore[attr-defined]
        top: int = ctx.top  # type: ignore[attr-defined]
        u = x / step
        inside = ((u >= 0) & (u <= top)).to(gradient.dtype)
        gradient_x = gradient * inside
        # d y / d s: round(u) - u inside the range, n above it, 0 below.
        slope = inside * (_rounded(u) - u) + (u > top).to(gradient.dtype) * top
        units = max(x[0].numel(), 1)
        scale = 1.0 / math.sqrt(units * top)
        gradient_step = (gradient * slope).sum() * scale
        return gradient_x, gradient_step.reshape(step.shape).to(step.dtype), None


def _rounded(u: Tensor) -> Tensor:
    return torch.floor(u + 0.5)


class LSQ(nn.Module):
    """The LSQ activation quantiser with ``bits`` bits; ``step`` (s) is learned, ``top`` (n) is the highest level.

    The step is initialised to ``2 mean|x| / sqrt(n)`` of the first training batch. The buffer ``initialised`` records that this
    has happened, so a resumed or loaded network is not initialised again. ``course``: see ``dynconf_core.activations.course``.
    """

    initialised: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.top = 2**bits - 1
        self.step = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("initialised", torch.tensor(False))
        self.course: Course | None = None

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the step from a batch ``x`` of any shape, once."""
        start = 2 * x.detach().abs().mean() / math.sqrt(self.top)
        self.step.copy_(start.clamp_min(1e-6))  # a layer with all-zero input must not divide by 0
        self.initialised.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise ``x`` of shape ``(N, ...)``; the result has values in {0, s, ..., n s}."""
        step: Tensor = self.step
        top = self.top
        if self.training and self.course is not None:
            if self.course.fineness > 1:
                step, top = step / self.course.fineness, top * self.course.fineness
            x = self.course.shaken(x, step)
        result: Tensor = _LearnedStepQuantise.apply(x, step, top)
        if self.training and self.course is not None:
            self.course.watch(result)
        return result

    def quantisation(self) -> Quantisation:
        """n levels up to n s; signed neurons with theta = n s."""
        return Quantisation(self.top, self.top * self.step, "signed")

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
