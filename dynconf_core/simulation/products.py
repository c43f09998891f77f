"""The prepared products of a network's weighted layers on a CPU.

Layers that read spikes use integer arithmetic where it is faster; the others use float32 with weights reordered once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from dynconf_core.graph.bounds import in_one_step
from dynconf_core.graph.graph import Graph
from dynconf_core.graph.operations import as_image
from dynconf_core.neurons.model import NeuronModel
from dynconf_core.simulation.integer import SpikeProduct, prepare
from dynconf_core.simulation.prepacked import Product, prepacked

Tensors = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Products:
    """Products by node name; layers without one are computed by PyTorch's public operations.

    Attributes:
        plain: float32 products.
        whole: integer products.
    """

    plain: Mapping[str, Product] = field(default_factory=dict)
    whole: Mapping[str, SpikeProduct] = field(default_factory=dict)

    @classmethod
    def of(
        cls, graph: Graph, neurons: NeuronModel, tensors: Tensors, samples: int, *, exact: bool, integers: bool
    ) -> "Products":
        """The products of the layers behind the first neurons, for batches of ``samples``.

        Args:
            graph: the network.
            neurons: its neuron model.
            tensors: the tensors of every node, on the CPU.
            samples: N.
            exact: whether the weights are in fixed point.
            integers: whether to use integer products where they are faster.
        """
        after = graph.after(("neurons",))
        spikes = graph.spikes() if integers else frozenset[str]()
        bounds = in_one_step(graph, 0.0, neurons) if integers else {}
        plain: dict[str, Product] = {}
        whole: dict[str, SpikeProduct] = {}
        for node in graph.of_kind("convolution", "linear"):
            if node.name not in after:
                continue
            source, own = graph.by_name[node.inputs[0]], tensors[node.name]
            shape = (samples, *as_image(source).shape) if node.kind == "convolution" else (samples, *source.shape)
            packed = prepacked(as_image(node), own, shape, exact)
            product = None
            if source.name in spikes:
                wanted = ("stride", "padding", "dilation", "groups")
                product = prepare(
                    own["weight"],
                    shape=shape,
                    signed=bool((bounds[source.name].low < 0).any()),
                    largest=int(bounds[source.name].largest()),
                    bias=own.get("bias"),
                    rival=None if packed is None else partial(packed, biased=True),
                    **{name: node.settings[name] for name in wanted if name in node.settings},
                )
            if product is not None:
                whole[node.name] = product
            elif packed is not None:
                plain[node.name] = packed
        return cls(plain, whole)
