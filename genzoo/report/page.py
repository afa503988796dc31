"""The HTML page: one file that opens from disk, asks nobody for anything, and is read without a script."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from genzoo.report import plot, table
from genzoo.results import Results


@functools.cache
def _template() -> jinja2.Template:
    text = resources.files("genzoo.report").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["megabytes"] = table.megabytes
    environment.filters["count"] = table.count
    environment.filters["inert"] = table.inert
    environment.filters["seconds"] = table.seconds
    return environment.from_string(text)


def html(results: Results, sort: str | None = None) -> str:
    """The page of a comparison, ordered by the column ``sort``; text from cards, labels and plugins is escaped."""
    heads, rows = table.rows(results, sort)
    context: dict[str, Any] = {
        "results": results,
        "heads": heads,
        "rows": rows,
        "verdicts": table.verdicts(results),
        # The one piece of markup that is not escaped: it is drawn here, and its text was escaped by its writer.
        "plot": Markup(plot.svg(results)),
    }
    return _template().render(context)
