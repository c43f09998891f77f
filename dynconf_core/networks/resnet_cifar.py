"""The CIFAR residual networks: ResNet-20, -32, -44, -56 and -110 for images of 32 x 32 pixels.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, section 4.2 and table 6: a 3 x 3
convolution, three stages of n basic blocks with 16, 32 and 64 channels, a global average pool and one linear layer; 6n + 2
weighted layers. Shortcuts are option A: where a stage halves the image, every other pixel is taken and the missing channels are
filled with zeros, so that no shortcut has parameters.

Layers are named as in the widely used checkpoints (``conv1``, ``bn1``, ``layer1.0.conv1`` ... ``linear``).
"""

from torch import Tensor, flatten, nn
from torch.nn.functional import pad

from dynconf_core.data.folder import NORMALISATION as IMAGENET
from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import COLOURS, Activation, Architecture, Published, scaled

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
PLANES = (16, 32, 64)


class OptionA(nn.Module):
    """The shortcut without parameters: every ``stride``-th pixel, and zeros for the missing channels.

    Half of the new channels are put before the old ones and half after them, as in the published checkpoints.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.behind = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return pad(kept, (0, 0, 0, 0, self.before, self.behind))


class BasicBlock(nn.Module):
    """``activation(bn2(conv2(activation(bn1(conv1(x))))) + shortcut(x))``."""

    def __init__(self, inputs: int, planes: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        same = stride == 1 and inputs == planes
        self.shortcut = nn.Identity() if same else OptionA(inputs, planes, stride)
        self.activation2 = activation()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """See ``dynconf_core.networks.start.Residual``."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, planes, H / stride, W / stride)``."""
        inner = self.activation1(self.bn1(self.conv1(x)))
        result: Tensor = self.activation2(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return result


class CifarResNet(nn.Module):
    """A residual network of ``depth`` = 6n + 2 weighted layers.

    Args:
        depth: one of ``CIFAR_DEPTHS``.
        classes: number of classes C.
        activation: makes the activation of one layer; the published networks use ReLU.
        width: factor on every layer's channels (1 is the published network).
        inputs: channels of the images.

    Raises:
        InputError: for another depth.
    """

    def __init__(
        self, depth: int, classes: int = 10, activation: Activation = nn.ReLU, width: float = 1.0, inputs: int = COLOURS
    ) -> None:
        super().__init__()
        if depth not in CIFAR_DEPTHS:
            raise InputError(f"depth={depth}: the CIFAR ResNets have {', '.join(map(str, CIFAR_DEPTHS))} layers.")
        first, second, third = (scaled(planes, width) for planes in PLANES)
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(inputs, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.activation = activation()
        self.layer1 = _stage(first, first, blocks, 1, activation)
        self.layer2 = _stage(first, second, blocks, 2, activation)
        self.layer3 = _stage(second, third, blocks, 2, activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, inputs, H, W)``."""
        hidden = self.activation(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.linear(flatten(self.pool(hidden), 1))
        return logits


def _stage(inputs: int, planes: int, blocks: int, stride: int, activation: Activation) -> nn.Sequential:
    first = BasicBlock(inputs, planes, stride, activation)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1, activation) for _ in range(blocks - 1)))


def _cifar_resnet(depth: int) -> Architecture:
    """The widely used checkpoints were trained with ImageNet's mean and standard deviation."""

    def make(
        *, stem: str, classes: int, resolution: int, width: float, activation: Activation, channels: int = COLOURS
    ) -> CifarResNet:
        return CifarResNet(depth, classes, activation, width, channels)

    return Architecture(make, published=Published(10, 32, 32, IMAGENET))


RESNET20, RESNET32, RESNET44, RESNET56, RESNET110 = (_cifar_resnet(depth) for depth in CIFAR_DEPTHS)
