"""The points of a study: those of a list, or those that Optuna chooses from the figures of the points before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, cast

from dynconf_core.experiment.points import Range
from dynconf_core.schemes.field import Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Values = Mapping[str, Value]
SETTING = "setting"
"""The field of a point that names its setting, besides the swept fields."""


@dataclass(frozen=True)
class Objective:
    """What a study shows and optimises: a figure of the calibration split, by its name for people, and its direction."""

    figure: Literal["accuracy", "mean_steps"]
    name: str
    direction: Literal["minimize", "maximize"]


ACCURACY = Objective("accuracy", "accuracy with exit (calibration)", "maximize")
MEAN_STEPS = Objective("mean_steps", "mean steps at the promised loss (calibration)", "minimize")


class Points(Protocol):
    """The points of a study, numbered from 0."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """What the study optimises."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The values that each field may take."""

    def __len__(self) -> int: ...

    def known(self, index: int) -> Values | None:
        """The values of a point's fields, if they are known before it is taken."""

    def values(self, index: int, earlier: Sequence[FrozenTrial]) -> Values:
        """The values of a point's fields, given the trials of the points before it, in their order."""


@dataclass(frozen=True)
class Listed:
    """The points of a grid, or the settings of a reproduction."""

    points: Sequence[Values]
    objectives: Sequence[Objective] = (ACCURACY, MEAN_STEPS)

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The values that each field may take."""
        return {field: _containing([point[field] for point in self.points]) for field in self.points[0]}

    def __len__(self) -> int:
        return len(self.points)

    def known(self, index: int) -> Values | None:
        """The values of a point's fields."""
        return self.points[index]

    def values(self, index: int, earlier: Sequence[FrozenTrial]) -> Values:
        """The values of a point's fields."""
        return self.points[index]


@dataclass(frozen=True)
class Chosen:
    """``count`` points that Optuna's TPE sampler chooses from ``ranges``.

    Each point is chosen by a sampler seeded with the point's number, from the figures of the points before it. One participant
    alone, which takes one point after the other, therefore asks for the same points whenever the study is run again. Several do
    not wait for each other's figures, so that their points depend on who was faster.
    """

    ranges: Sequence[Range]
    count: int
    seed: int
    objectives: Sequence[Objective] = (ACCURACY, MEAN_STEPS)

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The values that each field may take."""
        return {one.field: _distribution(one) for one in self.ranges}

    def __len__(self) -> int:
        return self.count

    def known(self, index: int) -> Values | None:
        """None: the values depend on the figures of the points before."""
        return None

    def values(self, index: int, earlier: Sequence[FrozenTrial]) -> Values:
        """The values of a point's fields, given the trials of the points before it."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=(self.seed * 1_000_003 + index) % 2**32)
        study = optuna.create_study(directions=[one.direction for one in self.objectives], sampler=sampler)
        study.add_trials([self._copy(trial) for trial in earlier])
        return cast(Values, study.ask(dict(self.distributions)).params)

    def _copy(self, trial: FrozenTrial) -> FrozenTrial:
        import optuna

        return optuna.trial.create_trial(
            state=trial.state,
            values=trial.values if trial.state == optuna.trial.TrialState.COMPLETE else None,
            params=trial.params,
            distributions=dict(self.distributions),
        )


def _containing(values: Sequence[Value]) -> BaseDistribution:
    """Numbers as a range, since Optuna writes all choices of a category into each trial."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds = {type(value) for value in values}
    if kinds == {int}:
        return IntDistribution(min(map(int, values)), max(map(int, values)))
    if kinds == {float} and all(math.isfinite(float(value)) for value in values):
        return FloatDistribution(min(map(float, values)), max(map(float, values)))
    return CategoricalDistribution(tuple(dict.fromkeys(values)))


def _distribution(one: Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.choices:
        return CategoricalDistribution(one.choices)
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high)
    return FloatDistribution(one.low, one.high, log=one.field in ("alpha", "learning_rate"))
