"""A convolution as one matrix product of the unfolded images: it only multiplies and adds, whatever a library prefers.

For GPUs, whose convolutions may compute other sums (Winograd, FFT). Every value is copied once for each weight of the kernel
that it meets.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from dynconf_core.graph.graph import Node

COPIED = 1 << 28
"""Values of the unfolded images at once: 1 GiB."""


def unfolded(node: Node, x: Tensor, tensors: Mapping[str, Tensor], biased: bool = True) -> Tensor:
    """The current ``(N, O, H', W')`` of values ``(N, C, H, W)``, channels last; as ``evaluate`` of a convolution.

    Args:
        node: the convolution.
        x: values, on any device.
        tensors: the node's, where ``x`` is and in its precision.
        biased: whether the bias is added.
    """
    weight, bias = tensors["weight"], tensors.get("bias") if biased else None
    rows, columns = node.settings["padding"]
    images = pad(x.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows)).contiguous()
    a_sample = node.shape[1] * node.shape[2] * weight[0].numel() * int(node.settings["groups"])
    parts = [_product(node, part, weight) for part in images.split(max(1, COPIED // a_sample))]
    value = torch.cat(parts) if len(parts) > 1 else parts[0]
    if bias is not None:
        value.add_(bias)
    return value.permute(0, 3, 1, 2)


def _product(node: Node, images: Tensor, weight: Tensor) -> Tensor:
    """``(N, H', W', O)`` of padded ``images (N, H, W, C)``."""
    (down, across), (apart_down, apart_across) = node.settings["stride"], node.settings["dilation"]
    groups, kernel = int(node.settings["groups"]), weight.shape[2:]
    sample, line, place, channel = images.stride()
    patches = images.as_strided(
        (len(images), *node.shape[1:], *kernel, images.shape[3]),
        (sample, line * down, place * across, line * apart_down, place * apart_across, channel),
    )
    found = []
    for group, weights in enumerate(weight.chunk(groups)):
        width = images.shape[3] // groups
        copied = patches[..., group * width : (group + 1) * width].reshape(-1, kernel.numel() * width)
        found.append(copied @ weights.permute(2, 3, 1, 0).reshape(-1, len(weights)))
    together = torch.cat(found, dim=1) if groups > 1 else found[0]
    return together.view(len(images), *node.shape[1:], -1)
