"""The report: a comparison as HTML, Markdown and a table for the terminal, made from results alone."""

from __future__ import annotations

from pathlib import Path

from genzoo.files import write_whole
from genzoo.report.page import html
from genzoo.report.table import markdown
from genzoo.results import Results

__all__ = ["html", "markdown", "write_report"]


def write_report(results: Results, folder: Path, sort: str | None = None) -> list[Path]:
    """Write report.html, report.md and results.json into a folder, each whole or not at all; returns their paths."""
    parts = {"report.html": html(results, sort), "report.md": markdown(results), "results.json": results.to_json()}
    for name, text in parts.items():
        write_whole(folder / name, text)
    return [folder / name for name in parts]
