"""Convert a trained network and collect both splits, into CHECKPOINT's name with the ending .tar: traces, conversion report.

    python benchmarks/gpu_collect.py --setting cifar10-resnet18-qcfs --profile paper --data DATA --device cuda --checkpoint FILE

The traces are those that the stages of the pipeline record, made without it; ``--set`` as there. ``--trained`` is the network
before fine-tuning, whose accuracy is recorded as the ANN's.
"""

import argparse
import json
import shutil
import tarfile
from pathlib import Path

import torch

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.report import conversion_report
from dynconf_core.data.images import limit
from dynconf_core.experiment.images import facts_of_traces, images_of
from dynconf_core.experiment.overrides import parse
from dynconf_core.experiment.request import Request
from dynconf_core.networks.checkpoint import load_checkpoint
from dynconf_core.schemes.network import described
from dynconf_core.simulation.collect import collect


def main() -> None:
    """Parse the arguments, convert and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--setting", "--profile", "--device"):
        parser.add_argument(name, required=True)
    parser.add_argument("--set", action="append", default=[])
    for name in ("--data", "--checkpoint"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    given = parser.parse_args()
    (plan,) = Request(given.profile, (given.setting,), parse(given.set), 0, given.device, None, str(given.data)).plans()
    ann, converted = described(plan.network(), plan.seed), described(plan.network(), plan.seed)
    provenance = load_checkpoint(ann, given.trained or given.checkpoint)
    after = load_checkpoint(converted, given.checkpoint)
    images = images_of(plan.data, "calibration", given.data)
    few = images.normalisation(images.batch(torch.arange(min(len(images), plan.scheme.images))))
    conversion = plan.scheme.conversion(plan.time_steps)
    snn = convert(
        converted.eval(), few, **conversion, time_steps=plan.time_steps, fixed_point=plan.fixed_point, image_limit=limit(images)
    )
    shown = torch.arange(min(64, len(images)))
    pixels = images.normalisation(images.batch(shown))
    report = conversion_report(snn, converted, pixels, plan.time_steps, images.labels[shown])
    stem = given.checkpoint.stem
    files = {"conversion.txt": f"{report}\n", "training.json": json.dumps(after, indent=1) + "\n"}
    for name, text in files.items():
        given.checkpoint.with_name(f"{stem}-{name}").write_text(text)
    for split in ("calibration", "test"):
        folder = given.checkpoint.with_name(f"{stem}-{split}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        of_split = images_of(plan.data, split, given.data)
        facts = facts_of_traces(plan, split, provenance)
        traces = collect(
            snn.to(given.device), ann.to(given.device), of_split, plan.time_steps, folder, device=given.device, facts=facts
        )
        accuracy = 100 * traces.correct().mean(axis=0)
        print(f"{split}: " + ", ".join(f"{value:.2f} @ {step}" for step, value in enumerate(accuracy, 1)), flush=True)
    partial = given.checkpoint.with_name(f"{stem}.tar.partial")
    with tarfile.open(partial, "w:xz", preset=1) as tar:
        for name in (*files, "calibration", "test"):
            tar.add(given.checkpoint.with_name(f"{stem}-{name}"), f"{stem}-{name}")
    partial.replace(given.checkpoint.with_name(f"{stem}.tar"))


if __name__ == "__main__":
    main()
