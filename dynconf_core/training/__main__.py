"""Train the network of a setting with torch and numpy only: into a home, where the pipeline finds it, or into a file.

python -m dynconf_core.training --setting NAME                                     by one process
torchrun --nproc-per-node 4 -m dynconf_core.training --setting NAME                by four, each with a share of every batch
python -m dynconf_core.training --fine-tune --setting NAME --set fine_tune_epochs=2     trained, then fine-tuned as an SNN
"""

import argparse
import logging
import os
import signal
import sys
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import torch

from dynconf_core.errors import InputError
from dynconf_core.experiment.effect import check_effect
from dynconf_core.experiment.overrides import parse
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import Request, check_data, check_writable
from dynconf_core.experiment.settings import names
from dynconf_core.machine import keep_freed_memory
from dynconf_core.progress import Progress
from dynconf_core.training.epochs import Diverged
from dynconf_core.training.fine_tuned import fine_tune_to_file
from dynconf_core.training.processes import Agreed, Processes
from dynconf_core.training.run import train_to_file
from dynconf_core.training.speed import SpeedUps, allow_fast_arithmetic
from dynconf_core.training.stored import fine_tune_into_store, train_into_store

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


class _Quiet:
    """Prints nothing, in the other processes."""

    def __call__(self, done: int, total: int, text: str) -> None:
        pass


def main() -> int:
    """Parse the arguments and train.

    Exit code 1 if the training diverges or another process is lost, 2 for invalid input, 128 + signal if interrupted.
    """
    keep_freed_memory()
    try:
        processes = Processes.joined()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO if processes.first else logging.ERROR, format="%(message)s")
    _heed_signals(processes)
    orderly = True
    """Whether all processes come to the end, so that they can wait for each other there."""
    try:
        done = _train(_given(processes), processes)
        if processes.first:
            print(done)
        return 0
    except Agreed as error:
        if processes.first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except Diverged as error:
        if processes.first:
            print(f"failed: {error}", file=sys.stderr, flush=True)
        return 1
    except InputError as error:
        orderly = False
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        orderly = False
        print("interrupted; the same command resumes after the last saved epoch", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except SystemExit:
        raise
    except BaseException as error:
        orderly = False
        if processes.count > 1 and isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)):
            lost = str(error).splitlines()[0]
            print(f"failed: process {processes.rank} of {processes.count} lost the others ({lost})", file=sys.stderr)
            return 1
        raise
    finally:
        processes.leave(orderly)


def _given(processes: Processes) -> argparse.Namespace:
    """The arguments; faults are printed by one process."""
    parser = argparse.ArgumentParser(
        prog="python -m dynconf_core.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", required=True, help=f"{', '.join(names())}, or package.module:SETTING")
    parser.add_argument("--profile", default="smoke", help=", ".join(PROFILES))
    parser.add_argument("--home", help="the home whose stage train is made [DYNCONF_HOME, else .dynconf]")
    parser.add_argument("--out", type=Path, help="write a checkpoint instead; OUT.resume holds the state during training")
    parser.add_argument(
        "--fine-tune",
        action="store_true",
        help="after training, fine-tune as an SNN, as --set fine_tune_epochs=N says",
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="with --fine-tune and --out: the trained network, which is then not trained here"
    )
    parser.add_argument("--data", help="the folder of the data sets [DYNCONF_DATA, else data in the home]")
    recipe = "such as epochs=30, batch_size=256 (of all processes together), width=0.5, levels=8; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides", help=recipe)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, shuffling and augmentation [0]")
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda (each process takes one), cuda:N"
    )
    parser.add_argument(
        "--threads", type=int, help="torch threads of each process on the CPU; the last digits of figures depend on them"
    )
    parser.add_argument(
        "--speed-ups",
        default="auto",
        help="auto (on a GPU by trial), none, or some of channels_last,autocast,compiled,cuda_graphs",
    )
    parser.add_argument("--half", action="store_true", help="write weights in half precision into OUT, which halves the file")
    with open(os.devnull, "w") as nowhere:
        quiet = not processes.first
        with redirect_stdout(nowhere) if quiet else nullcontext(), redirect_stderr(nowhere) if quiet else nullcontext():
            return parser.parse_args()


def _train(given: argparse.Namespace, processes: Processes) -> str:
    """Train, and say what has come of it."""
    request, plan, where = processes.checked(lambda: _checked(given, processes))
    processes.same(command=[plan.as_dict(), given.speed_ups, given.half], torch=str(torch.__version__))
    context, progress = request.context(), _Lines() if processes.first else _Quiet()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    elif processes.count == 1 and given.out is None:  # as the pipeline does, for the same bits
        context.prepare()
    if where.type == "cuda":
        allow_fast_arithmetic()
    speed_ups = SpeedUps.named(given.speed_ups)
    if given.out is None:
        made, now = train_into_store(plan, context, processes, device=where, progress=progress, speed_ups=speed_ups)
        if made is None:
            return ""
        facts = made.manifest["provenance"].get("facts", {})
        what = f"{facts.get('record', {}).get('seconds', 0):.0f} s of training" if now else "in the store already"
        by = facts.get("processes", 1)
        trained = f"{made.folder}: {plan.setting}, profile {plan.profile}, by {by} process{'es' * (by > 1)}, {what}"
        if not given.fine_tune:
            return trained
        tuned, now = fine_tune_into_store(plan, context, made, device=where, progress=progress, speed_ups=speed_ups)
        seconds = tuned.manifest["provenance"].get("facts", {}).get("record", {}).get("seconds", 0)
        what = f"{seconds:.0f} s" if now else "in the store already"
        return f"{trained}\n{tuned.folder}: {plan.setting}, {plan.fine_tuning}, {what}"
    if given.fine_tune:
        return _fine_tuned(given, plan, context.data, where, progress, speed_ups)
    resume = given.out.with_name(given.out.name + ".resume")
    provenance = train_to_file(
        plan,
        data_root=context.data,
        device=where,
        out=given.out,
        resume=resume,
        progress=progress,
        speed_ups=speed_ups,
        half=given.half,
        processes=processes,
    )
    if processes.first:
        resume.unlink(missing_ok=True)  # otherwise the next run would resume this finished one
    return f"{given.out}: {plan.setting}, profile {plan.profile}, {provenance['record']['seconds']:.0f} s of training"


def _fine_tuned(
    given: argparse.Namespace, plan: Plan, data: Path, where: torch.device, progress: Progress, speed_ups: SpeedUps | None
) -> str:
    """Train into OUT.trained, unless ``--checkpoint`` names what is trained, and fine-tune that into OUT."""
    out: Path = given.out
    trained: Path = given.checkpoint or out.with_name(out.name + ".trained")
    states = [trained.with_name(trained.name + ".resume"), out.with_name(out.name + ".resume")]
    if given.checkpoint is None:  # a finished training is read from its state
        train_to_file(plan, data_root=data, device=where, out=trained, resume=states[0], progress=progress, speed_ups=speed_ups)
    facts = fine_tune_to_file(
        plan,
        trained,
        data_root=data,
        device=where,
        out=out,
        resume=states[1],
        progress=progress,
        speed_ups=speed_ups,
        half=given.half,
    )
    for state in states[given.checkpoint is not None :]:
        state.unlink(missing_ok=True)
    seconds = facts["record"]["seconds"]
    return f"{out}: {plan.setting}, profile {plan.profile}, {plan.fine_tuning}, {seconds:.0f} s; from {trained}"


def _checked(given: argparse.Namespace, processes: Processes) -> tuple[Request, Plan, torch.device]:
    """The request, its plan and this process's device, once all has been checked that can be in seconds."""
    values = parse(given.overrides)
    request = Request(given.profile, (given.setting,), values, given.seed, given.device, given.home, given.data)
    (plan,) = request.plans()
    check_effect([((plan,), request.values((plan,)))])
    SpeedUps.named(given.speed_ups)
    if given.threads is not None and given.threads < 1:
        raise InputError(f"threads={given.threads}: give at least 1.")
    if given.out is None and given.half:
        raise InputError("--half rounds the weights, which the stage train does not: give --out FILE too.")
    if given.out is not None and given.home is not None:
        raise InputError(f"--out {given.out} and --home {given.home} are given: give one of them.")
    if given.fine_tune and not plan.fine_tuning:
        raise InputError("--fine-tune needs the number of epochs: --set fine_tune_epochs=2.")
    if plan.fine_tuning and not given.fine_tune:
        raise InputError(
            f"fine_tune_epochs={plan.fine_tuning.epochs} without --fine-tune, so that nothing would be fine-tuned: give both, "
            "or leave the field out."
        )
    if given.fine_tune and processes.count > 1:
        raise InputError("--fine-tune is done by one process: train by several, then fine-tune without torchrun.")
    if given.checkpoint is not None and not (given.fine_tune and given.out):
        raise InputError(f"--checkpoint {given.checkpoint} is what is fine-tuned: give --fine-tune and --out FILE too.")
    if given.checkpoint is not None and not given.checkpoint.is_file():
        raise InputError(f"--checkpoint {given.checkpoint} does not exist: name the file that a training wrote.")
    if given.checkpoint is not None and given.out.exists() and given.out.samefile(given.checkpoint):
        raise InputError(f"--out {given.out} is --checkpoint, which would be lost: name another file.")
    processes.share(plan.recipe.batch_size)
    if given.out is None and processes.first:
        check_writable(request.context().home)
        check_data([plan], request.context().data)
    return request, plan, processes.device(given.device)


def _heed_signals(processes: Processes) -> None:
    """SIGTERM stops the first process as Ctrl-C does; the others, which have nothing to put in order, end at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if processes.first:
        signal.signal(signal.SIGTERM, stop)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
