"""ResNet-18, -34 and -50 with the CIFAR or the ImageNet stem.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. The max pool of the stem is replaced by
a 3 x 3 average pool that counts its padding, in the ANN and thus in the SNN. In a bottleneck the stride is on the 3 x 3
convolution, as in torchvision.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from dynconf_core.networks.architecture import COLOURS, Activation, Architecture, scaled

PLANES = (64, 128, 256, 512)


@dataclass(frozen=True)
class Depth:
    """The number of blocks in each of the four stages, and whether they are bottlenecks."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


DEPTHS = {
    "resnet18": Depth((2, 2, 2, 2), bottleneck=False),
    "resnet34": Depth((3, 4, 6, 3), bottleneck=False),
    "resnet50": Depth((3, 4, 6, 3), bottleneck=True),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """``activation(body(x) + shortcut(x))``; there is no neuron between the last convolution of the body and the sum."""

    def __init__(self, inputs: int, planes: int, stride: int, bottleneck: bool, activation: Activation) -> None:
        super().__init__()
        self.outputs = planes * 4 if bottleneck else planes
        if bottleneck:
            self.body = nn.Sequential(
                *_convolution(inputs, planes, 1),
                activation(),
                *_convolution(planes, planes, 3, stride),
                activation(),
                *_convolution(planes, self.outputs, 1),
            )
        else:
            self.body = nn.Sequential(
                *_convolution(inputs, planes, 3, stride),
                activation(),
                *_convolution(planes, self.outputs, 3),
            )
        same = stride == 1 and inputs == self.outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, self.outputs, 1, stride))
        self.activation = activation()
        if bottleneck:  # the branch starts at zero; otherwise a ResNet-50 trains badly
            nn.init.zeros_(self.last_norm.weight)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """See ``dynconf_core.networks.start.Residual``."""
        last = self.body[-1]
        assert isinstance(last, nn.BatchNorm2d)
        return last

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """A residual network of a given depth.

    Args:
        depth: a key of ``DEPTHS``.
        stem: "cifar" (a 3 x 3 convolution) or "imagenet" (7 x 7 with stride 2, then the pool).
        classes: number of classes C.
        activation: makes the activation of one layer.
        width: factor on every layer's channels.
        inputs: channels of the images.
    """

    def __init__(
        self, depth: str, stem: str, classes: int, activation: Activation, width: float, inputs: int = COLOURS
    ) -> None:
        super().__init__()
        plan = DEPTHS[depth]
        channels = scaled(PLANES[0], width)
        if stem == "cifar":
            self.stem = nn.Sequential(*_convolution(inputs, channels, 3), activation())
        else:
            pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=True)
            self.stem = nn.Sequential(*_convolution(inputs, channels, 7, 2), activation(), pool)
        blocks: list[Block] = []
        for stage, (full, count) in enumerate(zip(PLANES, plan.blocks, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(channels, scaled(full, width), stride, plan.bottleneck, activation))
                channels = blocks[-1].outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, inputs, H, W)``."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits


def _resnet(depth: str) -> Architecture:
    def make(
        *, stem: str, classes: int, resolution: int, width: float, activation: Activation, channels: int = COLOURS
    ) -> ResNet:
        return ResNet(depth, stem, classes, activation, width, channels)

    return Architecture(make)


RESNET18, RESNET34, RESNET50 = (_resnet(depth) for depth in DEPTHS)
