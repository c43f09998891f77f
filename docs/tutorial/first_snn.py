"""
Tutorial: an SNN of your own that stops early
=============================================

From a plain PyTorch network to a spiking neural network (SNN) that answers as soon as it is confident. Install dynconf
with what an analysis needs, ``pip install '.[analysis]'`` in a checkout. The data are the handwritten digits that
scikit-learn ships. The page takes about half a minute on a laptop, and was run to make the figures that you see.
"""

# %%
# A trained network
# -----------------
#
# Any network of convolutions, linear layers, batch normalisation, pools, additions and ReLU-like activations will do.
# The digits are split into three: images to train on, *calibration* images that choose when to stop, and *test*
# images that judge.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from dynconf_core import (
    ExitAgent,
    Normalisation,
    TensorImages,
    analyse,
    collect,
    conversion_report,
    convert,
    run_until_confident,
)

torch.manual_seed(0)
torch.set_num_threads(1)

data = load_digits()
grey = torch.from_numpy(data.images / 16 * 255).to(torch.uint8)
pixels, labels = grey[:, None].expand(-1, 3, -1, -1), torch.from_numpy(data.target).long()
digits = TensorImages(pixels, labels, 10, Normalisation((0.3,) * 3, (0.37,) * 3))
parts = torch.randperm(len(digits)).split([700, 600, 497])
training, calibration, test = (digits.subset(part) for part in parts)

ann = nn.Sequential(
    nn.Conv2d(3, 24, 3, padding=1),
    nn.BatchNorm2d(24),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(24, 48, 3, padding=1),
    nn.BatchNorm2d(48),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(48, 10),
)
inputs = training.normalisation(training.pixels)
optimiser = torch.optim.Adam(ann.parameters(), lr=5e-3)
for _ in range(12):
    for batch in torch.randperm(len(training)).split(50):
        optimiser.zero_grad()
        nn.functional.cross_entropy(ann(inputs[batch]), training.labels[batch]).backward()
        optimiser.step()
ann.eval()

# %%
# The SNN
# -------
#
# Every ReLU becomes a layer of spiking neurons. Their thresholds are found from training images, and small errors are
# corrected layer by layer. The report says how far the SNN is from the network it was made of, and where it would go
# wrong.

TIME_STEPS = 16
snn = convert(
    ann,
    inputs,
    thresholds="error",
    time_steps=TIME_STEPS,
    neurons="signed",
    levels=7,
    correct=True,
)
print(conversion_report(snn, ann, inputs[:200], TIME_STEPS, training.labels[:200]))

# %%
# Its outputs over time
# ---------------------
#
# *Traces* hold what the SNN puts out at every time step: ``logits`` of the shape (N, T, C). Its answer after t steps
# is read from their sum up to t. Everything from here on needs the traces alone, whichever simulator they come from.

facts = {"trained_on_calibration": False}
known = collect(snn, ann, calibration, TIME_STEPS, facts=facts)
unseen = collect(snn, ann, test, TIME_STEPS)
print(unseen.logits.shape)

figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(range(1, TIME_STEPS + 1), 100 * unseen.correct().mean(axis=0), "o-")
axes.set(xlabel="time steps, the same for all images", ylabel="test accuracy in %")
figure.tight_layout()

# %%
# When to stop
# ------------
#
# A fixed number of steps wastes most of them on easy images. ``analyse`` chooses a measure of confidence, its
# temperature and a threshold on the calibration traces, such that no accuracy is lost in expectation, and judges the
# rule on the test traces.

analysis = analyse(known, unseen)
rule = analysis.rule
steps = rule.exit_steps(unseen)
print(rule)
print(f"{steps.mean():.2f} of {TIME_STEPS} time steps on average")

figure, axes = plt.subplots(figsize=(6, 3.2))
axes.bar(*np.unique(steps, return_counts=True))
axes.set(xlabel="exit step", ylabel="test images", xlim=(0, TIME_STEPS + 1))
figure.tight_layout()

# %%
# Live
# ----
#
# On traces all steps were simulated and the exit was read off afterwards. ``run_until_confident`` really stops:
# images that exit leave the batch, and new ones take their places. It stops exactly where the traces say.

exits = run_until_confident(snn, ExitAgent(rule), test, TIME_STEPS)
assert (exits.steps == steps).all()
full, early = unseen.correct()[:, -1].mean(), (exits.predictions == unseen.labels).mean()
print(f"test accuracy {full:.2%} after all {TIME_STEPS} time steps")
print(f"test accuracy {early:.2%} after {exits.steps.mean():.2f} time steps on average")

# %%
# Which images are easy, and which are hard?

order = np.argsort(steps, kind="stable")
figure, rows = plt.subplots(2, 8, figsize=(8, 2.6))
ends = {"easiest": order[:8], "hardest": order[-8:]}
for row, (name, chosen) in zip(rows, ends.items(), strict=True):
    for axes, image in zip(row, chosen, strict=True):
        axes.imshow(255 - test.pixels[image].permute(1, 2, 0))
        axes.set(xticks=[], yticks=[], title=f"step {steps[image]}")
        axes.title.set_size(9)
    row[0].set_ylabel(name)
figure.tight_layout()

# %%
# Further
# -------
#
# - ``analysis.rule.save("rule.json")`` writes the rule, ``save_snn(snn, "snn.pt")`` the network.
# - ``known.save("calibration.npz")`` and ``unseen.save("test.npz")`` write the traces; ``dynconf analyse
#   calibration.npz --test test.npz`` then makes the whole analysis, with figures, intervals and, if asked for, a
#   guarantee.
# - :doc:`/concepts` explains what was chosen, and how; :doc:`/howto/network` what converts.
