"""Exit rules at equal accuracy: every measure, its threshold chosen on the calibration split for the same allowed drop."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynconf_core.arguments import instance, number, whole
from dynconf_core.choosing.candidates import CHOOSE, Candidate, calibration_scored, candidates
from dynconf_core.choosing.contest import Contest
from dynconf_core.choosing.cross_fitting import FOLDS, CrossFitted, cross_fitted_choice
from dynconf_core.choosing.entries import ComparisonRow, OwnThresholdRow, RuleRecord, recorded
from dynconf_core.confidence.measure import MeasureLike
from dynconf_core.errors import InputError
from dynconf_core.exit.judgement import Judgement, judged_exit
from dynconf_core.exit.rule import Rule
from dynconf_core.exit.shown import points
from dynconf_core.traces.schema import Traces
from dynconf_core.wording import told

DROPS = (0.0, 0.001, 0.005, 0.01)
MARK, MARKED = "*", "the sum of the logits is corrected by a readout for each time step."
CELL = 16
"""Width of a column of ``comparison_lines``."""
NAME, NARROW = 15, 13
"""Widths of the columns of ``table_lines``: all of them fit in 80 characters."""


@dataclass(frozen=True)
class Comparison:
    """Measures at equal accuracy.

    Attributes:
        time_steps: T.
        rows: one per measure and allowed drop, ordered by drop, then measure.
        mean_length: the mean number of steps of the test samples, if some end before T.
        own: the measures that propose a threshold themselves, at this threshold.
    """

    time_steps: int
    rows: tuple[ComparisonRow, ...]
    mean_length: float | None = None
    own: tuple[OwnThresholdRow, ...] = ()

    @property
    def full_steps_text(self) -> str:
        """The steps without exit."""
        return str(self.time_steps) if self.mean_length is None else f"{self.mean_length:.2f}"


def choose(found: Sequence[Candidate], calibration: Traces, max_drop: float, seed: int) -> tuple[Rule, CrossFitted]:
    """The rule among ``found`` with the fewest mean steps at an expected loss of at most ``max_drop``, and how it was
    chosen."""
    folds, scored = min(FOLDS, calibration.samples), calibration_scored(found, calibration)
    choice = cross_fitted_choice(scored, max_drop, folds, seed, lengths=calibration.lengths)
    return found[choice.index].rule(choice.threshold), choice


def judged(rule: Rule, traces: Traces, seed: int = 0) -> Judgement:
    """A rule evaluated on traces that were not used to choose it."""
    return judged_exit(rule.correct(traces), rule.exit_steps(traces), seed, lengths=traces.lengths)


FRACTIONS = "give accuracies that may be lost as fractions from 0 to 1, such as [0.0, 0.005]"


def compare(
    calibration: Traces,
    test: Traces,
    *,
    measures: Sequence[MeasureLike] | None = None,
    drops: Sequence[float] = DROPS,
    seed: int = 0,
    readout: str = CHOOSE,
) -> Comparison:
    """Every measure at every allowed drop.

    Args:
        calibration: the traces on which smoothing and threshold are chosen, with cross-fitting.
        test: the traces on which the rules are evaluated.
        measures: the measures to include; None: all known ones but rivals, which `MEASURES.names()` lists too.
        drops: the allowed drops of accuracy, as fractions.
        seed: of the folds and the bootstrap.
        readout: "plain", "decoded", or "choose" for the better of the two on calibration.

    Raises:
        InputError: for an unknown measure or readout, or if there are too few samples to fit any measure.
    """
    for name, given in (("calibration", calibration), ("test", test)):
        instance(name, given, Traces, "give Traces, as Traces.load(PATH) or collect(...) returns them")
    seed = checked_seed(measures, drops, seed)
    if measures is not None and not measures:
        raise InputError("measures=[]: give at least one, or None for all.")
    return compared(Contest(candidates(calibration, seed, measures, readout=readout), calibration, test, seed), drops)


def checked_seed(measures: Sequence[MeasureLike] | None, drops: Sequence[float], seed: int) -> int:
    """The seed; raises ``InputError`` for one that is none, or measures or drops that are no list."""
    for name, given in (("measures", measures), ("drops", drops)):
        if isinstance(given, str) or not (isinstance(given, Sequence) or (given is None and name == "measures")):
            raise InputError(f"{told(name, given)}: give a list of {name}.")
    for drop in drops:
        if not 0 <= number("drops", drop, FRACTIONS) <= 1:
            raise InputError(f"drops={drop}: {FRACTIONS}.")
    found = whole("seed", seed, "give a whole number from 0")
    if found < 0:
        raise InputError(f"seed={seed}: give a whole number from 0.")
    return found


def compared(contest: Contest, drops: Sequence[float] = DROPS) -> Comparison:
    """The comparison for a contest, which may already have made some of its choices."""
    rows = []
    for drop in drops:
        for measure in contest.measures:
            chosen = contest.choose(drop, measure)
            threshold = chosen.rule.threshold
            rows.append(
                ComparisonRow(
                    **recorded(chosen.rule, with_parameters=False),
                    name=f"{measure}_drop_{100 * drop:g}",
                    max_drop=drop,
                    calibration=chosen.choice.calibration,
                    cross_fitted=chosen.choice.cross_fitted,
                    test=contest.judged(chosen.index, threshold),
                    rival=chosen.rule.measure.rival,
                    coverage=contest.coverage(chosen.index, threshold),
                )
            )
    return Comparison(contest.test.time_steps, tuple(rows), contest.test.mean_length, _at_own_thresholds(contest))


def _at_own_thresholds(contest: Contest) -> tuple[OwnThresholdRow, ...]:
    """The measures that propose a threshold, each under the first of its smoothings."""
    rows: dict[str, OwnThresholdRow] = {}
    for index, candidate in enumerate(contest.found):
        measure, threshold = candidate.measure, candidate.measure.default_threshold
        if threshold is not None and measure.name not in rows:
            rows[measure.name] = OwnThresholdRow(
                **recorded(candidate.rule(threshold), with_parameters=False),
                test=contest.judged(index, threshold),
                rival=measure.rival,
                coverage=contest.coverage(index, threshold),
            )
    return tuple(rows.values())


def comparison_lines(found: Comparison) -> list[str]:
    """The comparison as lines of text: two lines per measure, one column per allowed drop. The first gives the mean steps on
    the test traces, the second the accuracy lost or gained there, in percentage points."""
    rows = found.rows
    if not rows:
        return []
    drops = list(dict.fromkeys(row.max_drop for row in rows))
    lines = ["rule".ljust(12) + "".join(_allowed(drop).rjust(CELL) for drop in drops)]
    for measure in dict.fromkeys(row.measure for row in rows):
        own = [next(row for row in rows if row.measure == measure and row.max_drop == drop) for drop in drops]
        lines.append(measure.ljust(12) + "".join(f"{row.test.mean_steps:.2f}{mark(row)}".rjust(CELL) for row in own))
        lines.append(" " * 12 + "".join(points(row.test.loss).rjust(CELL) for row in own))
    said = f"On the test traces: mean steps of {found.full_steps_text}; points of accuracy lost or gained."
    return [*lines, said, *_explained(rows)]


def table_lines(found: Comparison) -> list[str]:
    """The comparison at a glance: a line per measure, ours before rivals, a column per allowed drop, and last the measure's
    own threshold. A cell has the mean steps on the test traces and, in brackets, the points of accuracy lost there."""
    if not found.rows:
        return []
    drops = list(dict.fromkeys(row.max_drop for row in found.rows))
    heads = [*(f"{100 * drop:g}" for drop in drops), *(["by itself"] if found.own else [])]
    lines = [
        f"mean steps of {found.full_steps_text} (points of accuracy lost) where so many points may be lost:",
        "rule".ljust(NAME) + "".join(head.rjust(NARROW) for head in heads),
    ]
    cells = {(row.measure, row.max_drop): _cell(row) for row in found.rows}
    own = {row.measure: _cell(row) for row in found.own}
    kinds = dict.fromkeys((row.measure, row.rival) for row in found.rows)
    for heading, rival in (("this project's", False), ("rivals", True)):
        named = [measure for measure, is_rival in kinds if is_rival == rival]
        if not named:
            continue
        if any(is_rival for _, is_rival in kinds):
            lines.append(heading)
        for measure in named:
            columns = [cells[measure, drop] for drop in drops] + ([own.get(measure, "")] if found.own else [])
            lines.append(f"  {measure}".ljust(NAME) + "".join(f" {cell:>{NARROW - 1}}" for cell in columns).rstrip())
    lines.append("On the test traces; a gain is negative. Thresholds are chosen on calibration; by itself: a method's own one.")
    for row in found.own:
        if row.coverage is not None:
            lines.append(
                f"{row.measure} promises that {100 * row.threshold:g} % of its sets hold the true class: "
                f"{100 * row.coverage:.2f} % do at its own threshold."
            )
    return [*lines, *_explained(found.rows)]


def _cell(row: ComparisonRow | OwnThresholdRow) -> str:
    steps, lost = f"{row.test.mean_steps:.2f}{mark(row)}", 100 * row.test.loss + 0.0
    return f"{steps} ({lost:.2f})".replace("(-0.00)", "(0.00)")


def interval_lines(found: Comparison) -> list[str]:
    """The comparison in detail: one line per measure and allowed drop, with test accuracy and mean steps and their
    intervals."""
    lines = []
    for drop in dict.fromkeys(row.max_drop for row in found.rows):
        heading = f"{'accuracy, 95 %':>24}{f'mean steps of {found.full_steps_text}, 95 %':>25}{'points':>13}"
        lines.append(_allowed(drop).ljust(16) + heading)
        for row in found.rows:
            if row.max_drop != drop:
                continue
            test = row.test
            accuracy = ranged(100 * test.accuracy, [100 * end for end in test.accuracy_interval])
            steps = ranged(test.mean_steps, test.mean_steps_interval)
            lines.append(f"  {row.measure + mark(row):<14}{accuracy:>24}{steps:>25}{points(test.loss):>13}")
    said = "On the test traces; points of accuracy lost or gained against T. Thresholds chosen on calibration."
    return [*lines, said, *_explained(found.rows)]


def ranged(value: float, interval: Sequence[float]) -> str:
    """A figure with its interval, such as 86.65 (85.97 to 87.31)."""
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def mark(rule: RuleRecord) -> str:
    """The mark of a rule behind a readout."""
    return "" if rule.readout is None else MARK


def _explained(rows: Sequence[ComparisonRow]) -> list[str]:
    return [f"{MARK} {MARKED}"] if any(map(mark, rows)) else []


def _allowed(drop: float) -> str:
    return f"drop {100 * drop:g} point{'' if drop == 0.01 else 's'}"
