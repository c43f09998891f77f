"""Which of torchvision's reference classification networks become SNNs, and why the others do not."""

CONVERTIBLE = (
    "alexnet",
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2"),
    *("regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf"),
    *("resnet101", "resnet152", "resnet18", "resnet34", "resnet50"),
    *("resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "wide_resnet101_2", "wide_resnet50_2"),
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
    *("squeezenet1_0", "squeezenet1_1"),
    *("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
)
"""Names of networks of torchvision 0.28 that convert, without "torchvision/"."""
_LOADED_OTHERWISE = (
    "torchvision renames its weights or transforms its input while loading them; build it in Python, and give it to "
    "dynconf_core.convert"
)
_GATED = "it multiplies activations with each other (SiLU or Hardswish, squeeze-and-excitation)"
_ATTENTION = "it is made of attention, LayerNorm and GELU"
REASONS = {
    "convnext": "it is made of LayerNorm and GELU",
    "densenet": _LOADED_OTHERWISE,
    "efficientnet": f"{_GATED}; EfficientNet-Lite is the same without these",
    "googlenet": _LOADED_OTHERWISE,
    "inception": _LOADED_OTHERWISE,
    "maxvit": _ATTENTION,
    "mobilenet_v3": f"{_GATED}; mobilenet_v2 does without",
    "regnet_y": f"{_GATED}; regnet_x is the same without",
    "swin": _ATTENTION,
    "vit": _ATTENTION,
}
"""Why networks whose names begin so cannot be had by name."""


def reason(name: str) -> str | None:
    """Why torchvision's network ``name`` cannot be had, if that is known."""
    return next((why for family, why in REASONS.items() if name.startswith(family)), None)
