"""``python -m dynconf_core.training``: train the network of a setting with torch and numpy only, and write its checkpoint."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import torch

from dynconf_core.errors import InputError
from dynconf_core.experiment.overrides import parse
from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import Request
from dynconf_core.experiment.settings import names
from dynconf_core.machine import device, keep_freed_memory
from dynconf_core.training.loop import Diverged
from dynconf_core.training.run import train_to_file
from dynconf_core.training.speed import SpeedUps, allow_fast_arithmetic

EVERY = 10.0
"""Seconds between two lines of progress."""


class _Lines:
    """Prints a line of progress every few seconds."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY or done == total:
            self.last = now
            print(f"{now - self.start:7.0f} s  {done}/{total}  {text}", flush=True)


def main() -> int:
    """Parse the arguments, train, and write the checkpoint.

    Exit code 1 if the training diverges, 2 for invalid input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m dynconf_core.training", description=__doc__)
    parser.add_argument("--setting", required=True, help=f"{', '.join(names())}, or package.module:SETTING")
    parser.add_argument("--profile", default="smoke", help=", ".join(PROFILES))
    parser.add_argument(
        "--out", required=True, type=Path, help="the checkpoint to write; OUT.resume holds the state during training"
    )
    folder = Path(os.environ.get("DYNCONF_DATA", ".dynconf/data"))
    parser.add_argument(
        "--data", type=Path, default=folder, help="the folder of the data sets [DYNCONF_DATA, else .dynconf/data]"
    )
    recipe = "such as epochs=30, batch_size=256, width=0.5, levels=8; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides", help=recipe)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, shuffling and augmentation [0]")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:N")
    parser.add_argument(
        "--threads", type=int, default=None, help="torch threads on the CPU; the last digits of figures depend on them"
    )
    parser.add_argument(
        "--speed-ups", default="auto", help="auto (on a GPU by trial), none, or some of channels_last,autocast,compiled"
    )
    parser.add_argument("--half", action="store_true", help="write weights in half precision, which halves the file")
    given = parser.parse_args()
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    resume = given.out.with_name(given.out.name + ".resume")
    try:
        (plan,) = Request(given.profile, (given.setting,), parse(given.overrides), given.seed).plans()
        where = device(given.device)
        if where.type == "cuda":
            allow_fast_arithmetic()
        provenance = train_to_file(
            plan,
            data_root=given.data,
            device=where,
            out=given.out,
            resume=resume,
            progress=_Lines(),
            speed_ups=SpeedUps.named(given.speed_ups),
            half=given.half,
        )
        resume.unlink(missing_ok=True)  # otherwise the next run would resume this finished one
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes after the last saved epoch ({resume})", file=sys.stderr)
        return 130
    print(f"{given.out}: {plan.setting}, profile {plan.profile}, {provenance['record']['seconds']:.0f} s of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
