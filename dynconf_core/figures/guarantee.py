"""Figure of a guarantee: the accuracy lost by each candidate threshold, and the loss up to which it is certified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynconf_core.choosing.guarantee import Guarantee
from dynconf_core.figures.canvas import BLUE, GREY, INK, PALE, VERMILLION, canvas, label, legend_below
from dynconf_core.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def guarantee_figure(guarantee: Guarantee, time_steps: float, title: str, subtitle: str = "") -> Figure:
    """Accuracy lost (points) against mean steps: the measured loss, the largest certified loss, and the certified threshold.

    Args:
        guarantee: the guarantee, with its tests.
        time_steps: T, or the mean length of the guarantee samples.
        title: the name of the setting.
        subtitle: the profile and what the data stand in for.
    """
    tests = guarantee.tests
    figure, axes = canvas(title, subtitle)
    steps = np.concatenate(([time_steps], tests.mean_steps))
    in_points = 100.0 / guarantee.samples
    lost = np.concatenate(([0.0], (tests.lost - tests.gained) * in_points))
    certifying = np.where(tests.most_lost >= 0, (tests.most_lost - tests.gained) * in_points, np.nan)
    epsilon = 100.0 * guarantee.epsilon
    if guarantee.certified:
        axes.axvspan(guarantee.mean_steps, time_steps, color=PALE, alpha=0.45, linewidth=0.0, zorder=0)
    axes.axhline(
        epsilon,
        color=GREY,
        linewidth=1.2,
        linestyle=(0, (5, 3)),
        label=f"guaranteed: at most {counted(epsilon, 'point', form='.4g')}",
        zorder=1,
    )
    top = max(1.6 * epsilon, 1.25 * float(lost[: tests.passed + 1].max()))
    bottom = max(min(0.0, float(lost.min())), -5.0 * epsilon)
    in_view = certifying >= bottom  # also false where no loss is certified
    if in_view.any():
        sure = f"{100 * (1 - guarantee.delta):.4g} %"
        axes.plot(
            tests.mean_steps,
            np.where(in_view, certifying, np.nan),
            color=VERMILLION,
            linewidth=1.8,
            marker="o" if in_view.sum() == 1 else None,
            label=f"largest measured loss that is certified with {sure} confidence",
            zorder=2,
        )
    axes.plot(steps, lost, color=BLUE, linewidth=2.2, label=f"measured on {guarantee.samples} samples", zorder=3)
    axes.plot(
        guarantee.mean_steps,
        (guarantee.lost - guarantee.gained) * in_points,
        linestyle="none",
        marker="o" if guarantee.certified else "X",
        markersize=10.5,
        markerfacecolor="none" if guarantee.certified else INK,
        markeredgecolor=INK,
        markeredgewidth=2.2,
        clip_on=False,
        label=f"certified: {guarantee.mean_steps:.2f} mean steps" if guarantee.certified else "nothing certified: never exit",
        zorder=4,
    )
    axes.set_ylim(bottom - 0.06 * (top - bottom), top)
    left = float(steps[lost <= top].min())
    axes.set_xlim(left - 0.02 * (time_steps - left), time_steps + 0.02 * (time_steps - left) + 1e-9)
    label(axes, "Mean latency (time steps)", "Accuracy lost against T (points)")
    legend_below(figure, axes)
    return figure
