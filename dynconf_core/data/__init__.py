"""Data sets as plain tensors: digits, CIFAR-10, ImageNet and its stand-in; splits and augmentation."""
