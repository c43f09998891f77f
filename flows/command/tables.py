"""Results, settings and profiles as tables on a terminal."""

from collections.abc import Sequence
from dataclasses import fields

from rich.table import Table

from dynconf_core.errors import InputError
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import PROFILES, plans
from dynconf_core.experiment.settings import names, setting
from dynconf_core.results.files import over_seeds
from dynconf_core.results.markdown import (
    HEADINGS,
    LABELS,
    PAPER,
    cells,
    ending,
    in_percent,
    notes,
    of_paper,
    paper_cell,
    published_cell,
    short,
    short_notes,
    title,
)
from dynconf_core.results.types import FiguresOverSeeds, RunResult, SweepPoint, SweepResult

WIDE = 116
"""Width of a terminal from which the table has a column for the paper's figures; otherwise they are in footnotes."""
ACCURACIES = "Accuracies in % of the test images"


def results_table(result: RunResult, width: int = 120, verbose: bool = False) -> Table:
    """The table of a reproduction, for a terminal of ``width`` columns (at least 80).

    Below it stand the notes without which it misleads; if ``verbose``, all of them and the paper's figures.
    """
    table = _table(title(result))
    wide = width >= WIDE
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "setting" else "right", no_wrap=True)
    if wide:
        table.add_column(PAPER, no_wrap=True)
    for row in result.settings:
        shown = cells(row)
        table.add_row(*([*shown, paper_cell(row)] if wide else [cell.replace(" @ ", "@") for cell in shown]))
    labels = f"Paper: {LABELS} " if wide and any(paper_cell(row) for row in result.settings) else ""
    more = "; --verbose adds the paper's figures" if of_paper(result) else ""
    brief = [*short_notes(result), f"{labels}{ACCURACIES}{more}."]
    table.caption = "\n".join(notes(result, papers=not wide) if verbose else brief)
    return table


def seeds_table(results: Sequence[RunResult]) -> Table:
    """Mean and sample standard deviation over seeds, for each setting that finished for all of them."""
    seeds = ", ".join(str(result.seed) for result in results)
    table = _table(f"Profile {results[0].profile} over the seeds {seeds}: mean ± standard deviation")
    for heading in ("setting", "ANN", "SNN at T", "early exit", "mean steps", "saving"):
        table.add_column(heading, justify="left" if heading == "setting" else "right", no_wrap=True)
    for entry in over_seeds(results).settings:
        table.add_row(entry.name, *(["failed for a seed"] if entry.figures is None else _spreads(entry.figures)))
    table.caption = f"{ACCURACIES}."
    return table


def settings_table() -> Table:
    """The settings with the paper's figures; those of other packages that cannot be used, with the reason."""
    table = _table("The settings and the paper's figures")
    for heading in ("setting", "paper: SNN → exit", "source"):
        table.add_column(heading, no_wrap=heading != "source")
    for name in names():
        try:
            published = setting(name).published
        except InputError as error:
            table.add_row(name, "", f"cannot be used: {error}")
            continue
        paper = published_cell(published) if published else ""
        table.add_row(name, paper, published.source if published else "none available")
    table.caption = f"{LABELS} Results also include figures for T as in the paper."
    return table


def profiles_table() -> Table:
    """The settings' values in each profile."""
    table = _table("The profiles")
    for heading in ("profile", "setting", "data, px", "width", "scheme", "T", "epochs", "batch", "lr"):
        table.add_column(heading, no_wrap=heading != "setting", overflow="fold")
    found = {name: _plans(name) for name in names()}
    for profile in PROFILES:
        for name in found:
            if profile not in found[name]:
                continue
            plan = found[name][profile]
            scheme = ", ".join(f"{name} {short(value)}" for name, value in plan.scheme.network().items())
            recipe = plan.recipe
            table.add_row(
                profile if name == next(iter(found)) else "",
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


def _plans(name: str) -> dict[str, Plan]:
    """By profile; none of a setting that cannot be used."""
    try:
        return plans(name)
    except InputError:
        return {}


def sweep_table(result: SweepResult) -> Table:
    """The points of a sweep, with those on the Pareto front marked."""
    count = len(result.points)
    table = _table(f"Sweep, profile {result.profile}: {count} points; * on the Pareto front, chosen on calibration")
    swept = list(dict.fromkeys(name for point in result.points for name in point.values))
    for heading in ("", "setting", *swept, "ANN", "SNN at T", "calibration", "test"):
        table.add_column(heading)
    for point in result.points:
        given = [short(point.values.get(name, "")) for name in swept]
        if not isinstance(point, SweepPoint):
            table.add_row("", point.setting, *given, ending(point.error))
            continue
        ann = "—" if point.ann_accuracy is None else in_percent(point.ann_accuracy)
        chosen = f"{in_percent(point.calibration_accuracy)} @ {point.calibration_mean_steps:.2f}"
        figures = [ann, in_percent(point.snn_accuracy), chosen, f"{in_percent(point.accuracy)} @ {point.mean_steps:.2f}"]
        table.add_row("*" if point.on_front else "", point.setting, *given, *figures)
    table.caption = "Accuracies in %; calibration, test: accuracy with exit @ mean steps on that split."
    return table


def _table(heading: str) -> Table:
    return Table(title=heading, box=None, caption_justify="left", title_justify="left", pad_edge=False, collapse_padding=True)


def _spreads(figures: FiguresOverSeeds) -> list[str]:
    """Spreads as text: fractions in per cent, the saving with its sign, steps unchanged."""
    found = []
    for field in fields(figures):
        spread, scale = getattr(figures, field.name), 1 if field.name == "exit_mean_steps" else 100
        unit = " %" if field.name == "exit_latency_saving" else ""
        found.append("—" if spread is None else f"{scale * spread.mean:.2f}±{scale * spread.deviation:.2f}{unit}")
    return found
