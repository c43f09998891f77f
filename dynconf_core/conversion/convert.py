"""ANN to SNN: every activation becomes a layer of spiking neurons, everything else stays.

QCFS layers become integrate-and-fire neurons with theta = lambda (Bu et al., ICLR 2022). LSQ layers become signed neurons
with theta = n s, and the input and the biases act in the first n steps only (Li, Ma, Furber, Front. Neurosci. 2022). The
image is a constant current; the output layer has no neuron, its current is the logits of the step.
"""

from typing import Any

import torch
from torch import nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.graph import ACTIVATIONS, folded
from dynconf_core.errors import InputError
from dynconf_core.simulation.network import Neurons, SpikingNetwork


def convert(ann: nn.Module) -> SpikingNetwork:
    """The spiking network of ``ann``, whose activations are all QCFS or all LSQ with the same number of bits.

    Raises:
        InputError: where it has no such activation, mixes them, or has an operation that conversion does not know.
    """
    graph = folded(ann)
    layers = {name: module for name, module in graph.named_modules() if isinstance(module, ACTIVATIONS)}
    tops = {layer.top if isinstance(layer, LSQ) else None for layer in layers.values()}
    if len(tops) != 1:
        found = sorted({f"{type(layer).__name__}({layer.extra_repr()})" for layer in layers.values()})
        raise InputError(f"the network's activations are {found or 'none'}: all QCFS, or all LSQ of one width, are needed.")
    for name, layer in layers.items():
        graph.set_submodule(name, _neurons(name, layer))
    return SpikingNetwork(graph, active_steps=tops.pop())


def _neurons(name: str, layer: nn.Module) -> Neurons:
    threshold: Any
    if isinstance(layer, QCFS):
        threshold, top = layer.threshold, None
    else:
        assert isinstance(layer, LSQ)
        threshold, top = layer.top * layer.step, layer.top
    threshold = threshold.detach().clone()
    if not torch.isfinite(threshold) or float(threshold) <= 0:
        raise InputError(f"{name} has the threshold {float(threshold)}: it must be above 0; the training went astray.")
    return Neurons(threshold, top)
