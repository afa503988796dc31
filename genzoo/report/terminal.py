"""The report in a terminal: a narrow table, and who wins what. Light: never imports torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from genzoo.report.measures import Line, Table
from genzoo.report.table import families_table, table_of
from genzoo.report.text import ARROWS, brief, inert
from genzoo.report.verdicts import answers, choice
from genzoo.results import Results, Stability

#: Columns of a terminal whose width nobody tells.
WIDTH = 100
#: Longest name of a model, and of a measure.
LONGEST_NAME = 24
LONGEST_TITLE = 32


def terminal(record: Results | Sequence[Stability], sort: str | None = None, width: int = WIDTH) -> str:
    """The tables, and in words who wins what."""
    tables = [table_of(record, sort)] if isinstance(record, Results) else [families_table(part) for part in record]
    return "\n\n".join(part for table in tables for part in (numbers(table, width), summary(table, width)) if part)


def numbers(table: Table, width: int = WIDTH) -> str:
    """Measures down, models across, the best with a star; models that find no room follow in a second table."""
    shown = table.shown(table.lines)
    heads = [_head(line) for line in table.lines]
    first = max([len("model"), *map(len, heads)]) if heads else 0
    names = {i: brief(table.entries[i].label, LONGEST_NAME) for i in shown}
    cells = {i: [line.cells[i].text + ("*" if line.cells[i].best else " ") for line in table.lines] for i in shown}
    widths = {i: max(len(text) for text in [names[i], *cells[i]]) for i in shown}
    blocks = []
    for part in _folded(shown, widths, width - first):
        rows = [["", *(names[i] for i in part)]]
        for theme, lines in table.themes():
            rows.append([theme.title.upper()])
            for line in lines:
                place = table.lines.index(line)
                rows.append([heads[place], *(cells[i][place] for i in part)])
        blocks.append("\n".join(_row(row, first, [widths[i] for i in part]) for row in rows))
    failed = [entry for entry in table.entries if entry.model.failed]
    blocks += [f"{entry.label} failed: {inert(entry.model.failed or '')[: 2 * WIDTH]}" for entry in failed]
    return "\n\n".join(blocks)


def _head(line: Line) -> str:
    return f"  {brief(line.measure.title, LONGEST_TITLE)} {ARROWS[line.measure.better]}"


def _folded(shown: Sequence[int], widths: dict[int, int], room: int) -> list[list[int]]:
    """The models, as many side by side as there is room for, at least one."""
    parts: list[list[int]] = []
    left = 0
    for i in shown:
        needed = widths[i] + 2
        if not parts or left < needed:
            parts.append([])
            left = room
        parts[-1].append(i)
        left -= needed
    return parts


def _row(row: Sequence[str], first: int, widths: Sequence[int]) -> str:
    return "  ".join([row[0].ljust(first), *(text.rjust(w) for text, w in zip(row[1:], widths, strict=False))]).rstrip()


def summary(table: Table, width: int = WIDTH) -> str:
    """What to choose for what, and a paragraph a theme."""
    paragraphs = [choice(table)]
    paragraphs += [f"{a.theme.title}. {a.lead} {a.others}" for a in answers(table)]
    return "\n".join(textwrap.fill(inert(text), width, subsequent_indent="  ") for text in paragraphs if text)
