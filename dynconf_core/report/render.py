"""A report as HTML: one file, which draws its charts without a network.

Names come from outside, so everything is escaped, and a policy in the page runs no script but the two in the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dynconf_core.report.content import Figure, Report, Section
from dynconf_core.report.kit import kit
from dynconf_core.results.records import plain

PAGE = Path(__file__).parent / "page"
"""The folder of the template, the style sheet and the script."""
SEPARATORS = (",", ":")


def html(report: Report, inputs: str = "") -> str:
    """The report as HTML.

    Args:
        report: the report.
        inputs: a digest of what it was made from, kept in the page.

    Raises:
        InputError: if a library that reports need is not installed.
    """
    drawing = kit()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    figures = list(_figures(report.sections))
    library, script = _safe(drawing.script), _safe(_file("report.js"))
    kinds = {figure.kind for figure in figures}
    tables, data = _shared(figures)
    content = {
        "figures": [{**vars(figure), "data": places} for figure, places in zip(figures, data, strict=True)],
        "charts": {kind: drawing.specifications[kind] for kind in sorted(kinds)},
    }
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    places = {id(figure): place for place, figure in enumerate(figures)}
    environment.globals["place"] = lambda figure: places[id(figure)]
    page = environment.get_template("report.html.j2").render(
        report=report,
        inputs=inputs,
        scripts=Markup(" ".join(_allowed(text) for text in (library, script))),
        style=Markup(_file("report.css")),
        content=Markup(f'{_json(content)[:-1]},"tables":[{",".join(tables)}]}}'),
        library=Markup(library),
        script=Markup(script),
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # of a path in another encoding, half characters are left


def _figures(sections: Any) -> Iterator[Figure]:
    """All figures, in the order in which they appear."""
    section: Section
    for section in sections:
        yield from (item for item in section.items if isinstance(item, Figure))
        yield from _figures(section.folded)


def _shared(figures: Sequence[Figure]) -> tuple[list[str], list[dict[str, int]]]:
    """The tables of all figures as JSON, each once, and by figure the place of each of its tables among them."""
    places: dict[str, int] = {}
    data = []
    for figure in figures:
        texts = {name: _json(table) for name, table in figure.data.items()}
        data.append({name: places.setdefault(text, len(places)) for name, text in texts.items()})
    return list(places), data


def _file(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _json(content: Any) -> str:
    """JSON that may stand in a script element, whatever its texts are."""
    try:
        text = json.dumps(content, separators=SEPARATORS, allow_nan=False)  # ASCII alone
    except ValueError:  # a number that is none
        text = json.dumps(plain(content), separators=SEPARATORS, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _safe(script: str) -> str:
    """A script in which nothing ends its element, nor begins a comment of HTML; strings keep their values."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _allowed(script: str) -> str:
    """The source expression that allows a script by its content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
