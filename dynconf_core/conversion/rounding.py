"""Rounding an SNN's tensors to the binary places of its values."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dynconf_core.graph.bounds import row_blocks
from dynconf_core.graph.graph import WEIGHTED, Node

FINER = 29
"""Binary places that float64 has in addition to float32's."""


class Rounded(Mapping[str, Tensor]):
    """A node's rounded tensors, computed on access, so that a trial needs no second copy of all weights."""

    def __init__(self, node: Node, places: Mapping[str, int], weight_bits: int) -> None:
        self.node, self.places, self.weight_bits = node, places, weight_bits

    def __getitem__(self, key: str) -> Tensor:
        node, places = self.node, self.places
        value = node.tensors[key]
        if node.kind == "neurons":
            return _rounded(value, max(1, places[node.inputs[0]])) if key == "initial" else value
        if node.kind not in WEIGHTED:
            return value
        if key == "bias":
            return _rounded(value, places[node.name])
        return _rounded_weight(value, places[node.name] - places[node.inputs[0]], self.weight_bits)

    def __iter__(self) -> Iterator[str]:
        return iter(self.node.tensors)

    def __len__(self) -> int:
        return len(self.node.tensors)


def rounded(node: Node, places: Mapping[str, int], weight_bits: int, wide: bool) -> Node:
    """The node with rounded tensors; its settings say the number of binary places, and whether it is ``wide``."""
    settings = {**node.settings, **({"wide": True} if wide else {})}
    if node.kind == "round":
        settings["bits"] = places[node.name]
    elif node.kind in WEIGHTED:
        settings["bits"] = places[node.name] - places[node.inputs[0]]
    return replace(node, settings=settings, tensors=dict(Rounded(node, places, weight_bits)))


def limited_by_places(node: Node, places: Mapping[str, int], weight_bits: int) -> bool:
    """Whether more binary places, and not only more bits of a weight, would make a weighted or rounded value much finer."""
    if node.kind not in WEIGHTED:
        return True
    weight = node.tensors["weight"]
    bits = places[node.name] - places[node.inputs[0]]
    found, finest = ((_rounded_weight(weight, most, weight_bits) - weight).norm() for most in (bits, bits + FINER))
    return bool(found > 2 * finest)


def _rounded_weight(weight: Tensor, most_places: int, weight_bits: int) -> Tensor:
    """The weight rounded to ``weight_bits`` per output channel, but to at most ``most_places`` binary places; float32."""
    flat = weight.reshape(len(weight), -1) if weight.ndim else weight.reshape(1, 1)
    least, most = flat.aminmax(dim=1)
    largest = torch.maximum(-least, most).clamp_min(2.0**-60)
    # The largest whole number: 127 for 8 bits, 16 256 = 127 x 128 for 15, which fits two bytes for spikes of either sign.
    whole = 2.0 ** (weight_bits - 1) - max(1.0, 2.0 ** (weight_bits - 8))
    bits = torch.floor(torch.log2(whole / largest)).clamp_max(most_places)
    snapped = torch.empty_like(flat, dtype=torch.float32)
    for rows in row_blocks(flat):
        snapped[rows] = _rounded(flat[rows], bits[rows, None]).float()
    return snapped.reshape(weight.shape)


def _rounded(values: Tensor, bits: Tensor | int) -> Tensor:
    scale = torch.as_tensor(2.0, dtype=torch.float64) ** bits
    return torch.round(values.double() * scale) / scale
