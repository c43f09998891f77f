"""Exponential, logarithm, sum and gap with reproducible bits, built from additions, multiplications, divisions and shifts
alone.

A threshold is stored as a score seen in calibration, so that the comparison "greater than" can depend on the last bit.
Libraries differ there: numpy's exp from torch's, a GPU's from a CPU's, and a sum over classes by its memory layout. IEEE 754
fixes the result of every single addition, multiplication and division; computed from these in a fixed order, the results are
the same float64 in any batch, layout, library or device (unless a compiler fuses a multiplication with an addition, as
`torch.compile` may). Errors are below 2 units in the last place, except below the smallest normal number, where results are 0.

Range reduction and series as in Muller, "Elementary Functions" (2016): exp(x) = 2^k exp(r), |r| <= ln 2 / 2, by its Taylor
series; log(2^k m) = k ln 2 + 2 artanh(s), s = (m - 1) / (m + 1), by its series.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOG2_E = 1.4426950408889634
# ln 2 in two parts: k times the first is exact for |k| < 2^21.
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
SQRT_2 = 1.4142135623730951
SMALLEST, LARGEST = -708.0, 709.0  # arguments between these have an exponential that is a normal number

# 0.3466^14 / 14! and 0.02944^12 / 25 are below 1e-17.
_EXP_SERIES = [1.0 / math.factorial(power) for power in range(13, -1, -1)]
_ARTANH_SERIES = [1.0 / odd for odd in range(23, 0, -2)]
_EXPONENT_BIAS, _MANTISSA_BITS = 1023, 52
_MANTISSA = (1 << _MANTISSA_BITS) - 1
FEW = 4096
"""Up to this many numbers are computed by numpy; for more, torch is faster."""


def exponential(x: Tensor) -> Tensor:
    """exp(x) of a float64 tensor; 0 below -708, and exp(709) above 709."""
    return torch.from_numpy(_exponential(np, x.numpy())) if _few(x) else _exponential(torch, x)


def logarithm(x: Tensor) -> Tensor:
    """log(x) of a float64 tensor of positive normal numbers."""
    return torch.from_numpy(_logarithm(np, x.numpy())) if _few(x) else _logarithm(torch, x)


def logarithm_1p(x: Tensor) -> Tensor:
    """log(1 + x) of a float64 tensor, x >= 0, accurate near 0 too."""
    whole = 1.0 + x
    # The rounding error of the addition is added back, to first order.
    return logarithm(whole) + (x - (whole - 1.0)) / whole


def total(terms: Tensor) -> Tensor:
    """Sum (...) of `terms` (..., C) over the last axis, by repeated halving in a fixed order; `terms` is overwritten."""
    count = terms.shape[-1]
    while count > 1:
        half = (count + 1) // 2
        terms[..., : count - half].add_(terms[..., half:count])
        count = half
    return terms[..., 0]


def others_behind(logits: Tensor) -> Tensor:
    """Each logit minus the largest (..., C), with -inf at the (first) largest class itself."""
    behind = logits - logits.amax(dim=-1, keepdim=True)
    return behind.scatter(-1, logits.argmax(dim=-1, keepdim=True), -math.inf)


def gap(logits: Tensor) -> Tensor:
    """The largest logit minus the second largest: (...) float64 >= 0 of (..., C), C >= 2."""
    return -others_behind(logits).amax(dim=-1)


def _few(x: Tensor) -> bool:
    """Whether numpy is used: for few numbers the overhead of calls dominates, and numpy's is half of torch's."""
    plain = type(x) is Tensor and x.device.type == "cpu" and not x.requires_grad and not torch.compiler.is_compiling()
    return plain and 0 < x.numel() <= FEW


# Each formula is written once for numpy arrays and torch tensors; ``xp`` is the library.


def _exponential(xp: Any, x: Any) -> Any:
    bounded = xp.clip(x, SMALLEST, LARGEST)
    power = xp.round(bounded * LOG2_E)
    rest = bounded - power * LN2_HIGH
    rest -= power * LN2_LOW
    result = _polynomial(xp, rest, _EXP_SERIES)
    # 2^power by setting the exponent's bits: from -1022 to 1023.
    result *= ((xp.asarray(power, dtype=xp.int64) + _EXPONENT_BIAS) << _MANTISSA_BITS).view(xp.float64)
    return xp.where(x < SMALLEST, 0.0, result)


def _logarithm(xp: Any, x: Any) -> Any:
    bits = x.view(xp.int64)
    mantissa = ((bits & _MANTISSA) | (_EXPONENT_BIAS << _MANTISSA_BITS)).view(xp.float64)
    upper = mantissa > SQRT_2
    mantissa = xp.where(upper, mantissa * 0.5, mantissa)
    power = xp.asarray((bits >> _MANTISSA_BITS) - _EXPONENT_BIAS + upper, dtype=xp.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    result = _polynomial(xp, ratio * ratio, _ARTANH_SERIES)
    result *= ratio * 2.0
    result += power * LN2_LOW
    result += power * LN2_HIGH
    return result


def _polynomial(xp: Any, x: Any, coefficients: list[float]) -> Any:
    """By Horner's rule, the highest power first."""
    result = xp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result *= x
        result += coefficient
    return result
