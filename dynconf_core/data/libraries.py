"""Libraries that only some data sets need, asked for where they are used: training on CIFAR-10 needs torch and numpy alone."""

from importlib import import_module
from types import ModuleType

from dynconf_core.errors import InputError


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


def _library(module: str, package: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        raise InputError(f"{what} needs {package}, which is not installed: `pip install {package}`.") from error
