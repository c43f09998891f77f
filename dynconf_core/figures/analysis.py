"""All figures of an analysis."""

from typing import TYPE_CHECKING

from dynconf_core.confidence.smoothing import Smoothing
from dynconf_core.evaluation.analysis import Analysis
from dynconf_core.evaluation.record import Bins, Reliability
from dynconf_core.exit.oracles import oracle_curve
from dynconf_core.exit.robustness import MEASURE
from dynconf_core.figures.accuracy import accuracy_against_latency, exit_histogram
from dynconf_core.figures.guarantee import guarantee_figure
from dynconf_core.figures.reliability import reliability_figure
from dynconf_core.figures.robustness import robustness_figure
from dynconf_core.figures.rules import rules_figure
from dynconf_core.traces.schema import Traces

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def analysis_figures(analysis: Analysis, test: Traces, title: str, source: str) -> dict[str, "Figure"]:
    """The matplotlib figures of an analysis, by name.

    Args:
        analysis: the analysis; if it has a guarantee, there is a figure of that as well.
        test: the test traces.
        title: the name of the traces.
        source: what was run, for the subtitle.
    """
    record, correct = analysis.record, analysis.rule.correct(test)
    subtitle = f"{source}; {test.samples} test sample{'s'[: test.samples != 1]}".removeprefix("; ")
    chosen, reliability = record.rule, record.reliability
    found = {
        "accuracy_against_latency": accuracy_against_latency(
            record.accuracy_at_t.test,
            analysis.test_fronts[chosen.measure],
            record.oracles.test.points(),
            record.exit,
            title,
            subtitle,
            record.ann_accuracy,
            oracle_curve(correct),
            record.steps_at_t,
        ),
        "rules": rules_figure(
            analysis.test_fronts,
            {entry.measure: entry.test for entry in record.rules},
            float(correct[:, -1].mean()),
            test.time_steps,
            title,
            subtitle,
        ),
        "exit_histogram": exit_histogram(
            record.exit.histogram, record.exit.mean_steps, title, subtitle, mean_length=test.mean_length
        ),
        "robustness": robustness_figure(analysis.robustness, title, subtitle, _place_on_the_map(analysis)),
        "reliability": reliability_figure(
            _series(reliability, test.time_steps), title, subtitle, _confidence(reliability.smoothing)
        ),
    }
    if analysis.guarantee is not None:
        found["guarantee"] = guarantee_figure(analysis.guarantee, analysis.guarantee.full_steps, title, source)
    return found


def _place_on_the_map(analysis: Analysis) -> tuple[float, float] | None:
    """Threshold and alpha of the chosen rule, if it is a rule of the robustness map and within its range."""
    rule, seen = analysis.record.rule, analysis.robustness
    if rule.readout is not None or rule.measure != MEASURE.name or rule.smoothing.form != seen.form:
        return None
    threshold = analysis.rule.measure.shown(analysis.rule.threshold)
    inside = (
        seen.thresholds[0] <= threshold <= seen.thresholds[-1] and seen.alphas[0] <= rule.smoothing.alpha <= seen.alphas[-1]
    )
    return (threshold, rule.smoothing.alpha) if inside else None


def _confidence(smoothing: Smoothing) -> str:
    """The label of the confidence axis: the softmax whose reliability is shown."""
    divisor = {"sum": "{alpha:.3g}", "mean": "({alpha:.3g} t)", "power": "({alpha:.3g} t^{exponent:.2g})"}[smoothing.form]
    return f"Confidence: largest softmax of z / {divisor.format(alpha=smoothing.alpha, exponent=smoothing.exponent)}"


def _series(reliability: Reliability, time_steps: int) -> dict[str, tuple[Bins, float | None]]:
    """The first and the last reliability diagram and the one at the exit, each with its expected calibration error."""
    diagrams, errors = reliability.diagrams, reliability.ece_at_t
    first = min(int(name) for name in diagrams if name != "exit")
    found: dict[str, tuple[Bins, float | None]] = {}
    if first != time_steps:
        found[f"at step {first}"] = diagrams[str(first)], errors[first - 1]
    found[f"at T = {time_steps}"] = diagrams[str(time_steps)], errors[time_steps - 1]
    found["at the exit"] = diagrams["exit"], reliability.ece_at_exit
    return found
