"""The report of an analysis of traces: the panels of one setting, the rules compared, and the guarantee, if there is one."""

from __future__ import annotations

from collections.abc import Mapping

from dynconf_core.choosing.guarantee import Guarantee
from dynconf_core.evaluation.curves import Curves
from dynconf_core.evaluation.record import AnalysisRecord, GuaranteeEntry
from dynconf_core.exit.front import Front, thinned
from dynconf_core.exit.shown import exit_text, points_in_words, saved_in_words, threshold_text
from dynconf_core.report import network_panels, panels
from dynconf_core.report.closing import closing, facts
from dynconf_core.report.content import Cell, Figure, Item, Missing, Report, Section, Table
from dynconf_core.report.palette import ANSWERS, DROPS
from dynconf_core.report.wording import between, number, percent
from dynconf_core.results.environment import environment
from dynconf_core.wording import counted

UNKNOWN = "analysis.json does not hold what is drawn here; `dynconf report TRACES.npz` draws it from the traces"


def analysis_report(
    name: str,
    source: str,
    record: AnalysisRecord,
    curves: Curves | None,
    fronts: Mapping[str, Front],
    command: str = "",
    guarantee: Guarantee | None = None,
) -> Report:
    """The report of an analysis.

    Args:
        name: the name of the traces.
        source: what was run, according to the traces.
        record: its content.
        curves: those of the chosen rule on the test traces; None if the traces are not at hand.
        fronts: by measure, all operating points on the test traces; may be empty.
        command: what analysed them.
        guarantee: the guarantee with its tests; None if they are not at hand.
    """
    found, fixed, oracle = record.exit, record.baseline("iso_accuracy"), record.oracles.test.first_correct
    fewer = f"{percent(found.latency_saving, 0)} % fewer, {points_in_words(found.loss)}"
    headline = f"with {number(found.mean_steps)} of {record.full_steps_text} time steps: {fewer}"
    chosen = record.guarantee.calibration if record.guarantee is not None else record.calibration
    rule = record.guarantee or record.rule
    details = [
        f"{record.rule.measure}: {exit_text('score', rule.threshold, rule.threshold_shown)}, "
        f"{'certified' if record.guarantee else 'chosen'} on {chosen:,} calibration samples and judged on {record.test:,} "
        "test samples.",
        f"Against the first fixed step as accurate as T, step {fixed.time_steps}: "
        f"{saved_in_words(fixed.latency_saving, 0)}. An oracle would need {number(oracle.mean_steps)} steps.",
    ]
    if record.guarantee is not None:
        details.append(_promise(record.guarantee))
    missing: list[Item] = [Missing(f"{UNKNOWN}.")]
    sections = [
        Section(
            "Accuracy against latency",
            [
                panels.latency(curves, record.accuracy_at_t.test, found, fixed, steps_at_t=record.steps_at_t),
                panels.histogram(found, what="samples"),
            ],
            "Every threshold of the chosen rule, beside an SNN that always stops at a fixed step and the best that an "
            "exit which knows the labels could do with so many steps (not the oracle above: see the "
            "glossary). Left and up is better. " + panels.CHANCE,
        ),
        Section(
            "Rules",
            [_rules(record), *_fronts(record, fronts)],
            "The best rule of each confidence measure, chosen on the calibration traces and judged on the test traces.",
        ),
        Section(
            "Rules at equal accuracy",
            [panels.rules(record.comparison, record.time_steps), panels.losses(record.comparison)],
            "What each measure takes and loses where so many points may be lost in expectation. Colours: what may be lost. The "
            "chosen rule's measure may have other figures here: a choice among the candidates of all measures has to be more "
            "careful than one among those of a single measure.",
            legend=DROPS,
        ),
        *([_guarantee(record.guarantee, guarantee, record)] if record.guarantee is not None else []),
        Section(
            "Easy and hard samples",
            [panels.images(curves, {}, what="sample")] if curves is not None else missing,
            "The four test samples that exit first and the four that exit last. A cell is a time step: the fuller its "
            "colour, the closer the confidence is to the threshold. Black line: the exit, with its step and, if it is wrong, "
            "the answer.",
            legend=ANSWERS,
        ),
        Section(
            "The chosen rule",
            [
                panels.rule_table(
                    record.rule, "", "As it was chosen, before certifying" if record.guarantee else "The exit rule"
                ),
                *network_panels.by_class(record.by_class, ()),
                panels.baselines(record.baselines, found.mean_steps),
            ],
        ),
        Section("Reliability", _reliability(record)),
        Section(
            "Robustness",
            network_panels.robustness(curves, record.robustness, record.accuracy_at_t.test[-1])
            if curves is not None
            else missing,
        ),
        Section(
            "Energy",
            network_panels.energy(
                record.energy,
                record.multiply_accumulates,
                record.synaptic_operations_per_inference,
                record.spikes_per_inference,
            ),
        ),
        *closing(environment() if command else None, command, ""),
    ]
    title = " · ".join(part for part in (name, source) if part)
    return Report(title, f"{percent(found.accuracy)} %", headline, details, "", record.warnings, sections)


def _rules(record: AnalysisRecord) -> Table:
    headings = ("rule", "smoothing", "threshold", "accuracy", "95 %", "steps", "95 %", "lost", "95 %")
    rows, values = [], list[list[Cell]]()
    for place, entry in enumerate(record.rules):
        test = entry.test
        rows.append(
            [
                entry.measure + (" *" if place == record.chosen else ""),
                str(entry.smoothing),
                threshold_text(entry.threshold, entry.threshold_shown),
                percent(test.accuracy),
                between(test.accuracy_interval, 100, 1),
                number(test.mean_steps),
                between(test.mean_steps_interval),
                percent(test.loss),
                between(test.loss_interval, 100),
            ]
        )
        numbers = (
            test.accuracy,
            test.accuracy_interval[0],
            test.mean_steps,
            test.mean_steps_interval[0],
            test.loss,
            test.loss_interval[0],
        )
        values.append([entry.measure, str(entry.smoothing), entry.threshold_shown, *numbers])
    note = "On the test samples: * the chosen rule; accuracy in %, lost in points, each with its 95 % interval."
    return Table(headings, rows, values, sortable=True, note=note)


def _fronts(record: AnalysisRecord, fronts: Mapping[str, Front]) -> list[Item]:
    """All operating points of each measure, and the chosen ones."""
    if not fronts:
        return []
    lines: list[dict[str, Cell]] = []
    for name, front in fronts.items():
        steps, accuracy = thinned(front, 300)
        lines += (
            {"series": name, "step": round(step, 3), "accuracy": panels.rounded(share)}
            for step, share in zip(steps.tolist(), accuracy.tolist(), strict=True)
        )
    points: list[dict[str, Cell]] = [
        {"series": entry.measure, "step": round(entry.test.mean_steps, 3), "accuracy": panels.rounded(entry.test.accuracy)}
        for entry in record.rules
    ]
    shown = [float(row["accuracy"] or 0) for row in points]
    low, high = panels.limits(shown, [panels.rounded(record.accuracy_at_t.test[-1])])
    names = ("series", "step", "accuracy")
    best = min(record.rules, key=lambda entry: entry.test.mean_steps)
    return [
        Figure(
            "fronts",
            f"{best.measure} takes the fewest steps of the rules: {number(best.test.mean_steps)}; dots: the threshold that "
            "was chosen",
            {"lines": panels.columns(lines, names), "points": panels.columns(points, names)},
            {"time_steps": record.time_steps, "low": low, "high": high},
            wide=True,
        )
    ]


def _reliability(record: AnalysisRecord) -> list[Item]:
    found, last = record.reliability, str(record.time_steps)
    if last not in found.diagrams or "exit" not in found.diagrams:
        return [Missing("analysis.json holds no reliability diagram at T and at the exit.")]
    diagrams = found.diagrams[last], found.diagrams["exit"]
    return network_panels.reliability(found.ece_at_t, found.nll_at_t, found.ece_at_exit, *diagrams, record.time_steps)


def _promise(found: GuaranteeEntry) -> str:
    sure = f"{100 * (1 - found.delta):.4g} % confidence"
    most = counted(100 * found.epsilon, "point", form=".4g")
    verb = "is" if most == "1 point" else "are"
    if not found.certified:
        return (
            f"Guarantee: no threshold could be certified to lose at most {most} with {sure}; the "
            "certified rule never exits early."
        )
    return (
        f"Guarantee: with {sure}, at most {most} {verb} lost on unseen samples, at "
        f"{number(found.test.mean_steps)} mean steps on the test samples."
    )


def _guarantee(found: GuaranteeEntry, tested: Guarantee | None, record: AnalysisRecord) -> Section:
    test, lasting = found.test, record.steps_at_t is None
    if tested is not None:
        full = f" of {tested.full_steps:.2f}".removesuffix(".00")
    else:  # the record does not say how long the samples are that certify
        full = f" of {record.time_steps}" if lasting else ""
    never = f"infinite: never exit before {'T' if lasting else 'the end'}"
    rows = [
        ("promise", _promise(found)),
        (
            "certified threshold",
            threshold_text(found.threshold, found.threshold_shown) if found.certified else never,
        ),
        ("certified on", f"{found.calibration:,} calibration samples; at least {found.samples_needed:,} are needed"),
        ("candidates", f"{found.passed} of {found.candidates} thresholds certified"),
        (
            "on these samples",
            f"{found.lost} lost and {found.gained} gained at {number(found.mean_steps)}{full} mean steps",
        ),
        (
            "on the test samples",
            f"{percent(test.accuracy)} % @ {number(test.mean_steps)}, {points_in_words(test.loss)}, 95 %: "
            f"{between(test.loss_interval, 100)} points",
        ),
        ("method", found.method),
        ("assumes", found.assumes),
    ]
    charts = [] if tested is None or not len(tested.tests.mean_steps) else [_tests(tested, record.time_steps)]
    told = "rule.json holds the certified rule, rule-uncertified.json the chosen one."
    return Section("Guarantee", [facts(rows, wide=True), *charts], told)


def _tests(found: Guarantee, time_steps: int) -> Figure:
    """The tests of all candidate thresholds, from the surest at the right to the first that fails."""
    tests, points = found.tests, 100 / found.samples
    lines: list[dict[str, Cell]] = []
    for steps, lost_, gained, most in zip(
        tests.mean_steps.tolist(), tests.lost.tolist(), tests.gained.tolist(), tests.most_lost.tolist(), strict=True
    ):
        lines.append({"series": "measured", "step": round(steps, 3), "lost": round((lost_ - gained) * points, 3)})
        if most >= 0:
            lines.append({"series": "certified up to", "step": round(steps, 3), "lost": round((most - gained) * points, 3)})
    net = (found.lost - found.gained) * points
    certified: dict[str, Cell] = {"series": "certified", "step": round(found.mean_steps, 3), "lost": round(net, 3)}
    promise = 100 * found.epsilon
    measured = [float(row["lost"] or 0) for row in lines if row["series"] == "measured"]
    names = ("series", "step", "lost")
    return Figure(
        "guarantee",
        f"The threshold is lowered while the loss stays below what is certified: {number(found.mean_steps)} mean steps",
        {
            "lines": panels.columns(lines, names),
            "promised": {"lost": [promise], "text": [f"promised: at most {counted(promise, 'point', form='.4g')}"]},
            "certified": panels.columns([certified], names),
        },
        {
            "time_steps": time_steps,
            "low": round(max(min(0.0, *measured), -5 * promise) - 0.1 * promise, 4),
            "high": round(max(1.6 * promise, *measured[: tests.passed + 1]), 4),
        },
        note=f"On the {found.samples:,} samples that certify. Circle: the certified threshold; left of it nothing is promised.",
        wide=True,
    )
