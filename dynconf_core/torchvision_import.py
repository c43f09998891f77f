"""torchvision, also beside a CPU build of torch.

The registry's torchvision wheel is built for CUDA: beside a CPU torch its import fails since two operators, whose
kernels it cannot load, were never declared. Declaring them first is enough for everything but those operators and
torchvision's own image decoder (PIL serves instead).
"""

from functools import cache
from types import ModuleType

import torch

_SCHEMAS = ("nms", "qnms")
_declared: list[torch.library.Library] = []  # a library's declarations live only as long as the object


@cache
def torchvision() -> ModuleType:
    """The package ``torchvision``, imported once."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in _SCHEMAS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision
    package: ModuleType = torchvision
    return package


def transforms() -> ModuleType:
    """The module ``torchvision.transforms.v2``."""
    torchvision()
    from torchvision.transforms import v2

    module: ModuleType = v2
    return module
