"""LSQ: an unsigned activation quantiser with a learned step, the activation of QFFS networks.

    y = s * clip(floor(x / s + 1/2), 0, n),   n = 2^bits - 1

Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv 1902.08153, equations 1 to 3 and section 2.2; used by Li, Ma,
Furber, "Quantization Framework for Fast Spiking Neural Networks", Front. Neurosci. 2022, 10.3389/fnins.2022.918793. Ties are
rounded up rather than to even, because a spiking neuron whose membrane potential starts at half a threshold fires at a tie, and
the two must agree. Where neurons learn to start elsewhere, the shift is what they start from (see ``potential``).
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dynconf_core.activations.course import Course
from dynconf_core.activations.potential import Charging
from dynconf_core.activations.quantisation import HALF, Quantisation


class _LearnedStepQuantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, step: Tensor, top: int, shift: Tensor | float) -> Tensor:
        ctx.learned = isinstance(shift, Tensor)  # type: ignore[attr-defined]
        ctx.save_for_backward(x, step, shift) if isinstance(shift, Tensor) else ctx.save_for_backward(x, step)
        ctx.top = top  # type: ignore[attr-defined]
        return torch.floor(x / step + shift).clamp(0, top) * step

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None]:
        x, step = ctx.saved_tensors[:2]  # type: ignore[attr-defined]
        top: int = ctx.top  # type: ignore[attr-defined]
        learned: bool = ctx.learned  # type: ignore[attr-defined]
        shift = ctx.saved_tensors[2] if learned else HALF  # type: ignore[attr-defined]
        u = x / step
        centred = u + (shift - HALF) if learned else u
        inside = ((centred >= 0) & (centred <= top)).to(gradient.dtype)
        gradient_x = gradient * inside
        # d y / d s: round(u) - u inside the range, n above it, 0 below.
        slope = inside * (torch.floor(u + shift) - u) + (centred > top).to(gradient.dtype) * top
        units = max(x[0].numel(), 1)
        scale = 1.0 / math.sqrt(units * top)
        gradient_step = (gradient * slope).sum() * scale
        gradient_shift = gradient_x.sum() * step if learned else None
        return gradient_x, gradient_step.reshape(step.shape).to(step.dtype), None, gradient_shift


class LSQ(Charging):
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
        result: Tensor = _LearnedStepQuantise.apply(x, step, top, self.initial)
        if self.training and self.course is not None:
            self.course.watch(result)
        return result

    def quantisation(self) -> Quantisation:
        """n levels up to n s; signed neurons with theta = n s."""
        return Quantisation(self.top, self.top * self.step, "signed", shift=self.initial, initial=self.initial)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
