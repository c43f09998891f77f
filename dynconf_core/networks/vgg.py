"""VGG-16 with batch normalisation, average pools and a three-layer head.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv 1409.1556,
configuration D. Average pools replace the max pools, as conversion requires: the maximum of spike trains is not the spike train
of the maximum.
"""

from torch import Tensor, nn

from dynconf_core.networks.architecture import COLOURS, Activation, Architecture, scaled

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HEAD = 4096


class VGG(nn.Module):
    """Thirteen convolutions in five stages, each followed by a 2 x 2 average pool, and three linear layers.

    Args:
        classes: number of classes C.
        activation: makes the activation of one layer.
        width: factor on every layer's channels.
        resolution: side of the square input in pixels; after the five pools ``resolution // 32`` remain, which sets the size of
            the head.
        channels: of the images.
    """

    def __init__(self, classes: int, activation: Activation, width: float, resolution: int, channels: int = COLOURS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in STAGES:
            for full in stage:
                out = scaled(full, width)
                layers += [
                    nn.Conv2d(channels, out, 3, padding=1, bias=False),
                    nn.BatchNorm2d(out),
                    activation(),
                ]
                channels = out
            layers.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        side = resolution // 2 ** len(STAGES)
        hidden = scaled(HEAD, width)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, hidden),
            activation(),
            nn.Linear(hidden, hidden),
            activation(),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, channels, resolution, resolution)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _vgg16(*, stem: str, classes: int, resolution: int, width: float, activation: Activation, channels: int = COLOURS) -> VGG:
    """See ``Make``; there is only one stem."""
    return VGG(classes, activation, width, resolution, channels)


VGG16 = Architecture(_vgg16, smallest=2 ** len(STAGES))
