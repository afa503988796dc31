"""What stands below the summary, in numbers: every class, and every turn of an option. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genzoo.report.measures import Cell, Measure, Table
from genzoo.report.plots import sweep_axes, swept
from genzoo.report.table import score_cell, with_unit


@dataclass(frozen=True)
class ByClass:
    """One measure in each class.

    Attributes:
        measure: which.
        labels: of the models that have it by class, real images among them.
        rows: the name of a class, and a cell a model; ``best`` marks nothing here.
        weakest: for each model the row of its worst class, or None.
    """

    measure: Measure
    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    weakest: tuple[int | None, ...]


@dataclass(frozen=True)
class Swept:
    """One sweep in numbers: the option, and two measures at each of its values."""

    label: str
    option: str
    n: int
    titles: tuple[str, str]
    rows: tuple[tuple[float, Cell, Cell], ...]


def by_class(table: Table, classes: Sequence[str]) -> list[ByClass]:
    """Every measure that any model has by class."""
    found = []
    for line in table.lines:
        columns = []
        for entry in table.entries:
            score = entry.model.score(line.measure.key)
            if score is not None and score.by_class:
                columns.append((entry, score.by_class))
        if not columns:
            continue
        length = max(len(values) for _, values in columns)
        names = [classes[i] if i < len(classes) else str(i) for i in range(length)]
        rows = tuple(
            (name, tuple(_class_cell(values, i, line.measure.unit) for _, values in columns))
            for i, name in enumerate(names)
        )
        weakest = tuple(_weakest(values, line.measure.better) if entry.competes else None for entry, values in columns)
        found.append(ByClass(line.measure, tuple(entry.label for entry, _ in columns), rows, weakest))
    return found


def _class_cell(values: Sequence[float | None], i: int, unit: str) -> Cell:
    value = values[i] if i < len(values) else None
    return Cell() if value is None else Cell(value, with_unit(value, unit))


def _weakest(values: Sequence[float | None], better: str) -> int | None:
    """The row of the worst class; None where all are alike."""
    known = [(value, i) for i, value in enumerate(values) if value is not None]
    if len({value for value, _ in known}) < 2:
        return None
    return (max(known) if better == "lower" else min(known))[1]


def sweeps(table: Table) -> list[Swept]:
    """Every sweep that measured what the control plot shows."""
    every = [(entry, sweep) for entry in table.entries for sweep in entry.model.sweeps]
    traded = sweep_axes([sweep for _, sweep in every])
    if traded is None:
        return []
    titles = traded[0].title, traded[1].title
    return [
        Swept(entry.label, sweep.option, sweep.n, titles, rows)
        for entry, sweep in every
        if (rows := tuple((value, score_cell(a), score_cell(b)) for value, a, b in swept(sweep, *traded)))
    ]
