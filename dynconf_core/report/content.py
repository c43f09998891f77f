"""What a report consists of, before it becomes HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Cell = str | int | float | None
Columns = Mapping[str, Sequence[Cell]]
"""A table by column; all columns have the same length."""


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        kind: which of the charts, a name in ``dynconf_core.report.charts.KINDS``.
        title: a sentence that says what to see.
        data: the tables that the chart reads, by name.
        values: numbers that the chart reads, such as the ends of an axis.
        note: what the marks mean, below the chart; "" for nothing.
        wide: whether it takes the whole width.
        height: in pixels; None for the chart's own.
        heading: what it is of, above the title, where several of a kind stand side by side.
    """

    kind: str
    title: str
    data: Mapping[str, Columns]
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    wide: bool = False
    height: int | None = None
    heading: str = ""

    form: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Missing:
    """In the place of a figure, why it cannot be drawn."""

    reason: str
    heading: str = ""

    form: ClassVar[str] = "missing"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: the headings.
        rows: the cells as text.
        values: by row, what each cell is sorted by.
        sortable: whether a click on a heading sorts the rows.
        title: a sentence above it; "" for none.
        note: what the columns mean; "" for nothing.
        numbers: whether all columns but the first hold numbers, which are aligned at the right.
        wide: whether it takes the whole width.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: Sequence[Sequence[Cell]] = ()
    sortable: bool = False
    title: str = ""
    note: str = ""
    numbers: bool = True
    wide: bool = True

    form: ClassVar[str] = "table"


@dataclass(frozen=True)
class Text:
    """Paragraphs, or a formula or command to be shown as it is written."""

    lines: Sequence[str]
    code: bool = False

    form: ClassVar[str] = "text"


Item = Figure | Missing | Table | Text


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: its heading, also in the table of contents.
        items: what it shows.
        lead: a sentence below the heading.
        folded: parts that are opened by a click.
        legend: colours by what they show, once for all charts of the section; empty: each chart has its own.
    """

    name: str
    items: Sequence[Item] = ()
    lead: str = ""
    folded: Sequence[Section] = ()
    legend: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        title: what it is of.
        number: the headline's number.
        headline: what the number is, a phrase that goes on after it.
        details: further sentences below the headline.
        banner: reductions and stand-ins, so that nobody takes the figures for the paper's; "" for none.
        warnings: one sentence each.
        sections: the parts.
    """

    title: str
    number: str
    headline: str
    details: Sequence[str]
    banner: str
    warnings: Sequence[str]
    sections: Sequence[Section]
