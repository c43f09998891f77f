"""Candidates compared on the same traces: which exits soonest at the same loss. Every score is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dynconf_core.choosing.candidates import Candidate, calibration_scored
from dynconf_core.choosing.cross_fitting import FOLDS, CrossFitted, Paths
from dynconf_core.choosing.paths import Scored
from dynconf_core.exit.front import Front, exact_front
from dynconf_core.exit.judgement import Judgement, judged_exit
from dynconf_core.exit.rule import Rule, exit_steps
from dynconf_core.traces.schema import Traces


@dataclass(frozen=True)
class Chosen:
    """A candidate with its threshold.

    Attributes:
        index: of the candidate among the given ones.
        rule: the exit rule.
        choice: how it was chosen.
    """

    index: int
    rule: Rule
    choice: CrossFitted


@dataclass(frozen=True, eq=False)
class Contest:
    """Candidates, the traces on which they are chosen, and those on which they are evaluated.

    Attributes:
        found: the candidates; at least one.
        calibration: the traces from which they were made: N samples.
        test: the traces for evaluation, not used for any choice: M samples.
        seed: of the folds and bootstraps.
    """

    found: Sequence[Candidate]
    calibration: Traces
    test: Traces
    seed: int = 0
    _chosen: dict[tuple[float, str | None], Chosen] = field(default_factory=dict, repr=False)
    _paths: dict[str | None, tuple[list[int], Paths]] = field(default_factory=dict, repr=False)
    _test_scored: dict[int, Scored] = field(default_factory=dict, repr=False)
    _judged: dict[tuple[int, float], Judgement] = field(default_factory=dict, repr=False)
    _coverage: dict[tuple[int, float], float | None] = field(default_factory=dict, repr=False)

    @property
    def measures(self) -> list[str]:
        """The names of the measures, each once, in the order of the candidates."""
        return list(dict.fromkeys(candidate.measure.name for candidate in self.found))

    @cached_property
    def scored(self) -> list[Scored]:
        """Each candidate on the calibration traces: its scores and whether its predictions are correct, both (N, T)."""
        return list(calibration_scored(self.found, self.calibration))

    def choose(self, max_drop: float, measure: str | None = None) -> Chosen:
        """The rule with the fewest mean steps at an expected loss of at most ``max_drop``, of one ``measure`` or among all."""
        key = (max_drop, measure)
        if key not in self._chosen:
            taking_part, paths = self._paths_of(measure)
            choice = paths.choice(max_drop)
            index = taking_part[choice.index]
            self._chosen[key] = Chosen(index, self.found[index].rule(choice.threshold), choice)
        return self._chosen[key]

    def _paths_of(self, measure: str | None) -> tuple[list[int], Paths]:
        """The candidates of one measure, or all, and their paths, which serve every allowed drop."""
        if measure not in self._paths:
            found = [place for place, one in enumerate(self.found) if measure is None or one.measure.name == measure]
            folds, scored = min(FOLDS, self.calibration.samples), (self.scored[place] for place in found)
            self._paths[measure] = found, Paths.of(scored, folds, self.seed, self.calibration.lengths)
        return self._paths[measure]

    def test_scored(self, index: int) -> Scored:
        """A candidate on the test traces: its scores and whether its predictions are correct, both (M, T)."""
        if index not in self._test_scored:
            self._test_scored[index] = self.found[index].scored(self.test)
        return self._test_scored[index]

    def test_front(self, index: int) -> Front:
        """Every operating point of a candidate on the test traces; for display only, never to choose from."""
        return exact_front(*self.test_scored(index), self.test.lengths)

    def exiting(self, index: int, threshold: float) -> NDArray[np.int64]:
        """(M,) the exit step of each test sample, counted from 1."""
        return exit_steps(self.test_scored(index)[0], threshold, self.test.lengths)

    def judged(self, index: int, threshold: float) -> Judgement:
        """A candidate's figures on the test traces at a threshold that was chosen without them."""
        key = (index, threshold)
        if key not in self._judged:
            correct, steps = self.test_scored(index)[1], self.exiting(index, threshold)
            self._judged[key] = judged_exit(correct, steps, self.seed, lengths=self.test.lengths)
        return self._judged[key]

    def coverage(self, index: int, threshold: float) -> float | None:
        """The share of test samples whose class is in the set at their exit, of a measure that predicts sets; else None."""
        key = (index, threshold)
        if key not in self._coverage:
            measure = self.found[index].measure
            self._coverage[key] = measure.coverage(self.test, self.exiting(index, threshold), threshold)
        return self._coverage[key]
