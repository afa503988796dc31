"""The summary table: columns, cells with their intervals, and who is best. Light: never imports torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genzoo.results import ModelResult, Results, Score


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        value: for sorting; None where there is none.
        text: as it is read.
        low, high: its interval, where one is known.
        best: whether it is the best of the models.
        detail: what stands beneath it in small type.
    """

    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    best: bool = False
    detail: str = ""


NOTHING = Cell(None, "–")  # noqa: RUF001 -- an en dash is what a table shows for "no number"


@dataclass(frozen=True)
class Column:
    """One column: its key, head, direction ("lower", "higher" or ""), and what it means in a sentence."""

    key: str
    title: str
    better: str
    about: str
    unit: str = ""


def number(value: float) -> str:
    """Three significant digits, without an exponent where people can do without."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if size >= 1 else 3 if size >= 0.1 else 4 if size >= 0.01 else 5}f}".rstrip("0").rstrip(".")


def seconds(value: float) -> str:
    """A duration in the unit that people would use."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def count(value: float) -> str:
    """A large number with a suffix: 2.25 M."""
    for limit, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def megabytes(value: float) -> str:
    """Bytes as MB of 10^6."""
    return f"{value / 1e6:.3g} MB"


def columns(results: Results) -> list[Column]:
    """A column for every metric that any model has, then the costs."""
    seen: dict[str, Column] = {}
    for model in results.models:
        for score in model.scores:
            seen.setdefault(score.metric, Column(score.metric, score.title, score.better, score.about, score.unit))
    if any(model.speed for model in results.models):
        seen |= {column.key: column for column, _ in COSTS}
    return list(seen.values())


def _score_cell(score: Score | None) -> Cell:
    if score is None:
        return NOTHING
    detail = ""
    if score.low is not None and score.high is not None:
        detail = f"{number(score.low)} to {number(score.high)}"
    return Cell(
        score.value,
        number(score.value) + (f" {score.unit}" if score.unit else ""),
        score.low,
        score.high,
        detail=detail,
    )


def _speed(read: Callable[[ModelResult], tuple[float, str] | None]) -> Callable[[ModelResult], Cell]:
    def cell(model: ModelResult) -> Cell:
        found = None if model.kind == "data" or model.speed is None else read(model)
        return NOTHING if found is None else Cell(found[0], found[1])

    return cell


def _throughput(model: ModelResult) -> Cell:
    if model.speed is None:
        return NOTHING
    speed = model.speed
    rates = [speed.batch / value for value in speed.batch_seconds]
    rate = speed.images_per_second
    return Cell(rate, number(rate), min(rates), max(rates), detail=f"batch {speed.batch}")


def _latency(model: ModelResult) -> Cell:
    if model.speed is None:
        return NOTHING
    times = model.speed.latency
    value = model.speed.median_latency
    return Cell(value, seconds(value), min(times), max(times), detail=f"of {len(times)}, batch 1")


def _memory(model: ModelResult) -> tuple[float, str] | None:
    added = model.speed.added_bytes if model.speed else None
    return None if added is None else (added, megabytes(added))


def _flops(model: ModelResult) -> tuple[float, str] | None:
    flops = model.speed.flops if model.speed else None
    return None if flops is None else (flops, count(flops))


#: What a model costs: column and how its cell is read.
COSTS: Sequence[tuple[Column, Callable[[ModelResult], Cell]]] = (
    (
        Column(
            "throughput", "Images/s", "higher", "Pictures per second, many at a time, from seed to finished pixels."
        ),
        _throughput,
    ),
    (Column("latency", "Latency", "lower", "How long one picture takes, by itself."), _latency),
    (
        Column("nfe", "NFE", "lower", "How often the network runs for one picture."),
        _speed(lambda m: (m.speed.nfe, number(m.speed.nfe)) if m.speed else None),
    ),
    (Column("flops", "FLOPs/image", "lower", "Arithmetic for one picture."), _speed(_flops)),
    (
        Column("parameters", "Parameters", "lower", "Numbers that were learned."),
        _speed(lambda m: (m.parameters, count(m.parameters))),
    ),
    (
        Column("memory", "Memory", "lower", "Highest memory beyond what the process held before the model."),
        _speed(_memory),
    ),
)


@dataclass(frozen=True)
class Row:
    """One model's row."""

    model: ModelResult
    cells: tuple[Cell, ...]


def rows(results: Results, sort: str | None = None) -> tuple[list[Column], list[Row]]:
    """The table, best first by the column ``sort``; real images stay last."""
    heads = columns(results)
    costs = {column.key: read for column, read in COSTS}
    table = []
    for model in results.models:
        cells = [costs[c.key](model) if c.key in costs else _score_cell(model.score(c.key)) for c in heads]
        table.append(Row(model, tuple(cells)))
    best = [
        _best(column, [row.cells[i] for row in table if row.model.kind == "model"]) for i, column in enumerate(heads)
    ]
    table = [
        Row(
            row.model,
            tuple(_marked(c, b) if row.model.kind == "model" else c for c, b in zip(row.cells, best, strict=True)),
        )
        for row in table
    ]
    if sort is not None:
        keys = [column.key for column in heads]
        if sort in keys:
            index = keys.index(sort)
            sign = -1 if heads[index].better == "higher" else 1
            table.sort(key=lambda row: _order(row, index, sign))
    return heads, table


def _order(row: Row, index: int, sign: int) -> tuple[bool, bool, float]:
    value = row.cells[index].value
    return row.model.kind == "data", value is None, sign * (value or 0.0)


def _best(column: Column, cells: Sequence[Cell]) -> float | None:
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < 2 or not column.better:
        return None
    return min(values) if column.better == "lower" else max(values)


def _marked(cell: Cell, best: float | None) -> Cell:
    if best is None or cell.value != best:
        return cell
    return Cell(cell.value, cell.text, cell.low, cell.high, True, cell.detail)


def verdicts(results: Results) -> list[str]:
    """Who wins what, by how much, and whether the intervals allow saying so; a sentence each."""
    heads, table = rows(results)
    out = []
    for i, column in enumerate(heads):
        ranked = [
            (row.cells[i], row.model.name)
            for row in table
            if row.model.kind == "model" and row.cells[i].value is not None
        ]
        if len(ranked) < 2 or not column.better:
            continue
        ranked.sort(key=lambda pair: pair[0].value or 0.0, reverse=column.better == "higher")
        (first, winner), (second, runner_up) = ranked[:2]
        out.append(f"{column.title}: {_compared(column, first, winner, second, runner_up)}")
    return out


def _compared(column: Column, first: Cell, winner: str, second: Cell, runner_up: str) -> str:
    if first.value == second.value:
        return f"{winner} and {runner_up} are equal ({first.text})."
    if _overlap(first, second):
        return (
            f"{winner} ({first.text}) and {runner_up} ({second.text}) are too close to call: their intervals overlap."
        )
    a, b = first.value or 0.0, second.value or 0.0
    if column.unit == "%":
        by = f"by {number(abs(a - b))} points"
    else:
        small, large = sorted((abs(a), abs(b)))
        by = f"by a factor of {number(large / small)}" if small > 0 and a * b > 0 else "clearly"
    return f"{winner} wins {by} ({first.text} against {second.text} of {runner_up})."


def _overlap(a: Cell, b: Cell) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


_UNSAFE = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def inert(text: str) -> str:
    """Text without control characters, bidirectional overrides or line breaks: inert in a terminal."""
    kept = (ch if unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else " " for ch in text)
    return " ".join("".join(kept).split())


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    entities = inert(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A bare address would become a link by itself.
    return _UNSAFE.sub(r"\\\1", entities).replace("://", ":&#47;&#47;")


def terminal(results: Results, sort: str | None = None) -> str:
    """The table for a terminal; the best of each column has a star."""
    heads, table = rows(results, sort)
    shown = [i for i, c in enumerate(heads) if c.key not in ("flops",)]
    lines = [["model", *(f"{heads[i].title} {_arrow(heads[i])}".strip() for i in shown)]]
    for row in table:
        if row.model.failed:
            lines.append([inert(row.model.name), "failed: " + inert(row.model.failed)[:60]])
            continue
        lines.append([inert(row.model.name), *(row.cells[i].text + ("*" if row.cells[i].best else "") for i in shown)])
    # A failed row has one long cell: it must not widen the first column of numbers.
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[i]) for line in full) for i in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    out = []
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=False))]
        out.append("  ".join(cells).rstrip())
    return "\n".join([out[0], "-" * len(out[0]), *out[1:]])


def _arrow(column: Column) -> str:
    return {"lower": "↓", "higher": "↑"}.get(column.better, "")


def markdown(results: Results) -> str:
    """The report as Markdown: table, verdicts, settings."""
    _, table = rows(results)
    lines = [
        f"# {len([m for m in results.models if m.kind == 'model'])} models on {escape_markdown(results.dataset)}",
        "",
        markdown_table(results),
        "",
        "**Bold** is the best of the models; below each value its 95 % interval, where one is known. "
        f"n = {results.n} images a model, seeds {escape_markdown(results.seeds)}; features: "
        f"{escape_markdown(results.extractor)}.",
        "",
        *(f"- {escape_markdown(line)}" for line in verdicts(results)),
        "",
        f"Made {escape_markdown(results.made)} by {escape_markdown(results.command)} on "
        f"{escape_markdown(results.environment.processor)}, {results.environment.threads} threads, "
        + ", ".join(f"{escape_markdown(k)} {escape_markdown(v)}" for k, v in results.environment.versions.items())
        + ".",
        "",
    ]
    failed = [row.model for row in table if row.model.failed]
    lines += [f"- {escape_markdown(m.name)} failed: {escape_markdown(m.failed or '')}" for m in failed]
    return "\n".join(lines)


def markdown_table(results: Results) -> str:
    """The summary table alone."""
    heads, table = rows(results)
    head = ["model", *(f"{escape_markdown(c.title)} {_arrow(c)}".strip() for c in heads)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * len(heads)]
    for row in table:
        cells = []
        for cell in row.cells:
            text = f"**{cell.text}**" if cell.best else cell.text
            cells.append(text + (f"<br><sub>{cell.detail}</sub>" if cell.detail else ""))
        lines.append("| " + " | ".join([escape_markdown(row.model.name), *cells]) + " |")
    return "\n".join(lines)
