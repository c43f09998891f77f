"""The results as tables: for a terminal, and as Markdown for Prefect's artifact and the README."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from dynconf_core.experiment.profiles import PROFILES, resolve
from dynconf_core.experiment.settings import SETTINGS
from dynconf_core.results.files import over_seeds

HEADINGS = ("setting", "ANN", "SNN @ T", "exit @ steps", "saving", "speedup", "oracle @ steps")
PAPER = "paper: SNN → exit"
WIDE = 116
"""Columns of a terminal from which on the paper's row stands beside the setting's; below it, in a footnote."""


def results_table(document: Mapping[str, Any], width: int = 120) -> Table:
    """The table that a reproduction ends with, for a terminal of ``width`` columns (80 are enough)."""
    table = _table(title(document))
    wide = width >= WIDE
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "setting" else "right", no_wrap=True)
    if wide:
        table.add_column(PAPER, no_wrap=True)
    for row in document["settings"]:
        cells = _cells(row)
        table.add_row(*([*cells, escape(_paper_row(row))] if wide else [cell.replace(" @ ", "@") for cell in cells]))
    table.caption = escape("\n".join(notes(document, papers=not wide)))
    return table


def results_markdown(document: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    lines = [f"**{title(document)}**", "", "| " + " | ".join((*HEADINGS, PAPER)) + " |"]
    lines.append("|" + "|".join(["---", *["---:"] * (len(HEADINGS) - 1), "---"]) + "|")
    lines += ["| " + " | ".join((*_cells(row), _paper_row(row))) + " |" for row in document["settings"]]
    return "\n".join([*lines, "", *(f"{note}  " for note in notes(document))])


def title(document: Mapping[str, Any]) -> str:
    """What was run, with every reduction named."""
    ok = [row for row in document["settings"] if row["status"] == "ok"]
    data = dict.fromkeys(
        f"{row['data']['name']} in the place of {row['data']['stands_in_for']}"
        if row["data"]["stands_in_for"]
        else row["data"]["name"]
        for row in ok
    )
    widths = dict.fromkeys(f"{row['network']['width']:g} of the full width" for row in ok if row["network"]["width"] != 1)
    overrides = [f"{name}={value}" for name, value in document.get("overrides", {}).items()]
    parts = [f"Profile {document['profile']}, seed {document['seed']}", *data, *widths, *overrides]
    return "; ".join(parts)


def notes(document: Mapping[str, Any], papers: bool = False) -> list[str]:
    """What failed, the mean saving, what the columns mean, and the paper's rows that stand beside no setting."""
    ok = [row for row in document["settings"] if row["status"] == "ok"]
    lines = [f"{row['name']} ended at {row['error']}" for row in document["settings"] if row["status"] == "failed"]
    if ok:
        lost = statistics.fmean(row["snn_accuracy"] - row["exit"]["accuracy"] for row in ok)
        fixed = statistics.fmean(_baseline(row, "iso_accuracy")["latency_saving"] for row in ok)
        lines += [
            f"Mean latency saving over {_count(ok)}: {_percent(document['mean_latency_saving'])}, accuracy lost: "
            f"{100 * lost:z.2f} points (the paper, over its eight: 40 %, none lost).",
            f"Against the first fixed step as accurate on calibration as T: {_percent(fixed)}.",
            *_rounding(ok),
        ]
    lines.append("Accuracies in % of the test images; bound: first-correct. [S] stated by the source, [2] second-hand.")
    if papers:
        lines += [f"Paper, {row['name']}: {_paper_row(row)}." for row in ok if row["paper"]]
    for note in document.get("paper_footnotes", []):
        before = f"@ {note['time_steps']} → " if note["time_steps"] else ""
        lines.append(f"Paper, {note['family']}, network not named: {before}@ {note['mean_steps']} steps [{note['label']}].")
    return lines


def seeds_table(documents: Sequence[Mapping[str, Any]]) -> Table:
    """Mean and sample standard deviation over seeds of every setting that is done in all of them."""
    seeds = ", ".join(str(document["seed"]) for document in documents)
    table = _table(f"Profile {documents[0]['profile']} over the seeds {seeds}: mean ± standard deviation")
    for heading in ("setting", "ANN", "SNN at T", "with exit", "mean steps", "saving"):
        table.add_column(heading, justify="left" if heading == "setting" else "right", no_wrap=True)
    for entry in over_seeds(documents):
        if entry["figures"] is None:
            table.add_row(entry["name"], "failed in a seed")
            continue
        cells = [
            f"{scale * figure['mean']:.2f}±{scale * figure['deviation']:.2f}"
            for name, figure in entry["figures"].items()
            for scale in (1 if name == "exit_mean_steps" else 100,)
        ]
        table.add_row(entry["name"], *cells)
    return table


def settings_table() -> Table:
    """The eight settings with the paper's figures."""
    table = _table("The eight settings, and what the paper reports of them")
    for heading in ("setting", "paper: SNN → exit", "source"):
        table.add_column(heading, no_wrap=heading != "source")
    for entry in SETTINGS.values():
        paper = escape(_paper(vars(entry.published))) if entry.published else ""
        source = entry.published.source if entry.published else "no figure at hand"
        table.add_row(entry.name, paper, source)
    table.caption = (
        "\\[S] stated by the source, \\[2] second-hand. Every study also reports its figures cut at the paper's own T."
    )
    return table


def profiles_table() -> Table:
    """What each profile makes of the settings."""
    table = _table("The profiles")
    for heading in ("profile", "setting", "data, px", "width", "scheme", "T", "epochs", "batch", "rate"):
        table.add_column(heading, no_wrap=True)
    for profile in PROFILES:
        for name in SETTINGS:
            plan = resolve(name, profile)
            scheme = ", ".join(f"{name} {value:g}" for name, value in plan.scheme.network().items())
            recipe = plan.recipe
            table.add_row(
                profile if name == next(iter(SETTINGS)) else "",
                name,
                f"{plan.data.name} {plan.data.resolution}",
                f"{plan.width:g}",
                scheme,
                str(plan.time_steps),
                str(recipe.epochs),
                str(recipe.batch_size),
                f"{recipe.learning_rate:g}",
            )
        table.add_section()
    table.caption = "\n".join(f"{profile.name}: {profile.summary}" for profile in PROFILES.values())
    return table


def sweep_table(document: Mapping[str, Any]) -> Table:
    """The points of a sweep, those on the Pareto front marked."""
    table = _table(f"Sweep, profile {document['profile']}: {len(document['points'])} points; * on the Pareto front")
    fields = list(dict.fromkeys(name for point in document["points"] for name in point["values"]))
    for heading in ("", "setting", *fields, "ANN", "SNN at T", "with exit", "mean steps"):
        table.add_column(heading)
    for point in document["points"]:
        given = [_short(point["values"].get(name, "")) for name in fields]
        if point["status"] == "failed":
            table.add_row("", point["setting"], *given, f"failed: {point['error']}")
            continue
        figures = [_percent(point[name]) for name in ("ann_accuracy", "snn_accuracy", "accuracy")]
        mark = "*" if point["on_front"] else ""
        table.add_row(mark, point["setting"], *given, *figures, f"{point['mean_steps']:.2f}")
    return table


def sweep_markdown(document: Mapping[str, Any]) -> str:
    """The Pareto front of a sweep as Markdown."""
    lines = [f"**Pareto front, profile {document['profile']}**", "", "| setting | values | accuracy | mean steps |"]
    lines.append("|---|---|---:|---:|")
    for point in document["points"]:
        if point.get("on_front"):
            values = ", ".join(f"{name}={_short(value)}" for name, value in point["values"].items())
            lines.append(f"| {point['setting']} | {values} | {_percent(point['accuracy'])} | {point['mean_steps']:.2f} |")
    return "\n".join(lines)


def _table(heading: str) -> Table:
    return Table(title=heading, box=None, caption_justify="left", title_justify="left", pad_edge=False, collapse_padding=True)


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["status"] == "failed":
        return [row["name"], "stopped" if "interrupted" in row["error"] else "failed", *["—"] * (len(HEADINGS) - 2)]
    exiting, bound = row["exit"], row["oracles"]["first_correct"]
    return [
        row["name"],
        _points(row["ann_accuracy"]),
        f"{_points(row['snn_accuracy'])} @ {row['time_steps']}",
        f"{_points(exiting['accuracy'])} @ {exiting['mean_steps']:.2f}",
        f"{100 * exiting['latency_saving']:.1f} %",
        f"{exiting['speedup']:.2f}x",
        f"{_points(bound['accuracy'])} @ {bound['mean_steps']:.2f}",
    ]


def _rounding(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What rounding the weights costs, where it costs or gains anything."""
    moved = [row for row in rows if row["reference_accuracy"] != row["ann_accuracy"]]
    if not moved:
        return []
    mean = statistics.fmean(row["reference_accuracy"] - row["ann_accuracy"] for row in rows)
    shown = [f"{row['name']} {_points(row['ann_accuracy'])} → {_points(row['reference_accuracy'])}" for row in moved]
    return [
        f"Weights rounded so that float32 is exact move the ANN's accuracy by {100 * mean:+.2f} points on average "
        f"({', '.join(shown)})."
    ]


def _paper_row(row: Mapping[str, Any]) -> str:
    return _paper(row["paper"]["rows"][0]) if row.get("paper") else ""


def _paper(published: Mapping[str, Any]) -> str:
    """As far as the figures are known."""
    before = _at(published["snn_accuracy"], published["time_steps"])
    after = _at(published["exit_accuracy"], published["mean_steps"])
    return f"{before} → {after} [{published['label']}]".strip()


def _at(fraction: float | None, steps: float | None) -> str:
    parts = [None if fraction is None else _points(fraction), None if steps is None else f"@ {steps}"]
    return " ".join(part for part in parts if part)


def _baseline(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(entry for entry in row["baselines"] if entry["name"] == name)
    return found


def _count(rows: Sequence[Any]) -> str:
    return "one setting" if len(rows) == 1 else f"{len(rows)} settings"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
