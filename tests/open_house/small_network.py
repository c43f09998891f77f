"""An architecture from outside: three convolutions and a linear layer."""

from torch import nn

from dynconf_core.networks.architecture import Activation, Architecture, scaled


def _make(*, stem: str, classes: int, resolution: int, width: float, activation: Activation) -> nn.Module:
    channels = scaled(64, width)

    def block(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), activation(), nn.AvgPool2d(2)]

    side = resolution // 8
    return nn.Sequential(*block(3), *block(channels), *block(channels), nn.Flatten(), nn.Linear(channels * side**2, classes))


SMALL = Architecture(_make, smallest=8)
