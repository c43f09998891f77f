"""The Pareto front of a sweep's points, chosen on the calibration split: choosing on test figures would flatter them."""

from collections.abc import Sequence
from dataclasses import replace

from dynconf_core.results.types import AnyPoint, SweepPoint


def with_front(points: Sequence[AnyPoint]) -> tuple[AnyPoint, ...]:
    """The points, with those marked that are on the Pareto front of their setting.

    A point is on the front if no other point of its setting is at least as good in both accuracy and mean steps on the
    calibration split, and better in one.
    """
    finished = [point for point in points if isinstance(point, SweepPoint)]

    def beaten(point: SweepPoint) -> bool:
        return any(
            other.setting == point.setting
            and other.calibration_accuracy >= point.calibration_accuracy
            and other.calibration_mean_steps <= point.calibration_mean_steps
            and (other.calibration_accuracy, other.calibration_mean_steps)
            != (point.calibration_accuracy, point.calibration_mean_steps)
            for other in finished
        )

    return tuple(replace(point, on_front=not beaten(point)) if isinstance(point, SweepPoint) else point for point in points)
