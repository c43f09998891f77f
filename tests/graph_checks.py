"""Batch normalisation with non-trivial statistics, and a check that a graph computes what its network computes."""

from __future__ import annotations

import torch
from spiking_cases import gaussian_images
from torch import Tensor, nn

from dynconf_core.graph.graph import Graph
from dynconf_core.graph.operations import run
from dynconf_core.graph.trace import activations_first, folded, traced


def with_statistics(network: nn.Module, images: Tensor) -> nn.Module:
    """Batch normalisation with the statistics of ``images``, so that signals neither vanish nor explode; in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def disturbed(network: nn.Module, seed: int = 0) -> nn.Module:
    """Non-trivial batch statistics and affine parameters, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            with torch.no_grad():
                module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                if module.affine:
                    module.weight.copy_(0.5 + torch.rand(module.num_features, generator=generator))
                    module.bias.copy_(0.3 * torch.randn(module.num_features, generator=generator))
    return network.eval()


@torch.no_grad()
def same(network: nn.Module, example: Tensor | None = None, tolerance: float = 1e-12) -> Graph:
    """The folded graph, after checking that the graph computes what the network computes, folded or not."""
    x = gaussian_images(3, 7).double() if example is None else example
    plain = traced(network, x)
    graph = activations_first(folded(plain))
    expected = network.double()(x.clone())
    assert float(expected.std()) > 1e-6, "an output that is constant shows little"
    torch.testing.assert_close(run(plain, x), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(run(graph, x), expected, rtol=0, atol=tolerance)
    network.float()
    return graph
