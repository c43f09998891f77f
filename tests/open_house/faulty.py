"""Settings from outside that go wrong while they train in a process of their own, as long as NAME.fault lies beside them."""

import os
import signal
import sys
import time
from pathlib import Path

from mine import SETTING
from torch import Tensor, nn

from dynconf_core.experiment.settings import Setting
from dynconf_core.networks.architecture import Activation, Architecture, scaled

HERE = Path(__file__).resolve().parent


class Faulty(nn.Module):
    """Passes images on, or does what its name says."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        if self.training and (HERE / f"{self.name}.fault").exists() and "dynconf_flows.workers.worker" in sys.orig_argv:
            if self.name == "raises":
                raise ArithmeticError("a fault made by the test")
            if self.name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return images


def _named(name: str) -> tuple[Architecture, Setting]:
    def make(*, stem: str, classes: int, resolution: int, width: float, activation: Activation) -> nn.Module:
        channels = scaled(64, width)
        first = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        layers = [Faulty(name), first, nn.BatchNorm2d(channels), activation(), nn.AvgPool2d(4), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(channels * (resolution // 4) ** 2, classes))

    setting = Setting(
        name=name,
        dataset=SETTING.dataset,
        architecture=f"faulty:{name.upper()}_NETWORK",
        method=SETTING.method,
        recipes=SETTING.recipes,
    )
    return Architecture(make, smallest=8), setting


FINE_NETWORK, FINE = _named("fine")
RAISES_NETWORK, RAISES = _named("raises")
KILLED_NETWORK, KILLED = _named("killed")
HANGS_NETWORK, HANGS = _named("hangs")
