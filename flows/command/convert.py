"""``dynconf convert``: convert a pretrained network into an SNN, report on the conversion, and optionally write traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.status import Status

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import check_file, check_folder, data_folder, home_folder, size_in_bytes
from dynconf_core.results.records import plain
from dynconf_flows.command.options import Data, Debug, Device, print_json
from dynconf_flows.command.terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynconf_core.data.images import Images, Normalisation, Split

REPORTED = 256
"""The most images in the report."""


def convert(
    architecture: Annotated[
        str, typer.Option(help="resnet20 to resnet110 (CIFAR), torchvision/NAME or package.module:OBJECT.")
    ],
    checkpoint: Annotated[str, typer.Option(help="The file of its state dict, or `default` for torchvision's weights.")],
    out: Annotated[Path, typer.Option(help="The SNN file to write, e.g. SNN.pt.")],
    thresholds: Annotated[str, typer.Option(help="Source of the thresholds: learned, max, percentile or error.")] = "error",
    neurons: Annotated[
        str, typer.Option(help="Neuron model: auto, integrate-and-fire, signed or package.module:Class.")
    ] = "signed",
    levels: Annotated[int | None, typer.Option(help="Levels n of signed neurons [default: 15, at most T].", min=1)] = None,
    time_steps: Annotated[int, typer.Option(help="Number of time steps T.", min=1)] = 32,
    correct: Annotated[
        bool, typer.Option(help="Correct thresholds, biases and initial membrane potentials after conversion.")
    ] = True,
    images: Annotated[int, typer.Option(help="The most training images used for the conversion.", min=1)] = 1024,
    dataset: Annotated[
        str | None,
        typer.Option(help="cifar10, imagenette, imagenet, digits or package.module:OBJECT [default: the network's]."),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(metavar="NAME|M,.../S,...", help="A data set's, or means/standard deviations [default: the network's]."),
    ] = None,
    percentile: Annotated[float, typer.Option(help="For --thresholds percentile, in per cent.")] = 99.9,
    no_fixed_point: Annotated[
        bool, typer.Option("--no-fixed-point", help="Do not round the weights; float32 is then not exact.")
    ] = False,
    traces: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write DIR/calibration.npz and DIR/test.npz.")] = None,
    device: Device = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory limit for --traces on a CPU, e.g. 8GiB [default: none].")
    ] = None,
    home: Annotated[
        str | None, typer.Option(help="Folder whose `data` holds the data sets [default: $DYNCONF_HOME or .dynconf].")
    ] = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the report as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Convert a pretrained network into an SNN.

    Reports layer by layer how far the SNN deviates from the ANN.
    """
    limit = None if memory is None else size_in_bytes(memory, "--memory")
    asked = normalisation_called(normalisation)
    check_file(out, "--out")
    if traces is not None:
        check_folder(traces, "--traces")
    from dynconf_core.conversion.convert import convert as converted
    from dynconf_core.conversion.file import save_snn
    from dynconf_core.conversion.report import conversion_report, images_for_report
    from dynconf_core.data.dataset import DATASETS
    from dynconf_core.data.folder import FolderImages
    from dynconf_core.experiment.images import images_of
    from dynconf_core.experiment.plan import Data as DataOfPlan
    from dynconf_core.machine import device as device_called
    from dynconf_core.machine import keep_freed_memory
    from dynconf_core.networks.pretrained import pretrained
    from dynconf_core.simulation.footprint import batch_size

    keep_freed_memory()
    facts = pretrained(architecture)
    name = dataset or ("cifar10" if facts.resolution == 32 else "imagenet")
    chosen, root, where = DATASETS.get(name), data_folder(data, home_folder(home)), device_called(device)
    network = _network(architecture, checkpoint)
    try:
        chosen.check(root)
    except OSError as error:
        raise InputError(f"data set {name!r} cannot be read in {root}: {error}.") from error
    held_out, trained = chosen.calibration, chosen.train - chosen.calibration
    asked_data = DataOfPlan(name, None, facts.resolution, trained, held_out, chosen.classes, chosen.stem)

    expected = asked or facts.normalisation

    def load(split: Split) -> Images:
        loaded: Any = images_of(asked_data, split, root)
        more = {"shorter_side": facts.shorter_side} if isinstance(loaded, FolderImages) else {}
        found: Images = replace(loaded, normalisation=expected, **more)
        return found

    held = load("calibration")
    if held.classes != facts.classes:
        raise InputError(
            f"--dataset {name} has {held.classes} classes, but {architecture} {facts.classes}: name the data it was trained on."
        )
    pixels, labels = _some(held, images)
    console, wait = Terminal(stderr=as_json), Terminal(stderr=True)
    with _waiting(wait, "converting"):
        snn = converted(
            network,
            pixels,
            thresholds=thresholds,
            time_steps=time_steps,
            neurons=neurons,
            levels=_levels(neurons, levels, time_steps),
            correct=correct,
            percentile=percentile,
            fixed_point=not no_fixed_point,
            image_limit=None if no_fixed_point else expected.limit(),
        )
    snn.to(where)
    network.to(where)
    if traces is not None:
        batch_size(snn, limit)  # raises if memory is too small, before anything is written
    few = images_for_report(snn, REPORTED)
    with _waiting(wait, "comparing with the ANN"):
        report = conversion_report(snn, network, pixels[:few].to(where), time_steps, labels[:few])
    origin = {"architecture": architecture, "checkpoint": Path(checkpoint).name, "data": name}
    snn.facts |= {**origin, "images": len(pixels), "normalisation": expected.as_json(), "report": report.to_json()}
    save_snn(snn, out)
    if not as_json:
        console.print(str(report), soft_wrap=True)
        _say(
            console,
            f"These are training images of {name}: if {origin['checkpoint']} was trained on them, both accuracies are too high"
            + (". " if traces else "; --traces DIR evaluates the test images. ")
            + f"SNN: {out}",
        )
    written = None
    if traces is not None:
        from dynconf_flows.command.convert_traces import write_traces

        with _waiting(wait, "simulating") as status:
            written = write_traces(
                snn,
                network,
                load,
                traces,
                time_steps,
                memory=limit,
                facts={"source": f"dynconf convert, {architecture}, {origin['checkpoint']}", "network": architecture, **origin},
                progress=lambda split: lambda done, total, text: status.update(f"{split} traces: {text}"),
            )
        if not as_json:
            for split, one in written.items():
                _say(console, one.summary(split))
    if as_json:
        print_json({"schema": 2, "snn": str(out), **snn.facts, "traces": plain(written)})


def _levels(neurons: str, levels: int | None, time_steps: int) -> int | None:
    """``--levels``, or 15 (at most T) for a neuron model that has levels."""
    from dynconf_core.conversion.options import AUTO
    from dynconf_core.neurons.model import NEURONS

    if levels is not None or neurons == AUTO:
        return levels
    return min(15, time_steps) if "levels" in (field.name for field in fields(NEURONS.get(neurons))) else None


def _network(architecture: str, checkpoint: str) -> nn.Module:
    """The pretrained network, in evaluation mode."""
    from dynconf_core.networks.checkpoint import load_checkpoint
    from dynconf_core.networks.pretrained import architecture as network_called

    if checkpoint == "default":
        return network_called(architecture, weights="default")
    network = network_called(architecture)
    load_checkpoint(network, Path(checkpoint))
    return network.eval()


def _some(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """A fixed random choice of normalised images, and their labels."""
    import torch

    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images.normalisation(images.batch(chosen)), images.labels[chosen]


def _say(console: Terminal, text: str) -> None:
    console.print(text, soft_wrap=not console.is_terminal)


@contextmanager
def _waiting(console: Terminal, text: str) -> Iterator[Status]:
    """Show a status while the block runs, if the console is a terminal."""
    status = console.status(text)
    if not console.is_terminal:
        yield status
        return
    with status:
        yield status


def normalisation_called(given: str | None) -> Normalisation | None:
    """The value of ``--normalisation``: a data set's name, or ``mean,.../std,...`` with one of each for all channels or one of
    each a channel; None for None.

    Raises:
        InputError: for another name, another form, or numbers out of range.
    """
    if given is None:
        return None
    from dynconf_core.data.dataset import DATASETS
    from dynconf_core.data.images import Normalisation

    if given in DATASETS.names() or ":" in given:
        return DATASETS.get(given).normalisation
    try:
        mean, std = (tuple(float(part) for part in half.split(",")) for half in given.split("/"))
        if len(mean) == len(std) and all(abs(part) < 1e4 for part in mean) and all(1e-4 < part < 1e4 for part in std):
            return Normalisation(mean, std)
    except ValueError:
        pass
    raise InputError(
        f"--normalisation {given}: give a data set ({', '.join(DATASETS.names())}), or means and standard deviations, one of "
        "each for all channels or one of each a channel, such as 0.5/0.2 or 0.5,0.5,0.5/0.2,0.2,0.2."
    )
