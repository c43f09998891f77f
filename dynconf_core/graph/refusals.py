"""What cannot be converted exactly, by name: the reason, and what to write instead.

Spikes are whole numbers, and weights only add them up. So a network converts if it computes sums of constants times
activations, and activations that are piecewise linear with few pieces. Everything here is something else.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dynconf_core.graph.writing import Refused


class Refusal(NamedTuple):
    """Why an operation is refused, and what to write instead."""

    reason: str
    instead: str


_CURVED = "it is a curve, which a firing rate, rising in a straight line between two limits, does not follow"
_STATISTICS = (
    "it divides by the deviation of the very input, a quotient of activations, which spikes that are added up cannot form"
)
_PRODUCT = "it multiplies activations with each other, and spikes are only added up"
CURVED = Refusal(_CURVED, "train with ReLU, ReLU6, LeakyReLU or PReLU")
SQUASHING = Refusal(_CURVED, "train with Hardtanh or Hardsigmoid, which are straight lines between two limits")
GATED = Refusal(
    f"{_PRODUCT} (x times a gate of x)",
    "train with ReLU, ReLU6 or LeakyReLU; EfficientNet-Lite and MobileNetV2 are nets without it",
)
NORMALISING = Refusal(_STATISTICS, "train with BatchNorm, which becomes part of the weights")
ATTENTION = Refusal(f"attention is a softmax of products: {_PRODUCT}", "use convolutions or linear layers over the positions")
PRODUCT = Refusal(
    f"{_PRODUCT} (a squeeze-and-excitation block, a gate)",
    "train the network without these products, or multiply by a constant",
)
SOFTMAX = Refusal(
    "it divides by a sum of exponentials of activations",
    "leave it out at the end, as it changes no prediction; inside the network use ReLU or a clip",
)
RECURRENT = Refusal(
    "its state goes through the same layer again and again, with gates that multiply activations",
    "use Conv1d over the sequence, (N, C, L)",
)
ROOTS = Refusal("it is a curve", "use only sums, constant factors, pools and activations such as ReLU")
DEVIATION = Refusal("it is a square, or the root of a mean of squares, of activations", "use means and maxima over the image")
SORTING = Refusal(
    "which value comes first depends on the input, and spikes are only added up", "use amax or a max pool for the largest value"
)
SHRINKING = Refusal("it is 0 around 0, where a neuron follows one line on each side", "train with ReLU, LeakyReLU or PReLU")
RUNNING = Refusal(
    "it has no translation, though it only adds up", "use a linear layer, x @ W, whose constant W holds ones where it adds up"
)
FOLDING = Refusal("it adds up windows that overlap, and has no translation", "use a transposed convolution, which has one")
SMALLEST = Refusal("a minimum over values has no spiking counterpart", "use the maximum, amax or a max pool")
MULTIPLYING = Refusal(_PRODUCT, "use sums")
SOLID = Refusal("conversion is for images and signals", "use ConvTranspose2d or ConvTranspose1d")

REFUSED: Mapping[str, Refusal] = {
    **dict.fromkeys(("SiLU", "silu", "Hardswish", "hardswish", "GELU", "gelu", "Mish", "mish", "GLU", "glu"), GATED),
    **dict.fromkeys(
        ("ELU", "elu", "elu_", "CELU", "celu", "SELU", "selu", "Softplus", "softplus", "LogSigmoid", "logsigmoid"), CURVED
    ),
    **dict.fromkeys(
        ("Sigmoid", "sigmoid", "sigmoid_", "Tanh", "tanh", "tanh_", "Softsign", "softsign", "Tanhshrink"), SQUASHING
    ),
    **dict.fromkeys(
        ("Softmax", "softmax", "Softmax2d", "LogSoftmax", "log_softmax", "Softmin", "softmin", "logsumexp"), SOFTMAX
    ),
    **dict.fromkeys(("LayerNorm", "layer_norm", "GroupNorm", "group_norm", "RMSNorm", "rms_norm"), NORMALISING),
    **dict.fromkeys(("LocalResponseNorm", "local_response_norm", "normalize"), NORMALISING),
    **dict.fromkeys(("MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder"), ATTENTION),
    **dict.fromkeys(("Transformer", "scaled_dot_product_attention", "multi_head_attention_forward"), ATTENTION),
    **dict.fromkeys(("matmul", "bmm", "baddbmm", "einsum", "Bilinear", "bilinear"), PRODUCT),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), RECURRENT),
    **dict.fromkeys(("exp", "log", "log1p", "sqrt", "rsqrt", "square", "pow", "sin", "cos", "norm"), ROOTS),
    **dict.fromkeys(("std", "var", "std_mean", "var_mean", "LPPool1d", "LPPool2d", "lp_pool1d", "lp_pool2d"), DEVIATION),
    **dict.fromkeys(("sort", "argsort", "topk", "kthvalue", "median", "argmax", "argmin", "msort"), SORTING),
    **dict.fromkeys(("Softshrink", "softshrink", "Hardshrink", "hardshrink"), SHRINKING),
    **dict.fromkeys(("cumsum",), RUNNING),
    **dict.fromkeys(("amin", "aminmax"), SMALLEST),
    **dict.fromkeys(("prod", "cumprod"), MULTIPLYING),
    **dict.fromkeys(("Fold", "fold"), FOLDING),
    **dict.fromkeys(("ConvTranspose3d", "conv_transpose3d"), SOLID),
}
"""By the name of the module's class, or of the function or method."""


def refusing(name: str) -> Callable[..., Any]:
    """A translation that refuses.

    Raises:
        Refused: always, with the reason and the alternative.
    """
    refusal = REFUSED[name]

    def refuse(*arguments: Any, **words: Any) -> Any:
        raise Refused(f"{refusal.reason}; {refusal.instead}")

    return refuse


MODULES: Mapping[type[nn.Module], Callable[..., Any]] = {
    getattr(nn, name): refusing(name) for name in REFUSED if hasattr(nn, name)
}
CALLS: Mapping[Any, Callable[..., Any]] = {
    getattr(room, name): refusing(name)
    for name in REFUSED
    for room in (functional, torch)
    if not isinstance(getattr(room, name, None), type | None)
}
METHODS: Mapping[str, Callable[..., Any]] = {name: refusing(name) for name in REFUSED if hasattr(torch.Tensor, name)}
