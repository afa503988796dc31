"""The table of a comparison: every measure over every model, with its best. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genzoo.report.costs import COSTS
from genzoo.report.entries import entries_of
from genzoo.report.measures import EMPTY, Cell, Entry, Line, Measure, Reader, Table
from genzoo.report.stability import STABILITY
from genzoo.report.text import brief, number, span
from genzoo.results import ModelResult, Results, Score, Stability


def table_of(results: Results, sort: str | None = None) -> Table:
    """The table, models best first by the measure ``sort``; real images stay last."""
    entries = entries_of(results)
    readers: dict[str, tuple[Measure, Reader]] = {}
    for model in results.models:
        for score in model.scores:
            readers.setdefault(score.metric, (_measure(score), _score_reader(score.metric)))
    for measure, reader in (*STABILITY, *COSTS):
        readers.setdefault(measure.key, (measure, reader))
    table = _with_best(entries, list(readers.values()))
    key = next((line for line in table.lines if line.measure.key == sort), None)
    return table if key is None else _sorted(table, key)


def measures_of(record: Results | Sequence[Stability]) -> list[str]:
    """The keys of all measures that a record has a number of."""
    tables = [table_of(record)] if isinstance(record, Results) else [families_table(part) for part in record]
    return [line.measure.key for table in tables for line in table.lines]


def _with_best(entries: tuple[Entry, ...], readers: Sequence[tuple[Measure, Reader]]) -> Table:
    """The measures that any entry has, with the best of each marked."""
    lines = [Line(measure, tuple(reader(entry) or EMPTY for entry in entries)) for measure, reader in readers]
    table = Table(entries, tuple(line for line in lines if any(cell.value is not None for cell in line.cells)))
    return replace(table, lines=tuple(_marked(table, line) for line in table.lines))


def _measure(score: Score) -> Measure:
    return Measure(score.metric, score.title, score.better, score.theme, score.about, score.unit)


def _score_reader(metric: str) -> Reader:
    def read(entry: Entry) -> Cell | None:
        score = entry.model.score(metric)
        return None if score is None else score_cell(score)

    return read


def with_unit(value: float, unit: str) -> str:
    """ "90 %"."""
    return f"{number(value)} {unit}".strip()


def score_cell(score: Score) -> Cell:
    """A score as it stands in the table, with its interval and its repetitions beneath."""
    details = []
    if score.low is not None and score.high is not None:
        details.append(span(score.low, score.high))
    if len(score.repeats) > 1:
        details.append(f"mean of {len(score.repeats)}, min {number(min(score.repeats))}")
    return Cell(score.value, with_unit(score.value, score.unit), score.low, score.high, tuple(details))


def _marked(table: Table, line: Line) -> Line:
    best = set[int]()
    for group in table.rivals(line):
        values = [line.cells[i].value or 0.0 for i in group]
        if len(set(values)) > 1:  # where all are equal, none is best
            wanted = min(values) if line.measure.better == "lower" else max(values)
            best |= {i for i, value in zip(group, values, strict=True) if value == wanted}
    return replace(line, cells=tuple(replace(cell, best=i in best) for i, cell in enumerate(line.cells)))


def _sorted(table: Table, key: Line) -> Table:
    sign = -1 if key.measure.better == "higher" else 1

    def rank(i: int) -> tuple[bool, bool, float]:
        value = key.cells[i].value
        return not table.entries[i].competes, value is None, sign * (value or 0.0)

    order = sorted(range(len(table.entries)), key=rank)
    return Table(
        tuple(table.entries[i] for i in order),
        tuple(replace(line, cells=tuple(line.cells[i] for i in order)) for line in table.lines),
    )


def families_table(record: Stability, beside: Table | None = None) -> Table:
    """The table of training: every measure of stability over every family, in the colours of the models ``beside``."""
    known = {} if beside is None else {entry.family.name: entry.index for entry in beside.entries if entry.family}
    entries = tuple(
        Entry(
            ModelResult(name=family.name, generator=family.recipe),
            brief(family.name),
            known.get(family.name, len(known) + i),
            family=family,
        )
        for i, family in enumerate(record.families)
    )
    return _with_best(entries, STABILITY)
