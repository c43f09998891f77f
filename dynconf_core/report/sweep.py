"""The report of a sweep: its front, the values of its points, and a table of all."""

from __future__ import annotations

from collections.abc import Sequence

from dynconf_core.exit.shown import points_in_words
from dynconf_core.report import panels
from dynconf_core.report.closing import closing
from dynconf_core.report.content import Cell, Columns, Figure, Item, Missing, Report, Section, Table
from dynconf_core.report.wording import DASH, listed, number, percent, short, values_text
from dynconf_core.results.markdown import ending
from dynconf_core.results.types import FailedPoint, SweepPoint, SweepResult
from dynconf_core.schemes.field import Value

REACHED = ("calibration steps", "calibration accuracy")


def sweep_report(result: SweepResult, again: str = "") -> Report:
    """The report of a sweep; ``again``: the command that writes it anew."""
    points = [point for point in result.points if isinstance(point, SweepPoint)]
    broken = [point for point in result.points if isinstance(point, FailedPoint)]
    fields = list(dict.fromkeys(name for point in result.points for name in point.values))
    number_of, headline, details = _headline(points, fields)
    warnings = [f"{point.setting} {values_text(point.values)} {ending(point.error)}" for point in broken]
    if result.tracking_error:
        warnings.append(f"Not logged to MLflow: {result.tracking_error}")
    nothing: list[Item] = [Missing("No point has finished.")]
    sections = [
        Section(
            "The front",
            [_pareto(points)] if points else nothing,
            "Filled marks: points that no other of their setting beats in both accuracy and mean steps on the calibration "
            "images, which chose them. Their places are those on the test images.",
        ),
        Section(
            "Values side by side",
            [_parallel(points, fields)] if points else nothing,
            "A line is a point of the sweep: the values of its fields at the left, what they lead to on the calibration "
            "images at the right.",
        ),
        Section("All points", [_table(result, fields)], "Click on a heading to sort by it."),
        *closing(result.environment, result.command, again),
    ]
    title = f"sweep {result.run} · profile {result.profile}, seed {result.seed}"
    return Report(title, number_of, headline, details, _banner(result), warnings, sections)


def _headline(points: Sequence[SweepPoint], fields: Sequence[str]) -> tuple[str, str, list[str]]:
    front = [point for point in points if point.on_front]
    if not front:
        return "0", "points finished", []
    best = max(front, key=lambda point: (point.calibration_accuracy, -point.calibration_mean_steps))
    least = min(front, key=lambda point: (point.calibration_mean_steps, -point.calibration_accuracy))
    shown = (("The most accurate", best), ("The fastest", least)) if best is not least else (("The best", best),)
    details = [
        f"{name} on calibration: {point.setting}, {values_text(point.values)}: {percent(point.accuracy)} % with "
        f"{number(point.mean_steps)} mean steps on the test images, "
        f"{points_in_words(point.snn_accuracy - point.accuracy)} by the exit"
        f"{_tied(point, front)}."
        for name, point in shown
    ]
    return f"{len(front)} of {len(points)}", f"points on the front, over {', '.join(fields)}", details


def _tied(point: SweepPoint, front: Sequence[SweepPoint]) -> str:
    """Which other points are as good on the calibration images."""

    def reached(one: SweepPoint) -> tuple[float, float]:
        return one.calibration_accuracy, one.calibration_mean_steps

    others = [one for one in front if one is not point and reached(one) == reached(point)]
    names = [f"{one.setting}, {values_text(one.values)}" for one in others[:3]]
    if len(others) > 3:
        names = [f"{len(others)} others"]
    return f"; tied with {listed(names)}" if names else ""


def _banner(result: SweepResult) -> str:
    if result.profile == "paper":
        return ""
    meaning = "; its points show how values compare, not what the method reaches" if result.profile == "smoke" else ""
    return f"Profile {result.profile}, which is smaller than the paper's{meaning}."


def _pareto(points: Sequence[SweepPoint]) -> Figure:
    names = ("setting", "values", "step", "accuracy", "calibration_step", "calibration")

    def rows(on_front: bool) -> Columns:
        found: list[dict[str, Cell]] = [
            {
                "setting": point.setting,
                "values": values_text(point.values),
                "step": round(point.mean_steps, 3),
                "accuracy": panels.rounded(point.accuracy),
                "calibration_step": round(point.calibration_mean_steps, 3),
                "calibration": panels.rounded(point.calibration_accuracy),
            }
            for point in points
            if point.on_front is on_front
        ]
        return panels.columns(found, names)

    steps = [point.mean_steps for point in points if point.on_front] or [0.0]
    left, right = _ends([point.mean_steps for point in points])
    low, high = _ends([100 * point.accuracy for point in points])
    return Figure(
        "pareto",
        f"The front reaches from {number(min(steps))} to {number(max(steps))} mean steps",
        {"front": rows(True), "others": rows(False)},
        {"left": left, "right": right, "low": low, "high": min(high, 100.0)},
        note="Chosen on calibration images, shown with test figures: a point of the front may therefore be beaten here.",
        wide=True,
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis around some values, also where they are all the same."""
    room = max(0.15 * (max(values) - min(values)), 0.2)
    return round(max(min(values) - room, 0.0), 2), round(max(values) + room, 2)


def _parallel(points: Sequence[SweepPoint], fields: Sequence[str]) -> Figure:
    """Every axis from its lowest value below to its highest above; text in the order of its first appearance."""
    lines: list[dict[str, Cell]] = []
    ends: list[dict[str, Cell]] = []
    axes: list[tuple[str, list[Value | None]]] = [(name, [point.values.get(name) for point in points]) for name in fields]
    reached: list[list[Value | None]] = [
        [point.calibration_mean_steps for point in points],
        [round(100 * point.calibration_accuracy, 2) for point in points],
    ]
    axes += zip(REACHED, reached, strict=True)
    for place, (name, values) in enumerate(axes):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        order = list(dict.fromkeys(map(str, values)))
        heights = [float(value or 0) if numbers else float(order.index(str(value))) for value in values]
        low, high = min(heights), max(heights)
        for point, value, height in zip(points, values, heights, strict=True):
            lines.append(
                {
                    "point": points.index(point),
                    "setting": point.setting,
                    "values": values_text(point.values),
                    "axis": name,
                    "place": place,
                    "position": round((height - low) / (high - low), 4) if high > low else 0.5,
                    "shown": DASH if value is None else short(value),
                    "on": "on the front" if point.on_front else "not on the front",
                }
            )
        texts = [(low, -0.07), (high, 1.07)] if high > low else [(low, 0.43)]
        ends += (
            {"axis": name, "position": at, "text": short(round(end, 4)) if numbers else order[int(end)]} for end, at in texts
        )
    return Figure(
        "parallel",
        "Which values lead to few steps, and which to accuracy: follow the blue lines",
        {
            "lines": panels.columns(lines, tuple(lines[0])),
            "ends": panels.columns(ends, ("axis", "position", "text")),
        },
        wide=True,
    )


def _table(result: SweepResult, fields: Sequence[str]) -> Table:
    headings = ("setting", *fields, "ANN", "SNN", "exit", "steps", "lost", "calibration", "calibration steps", "front")
    rows: list[list[str]] = []
    values: list[list[Cell]] = []
    for point in result.points:
        own = [point.values.get(name) for name in fields]
        shown = [DASH if value is None else short(value) for value in own]
        if isinstance(point, FailedPoint):
            rows.append([point.setting, *shown, "failed", *[DASH] * 7])
            values.append([point.setting, *own, *[None] * 8])
            continue
        loss = point.snn_accuracy - point.accuracy
        rows.append(
            [
                point.setting,
                *shown,
                percent(point.ann_accuracy),
                percent(point.snn_accuracy),
                percent(point.accuracy),
                number(point.mean_steps),
                percent(loss),
                percent(point.calibration_accuracy),
                number(point.calibration_mean_steps),
                "yes" if point.on_front else "",
            ]
        )
        accuracies = (point.ann_accuracy, point.snn_accuracy, point.accuracy, point.mean_steps, loss)
        chosen = (point.calibration_accuracy, point.calibration_mean_steps, "yes" if point.on_front else "no")
        values.append([point.setting, *own, *accuracies, *chosen])
    note = "Accuracies in %, lost in points; ANN, SNN, exit, steps and lost on the test images."
    return Table(headings, rows, values, sortable=True, note=note)
