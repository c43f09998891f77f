"""Libraries that only some work needs, asked for where they are used: training on CIFAR-10 needs torch and numpy alone.

torchvision also works beside a CPU build of torch. The registry's wheel is built for CUDA: beside a CPU torch its import fails
since two operators, whose kernels it cannot load, were never declared. Declaring them first is enough for everything but those
operators and torchvision's own image decoder (Pillow serves instead).
"""

from functools import cache
from importlib import import_module
from types import ModuleType

from dynconf_core.errors import InputError

_SCHEMAS = ("nms", "qnms")
_declared: list[object] = []  # a library's declarations live only as long as the object


def pillow() -> ModuleType:
    """``PIL.Image``, which decodes image files.

    Raises:
        InputError: where it is not installed.
    """
    return _library("PIL.Image", "pillow", "Reading image files")


def scikit_learn_data() -> ModuleType:
    """``sklearn.datasets``, which holds the handwritten digits.

    Raises:
        InputError: where it is not installed.
    """
    return _library("sklearn.datasets", "scikit-learn", "Reading the handwritten digits")


@cache
def torchvision() -> ModuleType:
    """The package ``torchvision``, imported once."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

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


def _library(module: str, package: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        raise InputError(f"{what} needs {package}, which is not installed: `pip install {package}`.") from error
