"""A Slurm cluster of one node in a folder of its own, from Debian's packages, as root and without cgroups."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONFIGURATION = """
ClusterName=dynconf
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES State=UP
"""
DEVICE = os.makedev(1, 3)
"""What stands for a GPU: the null device."""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"Slurm is not installed (no {', '.join(absent)}): apt-get install slurmctld slurmd slurm-client munge"
    return None if os.getuid() == 0 else "a Slurm daemon has to be started by root"


@dataclass
class Slurm:
    """The cluster; ``start`` and ``stop`` it.

    Attributes:
        folder: an empty folder with a path that is not long, for sockets lie in it.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def start(self) -> None:
        """Start the daemons and wait until the node is idle."""
        node = socket.gethostname().split(".")[0]
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        controller, daemon = _free_ports(2)
        text = CONFIGURATION.format(node=node, folder=self.folder, controller=controller, daemon=daemon)
        (self.folder / "slurm.conf").write_text(text)
        devices = [self.folder / f"gpu{number}" for number in range(2)]
        for device in devices:
            os.mknod(device, stat.S_IFCHR | 0o600, DEVICE)
        (self.folder / "gres.conf").write_text("".join(f"NodeName={node} Name=gpu File={device}\n" for device in devices))
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
        given = [f"--{name}={self.folder / file}" for name, file in {**files, "seed-file": "munged.seed"}.items()]
        for command in (["munged", "--force", *given], ["slurmctld", "-c"], ["slurmd", "-N", node]):
            self.run(*command)
        self.wait_until(lambda: "idle" in self.run("sinfo", "-h", "-o", "%t", check=False), "the node is idle")

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        with suppress(subprocess.CalledProcessError):
            self.run("scancel", "--user", "root")
            self.wait_until(lambda: not self.jobs(), "no jobs are left")
        found = []
        for name in ("slurmd", "slurmctld", "munged"):
            with suppress(OSError, ValueError, psutil.NoSuchProcess):
                process = psutil.Process(int((self.folder / f"{name}.pid").read_text()))
                process.send_signal(signal.SIGTERM)
                found.append(process)
        for process in psutil.wait_procs(found, timeout=10)[1]:
            process.kill()

    def run(self, *command: object, check: bool = True, **environment: str) -> str:
        """Run a program of Slurm; returns what it prints."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}"
        return done.stdout

    def submit(self, *arguments: object, **environment: str) -> str:
        """Submit a job; returns its number."""
        return self.run("sbatch", "--parsable", *arguments, **environment).strip()

    def jobs(self) -> list[str]:
        """The jobs that wait or run, each as JOB_TASK and its state."""
        return self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()

    def processes(self, argument: str) -> list[psutil.Process]:
        """The processes of tasks that have this argument."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                ours = process.environ().get("SLURM_CONF") == str(self.folder / "slurm.conf")
                if ours and argument in process.cmdline():
                    found.append(process)
        return found

    def wait_until(self, happened: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait until it returns something true."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end:
                logs = {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}
                raise TimeoutError(f"not within {seconds:.0f} s: {what}; {logs}")
            time.sleep(0.1)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found
