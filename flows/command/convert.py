"""``dynconf convert``: somebody's pretrained network into an SNN, with its report, and on request its traces."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import data_folder, home_folder, size_in_bytes
from dynconf_flows.command.options import Data, Debug, Device, print_json
from dynconf_flows.command.places import check_file, check_folder

REPORTED = 256
"""Images of the report, at most."""


def convert(
    architecture: Annotated[str, typer.Option(help="resnet20 to resnet110 (CIFAR), torchvision/NAME, package.module:OBJECT.")],
    checkpoint: Annotated[str, typer.Option(help="Its state dict; `default` for torchvision's own weights.")],
    out: Annotated[Path, typer.Option(help="The file to write, SNN.pt.")],
    thresholds: Annotated[str, typer.Option(help="Where they come from: learned, max, percentile or error.")] = "error",
    neurons: Annotated[str, typer.Option(help="auto, integrate-and-fire, signed, or package.module:Class.")] = "signed",
    levels: Annotated[int | None, typer.Option(help="n of signed neurons [default: 15, at most T].", min=1)] = None,
    time_steps: Annotated[int, typer.Option(help="T.", min=1)] = 32,
    correct: Annotated[bool, typer.Option(help="Correct biases, thresholds and initial potentials on the images.")] = True,
    images: Annotated[int, typer.Option(help="Training images that the conversion looks at, at most.", min=1)] = 1024,
    dataset: Annotated[
        str | None,
        typer.Option(help="cifar10, imagenette, imagenet, digits, package.module:OBJECT [default: the network's]."),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(metavar="NAME|M,M,M/S,S,S", help="That of a data set, or means/deviations [default: the network's]."),
    ] = None,
    percentile: Annotated[float, typer.Option(help="Of --thresholds percentile, in per cent.")] = 99.9,
    no_fixed_point: Annotated[
        bool, typer.Option("--no-fixed-point", help="Keep the weights as they are; float32 is then not exact.")
    ] = False,
    traces: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also run the calibration and test images; DIR/{calibration,test}.npz.")
    ] = None,
    device: Device = "auto",
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="What --traces may take on a CPU, such as 8GiB.")] = None,
    home: Annotated[str | None, typer.Option(help="Folder whose `data` holds the data sets [default: .dynconf].")] = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
    debug: Debug = False,
) -> None:
    """Convert a pretrained network into an SNN, say layer by layer how far it is from the ANN, and write it."""
    bound = None if memory is None else size_in_bytes(memory, "--memory")
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

    def load(split: str) -> Any:
        loaded: Any = images_of(asked_data, split, root)
        return replace(loaded, shorter_side=facts.shorter_side) if isinstance(loaded, FolderImages) else loaded

    held = load("calibration")
    if held.classes != facts.classes:
        raise InputError(
            f"--dataset {name} has {held.classes} classes, {architecture} {facts.classes}: name the data it was trained on."
        )
    expected = asked or facts.normalisation
    pixels, labels = _some(replace(held, normalisation=expected), images)
    console, wait = Console(stderr=as_json), Console(stderr=True)
    with _waiting(wait, "converting"):
        snn = converted(
            network,
            pixels,
            thresholds=thresholds,
            time_steps=time_steps,
            neurons=neurons,
            levels=min(15, time_steps) if neurons == "signed" and levels is None else levels,
            correct=correct,
            percentile=percentile,
            fixed_point=not no_fixed_point,
            image_limit=None if no_fixed_point else expected.limit(),
        )
    snn.to(where)
    network.to(where)
    if traces is not None:
        batch_size(snn, bound)  # too little memory is said before anything is written
    few = images_for_report(snn, REPORTED)
    with _waiting(wait, "comparing with the ANN"):
        report = conversion_report(snn, network, pixels[:few].to(where), time_steps, labels[:few])
    origin = {"architecture": architecture, "checkpoint": Path(checkpoint).name, "data": name}
    snn.facts |= {**origin, "images": len(pixels), "normalisation": vars(expected), "report": report.to_json()}
    save_snn(snn, out)
    if not as_json:
        console.print(str(report), highlight=False, markup=False, soft_wrap=True)
        _say(
            console,
            f"They are training images of {name}: whoever trained {origin['checkpoint']} may have used them, which flatters "
            "both accuracies" + (". " if traces else "; --traces DIR runs the test images. ") + f"SNN: {out}",
        )
    written = None
    if traces is not None:
        from dynconf_flows.command.convert_traces import write_traces

        with _waiting(wait, "simulating") as status:
            written = write_traces(
                snn,
                network,
                load,
                expected,
                traces,
                time_steps,
                device=where,
                memory=bound,
                facts={"source": f"dynconf convert, {architecture}, {origin['checkpoint']}", "network": architecture, **origin},
                progress=lambda split: lambda done, total, text: status.update(f"{split} traces: {text}"),
            )
        if not as_json:
            for split, figures in written.items():
                _say(console, _summary(split, figures, time_steps))
    if as_json:
        print_json({"schema": 2, "snn": str(out), **snn.facts, "traces": written})


def _network(architecture: str, checkpoint: str) -> Any:
    """The pretrained network, in evaluation mode."""
    from dynconf_core.networks.checkpoint import load_checkpoint
    from dynconf_core.networks.pretrained import architecture as network_called

    if checkpoint == "default":
        return network_called(architecture, weights="default")
    network = network_called(architecture)
    load_checkpoint(network, Path(checkpoint))
    return network.eval()


def _some(images: Any, count: int) -> tuple[Any, Any]:
    """Some images, normalised, and their labels; always the same ones."""
    import torch

    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images.normalisation(images.batch(chosen)), images.labels[chosen]


def _summary(split: str, figures: Mapping[str, Any], time_steps: int) -> str:
    """A line on a split's traces: the accuracies of the ANN and of the SNN after some numbers of steps."""
    marks = sorted({max(1, time_steps // part) for part in (8, 4, 2, 1)})
    curve = ", ".join(f"{100 * figures['accuracy_at_t'][mark - 1]:.2f} @ {mark}" for mark in marks)
    return f"{figures['file']}: {figures['samples']} {split} images, ANN {100 * figures['ann_accuracy']:.2f} %, SNN {curve}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


@contextmanager
def _waiting(console: Console, text: str) -> Iterator[Status]:
    """Shows on a terminal what takes its time; elsewhere it shows nothing."""
    status = console.status(text)
    if not console.is_terminal:
        yield status
        return
    with status:
        yield status


def normalisation_called(given: str | None) -> Any:
    """The ``Normalisation`` that ``--normalisation`` asks for, by name or as ``mean,mean,mean/std,std,std``; None for None.

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
        if len(mean) == len(std) == 3 and all(abs(part) < 1e4 for part in mean) and all(1e-4 < part < 1e4 for part in std):
            return Normalisation(mean, std)
    except ValueError:
        pass
    raise InputError(
        f"--normalisation {given}: give a data set ({', '.join(DATASETS.names())}), or three means and deviations, "
        "0.5,0.5,0.5/0.2,0.2,0.2."
    )
