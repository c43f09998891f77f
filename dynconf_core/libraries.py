"""Optional libraries, imported only where they are used: training on CIFAR-10 needs nothing but torch and numpy.

Also makes torchvision usable with a CPU build of torch. The wheel on the package registry is built for CUDA; with a CPU build
of torch its import fails, because two operators whose kernels cannot be loaded were never declared. Declaring them beforehand
makes everything work except these operators and torchvision's own image decoder (Pillow is used instead).
"""

from functools import cache
from importlib import import_module
from types import ModuleType

from dynconf_core.errors import InputError

_SCHEMAS = ("nms", "qnms")
_declared: list[object] = []  # a library's declarations last only as long as its object


def pillow() -> ModuleType:
    """``PIL.Image``, which decodes image files.

    Raises:
        InputError: if Pillow is not installed.
    """
    return _library("PIL.Image", "pillow", "Reading image files")


def scikit_learn_data() -> ModuleType:
    """``sklearn.datasets``, which contains the handwritten digits.

    Raises:
        InputError: if scikit-learn is not installed.
    """
    return _library("sklearn.datasets", "scikit-learn", "Reading the handwritten digits")


def safetensors() -> ModuleType:
    """``safetensors.torch``, which reads weights in that format.

    Raises:
        InputError: if it is not installed.
    """
    return _library("safetensors.torch", "safetensors", "Reading .safetensors files")


def nir() -> ModuleType:
    """The package ``nir``, the Neuromorphic Intermediate Representation.

    Raises:
        InputError: if it is not installed.
    """
    return _library("nir", "nir", "Exchanging networks as NIR")


def spikingjelly(part: str) -> ModuleType:
    """``spikingjelly.activation_based.PART``, such as ``layer``.

    Raises:
        InputError: if SpikingJelly is not installed.
    """
    return _library(f"spikingjelly.activation_based.{part}", "spikingjelly", "Making a SpikingJelly module")


def neurobench_models() -> ModuleType:
    """``neurobench.models``.

    Raises:
        InputError: if NeuroBench is not installed.
    """
    return _library("neurobench.models", "neurobench", "Measuring by NeuroBench")


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
