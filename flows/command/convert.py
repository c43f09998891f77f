"""``dynconf convert``: convert a pretrained network into an SNN, report on the conversion, and optionally write traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import check_file, check_folder, data_folder, home_folder, size_in_bytes
from dynconf_core.progress import Progress
from dynconf_core.results.records import plain
from dynconf_flows.command.converted_images import OF_THE_DATA, Material, check_fit, material, normalisation_called, some
from dynconf_flows.command.converted_network import Subject, subject
from dynconf_flows.command.options import Data, Debug, Device, print_json
from dynconf_flows.command.terminal import Terminal

REPORTED = 256
"""The most images in the report."""
CHANCE = 1.5
"""An accuracy below so many times that of guessing calls for a warning."""


def convert(
    out: Annotated[Path, typer.Option(help="The SNN file to write, e.g. SNN.pt.")],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="resnet20 to resnet110 (CIFAR), torchvision/NAME (an AlexNet, MNASNet, MobileNetV2, RegNetX, ResNet, ResNeXt, "
            "ShuffleNetV2, SqueezeNet, VGG or Wide ResNet) or package.module:OBJECT."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Instead: your own function without arguments that makes the network."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The file of its weights, or `default` for torchvision's [default: with --network, as it is made]."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="KEY", help="Where in a file of several state dicts, e.g. ema [default: the first].")
    ] = None,
    thresholds: Annotated[str, typer.Option(help="Source of the thresholds: learned, max, percentile or error.")] = "error",
    neurons: Annotated[
        str, typer.Option(help="Neuron model: auto, integrate-and-fire, signed or package.module:Class.")
    ] = "signed",
    levels: Annotated[
        int | None, typer.Option(help="Levels n of signed neurons [default: 15, at most T; from T = 25 on 5/8 of T].", min=1)
    ] = None,
    time_steps: Annotated[int, typer.Option(help="Number of time steps T.", min=1)] = 32,
    correct: Annotated[
        bool, typer.Option(help="Correct thresholds, biases and initial membrane potentials after conversion.")
    ] = True,
    images: Annotated[int, typer.Option(help="The most training images used for the conversion.", min=1)] = 1024,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10, imagenette, imagenet, digits, package.module:OBJECT, or the path of your own: a folder of images by "
            "class, an .npz or a folder of idx files [default: the network's]."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side to which your own images are brought [default: the network's, or theirs].", min=1)
    ] = None,
    channels: Annotated[int | None, typer.Option(help="3 repeats your own grey images.", min=1)] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|M,.../S,...",
            help="A data set's, means/standard deviations, or `data` [default: the network's, or pixels in 0 to 1].",
        ),
    ] = None,
    percentile: Annotated[float, typer.Option(help="For --thresholds percentile, in per cent.")] = 99.9,
    no_fixed_point: Annotated[
        bool, typer.Option("--no-fixed-point", help="Do not round the weights; float32 is then not exact.")
    ] = False,
    traces: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write DIR/calibration.npz and DIR/test.npz.")] = None,
    traces_limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="With --traces: N images a split, drawn at random [default: all].", min=1),
    ] = None,
    device: Device = "auto",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory limit of the process on a CPU, e.g. 8GiB [default: none].")
    ] = None,
    home: Annotated[
        str | None, typer.Option(help="Folder whose `data` holds the data sets [default: $DYNCONF_HOME or .dynconf].")
    ] = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the report as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Convert a pretrained network, or one of your own, into an SNN.

    Reports layer by layer how far the SNN deviates from the ANN.
    """
    limit = None if memory is None else size_in_bytes(memory, "--memory")
    normalisation_called(None if normalisation == OF_THE_DATA else normalisation)  # raises for what cannot be
    check_file(out, "--out")
    if traces is not None:
        check_folder(traces, "--traces")
    elif traces_limit is not None:
        raise InputError(f"--limit {traces_limit} is of the traces: give --traces DIR, too, or --images for the conversion.")
    from dynconf_core.conversion.convert import convert as converted
    from dynconf_core.conversion.file import save_snn
    from dynconf_core.conversion.report import conversion_report, images_for_report
    from dynconf_core.data.images import limit as image_limit
    from dynconf_core.machine import device as device_called
    from dynconf_core.machine import keep_freed_memory
    from dynconf_core.simulation.footprint import batch_size

    keep_freed_memory()
    console, wait = Terminal(stderr=as_json), Terminal(stderr=True)
    where = device_called(device)
    given = subject(architecture, network, checkpoint, weights, lambda text: _say(wait, text))
    found = material(given, dataset, normalisation, size, channels, data_folder(data, home_folder(home)))
    held = found.load("calibration")
    check_fit(given, held, found)
    pixels, labels = some(held, images)
    with _waiting(wait, "converting") as status:
        snn = converted(
            given.network,
            pixels,
            thresholds=thresholds,
            time_steps=time_steps,
            neurons=neurons,
            levels=_levels(neurons, levels, time_steps),
            correct=correct,
            percentile=percentile,
            fixed_point=not no_fixed_point,
            image_limit=None if no_fixed_point else image_limit(held),
            memory=limit,
            progress=_shown(status),
        )
    snn.to(where)
    given.network.to(where)
    if traces is not None:
        batch_size(snn, limit)  # raises if memory is too small, before anything is written
    few = images_for_report(snn, REPORTED)
    with _waiting(wait, "comparing with the ANN") as status:
        report = conversion_report(
            snn, given.network, pixels[:few].to(where), time_steps, labels[:few], memory=limit, progress=_shown(status)
        )
    origin = {"architecture": given.name, "checkpoint": given.checkpoint, "data": found.name}
    facts = {"images": len(pixels), "normalisation": found.normalisation.as_json(), "report": report.to_json()}
    snn.facts |= {**origin, **facts}
    save_snn(snn, out)
    if not as_json:
        _say(console, found.summary(held))
        console.print(str(report), soft_wrap=True)
        if "wide" in snn.facts:
            count = f"{len(snn.facts['wide'])} of {len(snn.graph.nodes)} nodes"
            _say(console, f"{count} are computed in float64, since float32 cannot hold their sums exactly.")
        if "warning" in snn.facts.get("rounding", {}):
            _say(console, f"Warning: {snn.facts['rounding']['warning']}")
        _say(console, _remark(given, found, traces is None) + f" SNN: {out}")
        if report.ann_accuracy is not None and report.ann_accuracy < CHANCE / held.classes:
            _say(console, f"Warning: {_at_chance(report.ann_accuracy)}")
    written = None
    if traces is not None:
        from dynconf_flows.command.convert_traces import write_traces

        with _waiting(wait, "simulating") as status:
            written = write_traces(
                snn,
                given.network,
                found.load,
                traces,
                time_steps,
                limit=traces_limit,
                memory=limit,
                facts={"source": f"dynconf convert, {given.name}, {given.weights}", "network": given.name, **origin},
                progress=lambda split: lambda done, total, text: status.update(f"{split} traces: {text}"),
            )
        if not as_json:
            for split, one in written.items():
                _say(console, one.summary(split))
    if as_json:
        samples = {"samples": dict(found.sizes), "split": found.rule}
        print_json({"schema": 2, "snn": str(out), **snn.facts, **samples, "traces": plain(written)})


def _levels(neurons: str, levels: int | None, time_steps: int) -> int | None:
    """``--levels``, or the default of a neuron model that has levels: 15, at most T, or 5/8 of T, whichever is more."""
    from dynconf_core.conversion.options import AUTO
    from dynconf_core.neurons.model import NEURONS

    if levels is not None or neurons == AUTO:
        return levels
    has_levels = "levels" in (field.name for field in fields(NEURONS.get(neurons)))
    return max(min(15, time_steps), 5 * time_steps // 8) if has_levels else None


def _remark(given: Subject, found: Material, more: bool) -> str:
    """What the accuracies of the report are worth; ``more`` says how to find better ones."""
    told = f"These are training images of {found.name}: if {given.weights} was trained on them, both accuracies are too high"
    return f"{told}; --traces DIR evaluates the test images." if more else f"{told}."


def _at_chance(accuracy: float) -> str:
    return (
        f"the ANN's accuracy of {100 * accuracy:.2f} % is hardly better than chance: are these its weights (--checkpoint), and "
        "are the images normalised as in training (--normalisation)?"
    )


def _shown(status: Status) -> Progress:
    """Progress as the text of a status."""
    return lambda done, total, text: status.update(f"{text} ({done} of {total})")


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
