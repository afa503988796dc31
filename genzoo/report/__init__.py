"""The report: a comparison as HTML, Markdown and a table for the terminal, made from results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genzoo.files import write_whole
from genzoo.report.markdown import markdown
from genzoo.report.page import html
from genzoo.report.terminal import terminal
from genzoo.results import Results, Stability

__all__ = ["html", "markdown", "terminal", "write_report"]


def write_report(record: Results | Sequence[Stability], folder: Path, sort: str | None = None) -> list[Path]:
    """Write a report into a folder, each file whole or not at all; returns their paths.

    report.html and report.md, and the record itself: results.json; stability.json where nothing was compared
    (stability-2.json and so on for those of further machines).
    """
    parts = {"report.html": html(record, sort), "report.md": markdown(record, sort)}
    if isinstance(record, Results):
        parts[record.FILE] = record.to_json()
    else:
        for turn, part in enumerate(record, start=1):
            parts[f"stability-{turn}.json" if turn > 1 else part.FILE] = part.to_json()
    for name, text in parts.items():
        write_whole(folder / name, text)
    return [folder / name for name in parts]
