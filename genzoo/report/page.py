"""The HTML page: one file that opens from disk, asks nobody for anything, and is read without a script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from genzoo.report import details, drawing, plots, text
from genzoo.report.measures import Table
from genzoo.report.table import families_table, table_of
from genzoo.report.verdicts import answers, choice, standing
from genzoo.results import Results, Stability
from genzoo.runs import DISTANCE


@dataclass(frozen=True)
class Training:
    """What the page says of one record of training: its table, the distance that as many real images reach, and for
    each family the drawn curves."""

    record: Stability
    table: Table
    floor: float | None
    curves: Sequence[tuple[str, Sequence[Markup]]]


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("genzoo.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for words in (text.brief, text.inert, text.moment, text.number):
        environment.filters[words.__name__] = words
    environment.globals |= {"answers": answers, "choice": choice, "standing": standing}
    environment.globals |= {"style": drawing.style, "arrows": text.ARROWS}
    return environment.get_template("page.html")


def html(record: Results | Sequence[Stability], sort: str | None = None) -> str:
    """The page of a comparison, its models in the order of the measure ``sort``; or of training alone.

    Text from cards, labels and plugins is escaped.
    """
    results = record if isinstance(record, Results) else None
    stability = record.stability if isinstance(record, Results) else record
    table = None if results is None else table_of(results, sort)
    context: dict[str, Any] = {
        "results": results,
        "table": table,
        "training": [_training(part, families_table(part, table), f"t{i}") for i, part in enumerate(stability)],
    }
    if results is not None and table is not None:
        context |= {
            "by_class": details.by_class(table, results.classes),
            "sweeps": details.sweeps(table),
            "speed_plot": _drawn(plots.quality_speed(table), "speed", "Quality against speed"),
            "control_plot": _drawn(plots.control(table), "control", "Quality against control"),
            "training_plot": _drawn(plots.training(table), "training", "Distance against minutes of training"),
        }
    return _template().render(context)


def _drawn(figure: Any | None, name: str, description: str) -> Markup:
    """A figure as the one piece of markup that is not escaped: it is drawn here, and its text was escaped by its
    writer. Empty where there is nothing to draw."""
    return Markup("" if figure is None else drawing.svg(figure, name, description))


def _training(record: Stability, table: Table, name: str) -> Training:
    floor = record.floor.get(DISTANCE)
    limits = plots.distance_limits(record.families, floor)
    curves = []
    for i, family in enumerate(record.families):
        whose = text.brief(family.name)
        drawn = (
            _drawn(plots.distances(family, limits, floor), f"{name}-d{i}", f"Distance by step, {whose}"),
            _drawn(plots.losses(family), f"{name}-l{i}", f"Losses by step, {whose}"),
        )
        curves.append((family.name, [svg for svg in drawn if svg]))
    return Training(record, table, floor, curves)
