"""A converted network with its exit rule as one object that takes pixels: what a server answers with, and a folder to keep it.

    classifier = Classifier.load("folder")
    exits = classifier(pixels)  # uint8 (N, H, W, C) or (N, C, H, W), grey also (N, H, W), or nested lists of them
    exits.predictions, exits.steps, classifier.confidence(exits)

The folder holds ``snn.pt`` (``load_snn``), ``rule.json`` (``Rule``) and ``input.json``: T, the image's size, the normalisation
and the names of the classes. Nothing in it is unpickled but tensors and plain values.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynconf_core.arguments import file_path, instance, mapping, tensor
from dynconf_core.conversion.file import load_snn, save_snn
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.files import write_text
from dynconf_core.machine import device as device_called
from dynconf_core.simulation.given import check_network
from dynconf_core.simulation.input_checks import check_time_steps
from dynconf_core.simulation.live import MOST, Exits, run_until_confident
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.strict_json import read_json
from dynconf_core.wording import counted, told

SCHEMA = 2
SNN, RULE, INPUT = "snn.pt", "rule.json", "input.json"
SIZES = 4
"""Number of batch sizes, those used last, that a network stays prepared for."""
REMEDY = "give whole numbers from 0 to 255, as the image file holds them; the network normalises them itself"


@dataclass(frozen=True)
class ImageFacts:
    """What a network expects of its images, the content of ``input.json``.

    Attributes:
        time_steps: T, after which every sample exits.
        normalisation: of the network's input.
        classes: the names of the classes in the order of their numbers; None where they are not known.
        origin: where the network comes from, for readers: setting, profile, seed, stand-in.

    Raises:
        InputError: for a value that is none of these.
    """

    time_steps: int
    normalisation: Normalisation
    classes: tuple[str, ...] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_time_steps(self.time_steps, None)
        instance("normalisation", self.normalisation, Normalisation, "give a Normalisation(mean, std)")
        names: object = self.classes
        if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise InputError(f"{told('classes', names)}: give the names of the classes in order, or None.")
        object.__setattr__(self, "time_steps", int(self.time_steps))
        object.__setattr__(self, "classes", None if names is None else tuple(names))
        object.__setattr__(self, "origin", mapping("origin", self.origin))

    def as_json(self) -> dict[str, Any]:
        """The content of ``input.json``."""
        return {
            "schema": SCHEMA,
            "time_steps": self.time_steps,
            **self.normalisation.as_json(),
            "classes": None if self.classes is None else list(self.classes),
            "origin": dict(self.origin),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file."""
        write_text(path, json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ImageFacts:
        """Read them from a file that ``save`` wrote.

        Raises:
            InputError: naming the file and the field that is missing or wrong.
        """
        entry = read_json(Path(path))
        if not isinstance(entry, Mapping) or entry.get("schema") != SCHEMA:
            raise InputError(f"{path} does not describe a network's images in schema {SCHEMA}: register the model again.")
        steps: Any = entry.get("time_steps")
        try:
            normalisation = Normalisation(_channels(entry, "mean"), _channels(entry, "std"))
            return cls(steps, normalisation, entry.get("classes"), entry.get("origin") or {})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


class Classifier:
    """An SNN, its exit rule and what they expect of images. May be called by several threads, which take turns.

    Args:
        snn: the converted network, on the device it is to run on.
        rule: the exit rule.
        facts: T, normalisation and names of the classes.

    Raises:
        InputError: if they do not fit together, or the network takes no images.
    """

    def __init__(self, snn: SpikingNetwork, rule: Rule, facts: ImageFacts) -> None:
        check_network(snn)
        instance("rule", rule, Rule, "give a Rule, such as Rule.load('rule.json')")
        instance("facts", facts, ImageFacts, "give ImageFacts(time_steps, normalisation)")
        shape, classes = snn.graph.input.shape, snn.graph.output.channels
        if len(shape) != 3:
            kind = {1: "vectors (F,)", 2: "signals (C, L)"}.get(len(shape), "inputs")
            raise InputError(
                f"the network takes {kind} of the shape {tuple(shape)}, and a server is for images (C, H, W) alone: run it in "
                "Python, by run_until_confident(snn, ExitAgent(rule), inputs, T)."
            )
        facts.normalisation.check(torch.empty((0, *shape)))
        if facts.classes is not None and len(facts.classes) != classes:
            raise InputError(
                f"{counted(len(facts.classes), 'name')} of classes for a network with {classes}: give {classes}, or None."
            )
        if snn.time_steps_limit is not None and facts.time_steps > snn.time_steps_limit:
            raise InputError(f"time_steps={facts.time_steps}: the SNN is exact for at most {snn.time_steps_limit}.")
        self.snn, self.rule, self.facts = snn, rule, facts
        self._agent = ExitAgent(rule)
        self._prepared: OrderedDict[int, SpikingNetwork] = OrderedDict()
        self._turn = Lock()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.snn.graph.input.shape
        return channels, height, width

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> Classifier:
        """Load what ``save`` wrote.

        Raises:
            InputError: naming the file that is missing, damaged or holds something else.
        """
        place = file_path("folder", folder)
        snn = load_snn(place / SNN)
        snn.to(device_called(device))
        return cls(snn, Rule.load(place / RULE), ImageFacts.load(place / INPUT))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``snn.pt``, ``rule.json`` and ``input.json`` into a folder."""
        place = file_path("folder", folder)
        save_snn(self.snn, place / SNN)
        self.rule.save(place / RULE)
        self.facts.save(place / INPUT)

    def without_exit(self) -> Classifier:
        """The same network run for all T time steps: its rule never exits."""
        return Classifier(self.snn, replace(self.rule, threshold=float("inf")), self.facts)

    def __call__(self, images: Any) -> Exits:
        """Classify images, each as soon as the rule lets it exit; finished samples leave the batch.

        Args:
            images: pixels as a file holds them, 0 to 255: ``(N, H, W, C)`` or ``(N, C, H, W)``, grey ones also ``(N, H, W)``;
                an array, a tensor or nested lists.

        Raises:
            InputError: saying what is wrong with the images.
        """
        pixels = pixels_of(images, self.shape)
        split = TensorImages(pixels, torch.zeros(len(pixels), dtype=torch.int64), 1, self.facts.normalisation)
        with self._turn:
            return run_until_confident(self._network(len(pixels)), self._agent, split, self.facts.time_steps)

    def _network(self, images: int) -> SpikingNetwork:
        """The network prepared for a batch size, which takes longer than to classify an image; the weights are shared."""
        size = min(images, MOST.get(self.snn.device.type, images))
        found = self._prepared.pop(size, None) or copy(self.snn)
        self._prepared[size] = found
        if len(self._prepared) > SIZES:
            self._prepared.popitem(last=False)
        return found

    def confidence(self, exits: Exits) -> NDArray[np.float64]:
        """``(N,)`` the scores at the exits as people read them, such as the softmax; see the measure's ``label``."""
        return np.array([self.rule.measure.shown(float(score)) for score in exits.scores], dtype=np.float64)


def pixels_of(images: Any, shape: tuple[int, int, int]) -> Tensor:
    """uint8 pixels ``(N, C, H, W)`` of images in any of the forms that ``Classifier`` takes.

    Args:
        images: the images.
        shape: C, H and W.

    Raises:
        InputError: for images of different shapes, of another size or number of channels, that are no whole numbers from 0 to
            255, or for none at all.
    """
    channels, height, width = shape
    wanted = f"(N, {height}, {width}, {channels}) or (N, {channels}, {height}, {width})"
    if isinstance(images, Tensor):
        images = tensor("images", images, f"give {wanted}").detach().cpu().numpy()
    try:
        array = np.asarray(images)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(images, Sequence):
            raise InputError(f"the images, or their rows, differ in length: give {wanted}, all of one size.") from None
        raise InputError(f"images cannot be read as an array ({error}): give {wanted}.") from None
    if array.ndim >= 1 and len(array) == 0:
        raise InputError(f"images is empty: give at least one, as {wanted}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"the images hold NaN or infinite values: {REMEDY}.")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        raise InputError(f"the images are decimals ({array.dtype}, from {low:g} to {high:g}): {REMEDY}.")
    if array.dtype.kind not in "iu":
        kind = {"b": "truth values", "U": "text", "O": "of mixed types, or beyond 64 bits"}.get(array.dtype.kind, "no numbers")
        raise InputError(f"the images are {kind} ({array.dtype}): {REMEDY}.")
    if array.shape[1:] == (height, width, channels):
        array = array.transpose(0, 3, 1, 2)
    elif array.shape[1:] == (height, width) and channels == 1:
        array = array[:, None]
    elif array.shape[1:] != shape:
        raise InputError(f"images has the shape {array.shape}: give {wanted}{_hint(array.shape, shape)}.")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise InputError(f"the images hold values from {low} to {high}: {REMEDY}.")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint8).copy())


def _hint(given: tuple[int, ...], shape: tuple[int, int, int]) -> str:
    """What is probably meant by images of another shape."""
    channels, *size = shape
    if given in (shape, (*size, channels)) or (channels == 1 and given == tuple(size)):
        return "; one image is a batch of one"
    if channels == 3 and given[1:] in (tuple(size), (*size, 1), (1, *size)):
        return "; repeat a grey image three times"
    if channels == 3 and given[1:] in ((*size, 4), (4, *size)):
        return "; drop the alpha channel"
    if channels == 1 and given[1:] in ((*size, 3), (3, *size)):
        return "; the network takes grey images: convert the colour ones, such as with Pillow's image.convert('L')"
    return "; resize the images first" if len(given) == 4 and channels in (given[1], given[3]) else ""


def _channels(entry: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """A number for each channel, or one for all."""
    values = entry.get(name)
    if not (isinstance(values, list) and values and all(type(value) in (int, float) for value in values)):
        raise InputError(f"{name}={values!r} are not numbers, one for each channel.")
    return tuple(map(float, values))
