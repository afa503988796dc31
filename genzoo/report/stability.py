"""How families train: what several seeds of one recipe came to, as measures. Light: never imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from genzoo.report.measures import Cell, Entry, Measure, Reader
from genzoo.report.text import number, span
from genzoo.runs import Family, Spread

SEEDS = "ranges over the seeds"


def _of_family(read: Callable[[Family], Cell | None]) -> Reader:
    """A cell from the training runs of a model's family; none where it was not trained."""

    def cell(entry: Entry) -> Cell | None:
        return None if entry.family is None else read(entry.family)

    return cell


def spread_cell(found: Spread | None) -> Cell | None:
    """The mean of several runs, with the lowest and the highest as its interval."""
    if found is None:
        return None
    return Cell(found.mean, number(found.mean), found.lowest, found.highest, (span(found.lowest, found.highest),))


def divergence_cell(family: Family) -> Cell | None:
    """Final over best distance; a run that failed has no end, so nobody is called better than others by the rest."""
    cell, failed = spread_cell(family.divergence()), sum(run.failed is not None for run in family.runs)
    return replace(cell, text=f"{cell.text} with {failed} failed", high=math.inf) if cell and failed else cell


def collapsed_cell(family: Family) -> Cell:
    """The share of runs that collapsed, with its Wilson interval."""
    share = family.collapsed()
    value = share.hits / share.count if share.count else None
    return Cell(value, f"{share.hits} of {share.count}", share.low, share.high)


def variation_cell(family: Family) -> Cell | None:
    """Standard deviation over mean of the last distances; none for fewer than two runs that ended."""
    ends = [run for run in family.runs if run.final() is not None]
    found = family.final()
    if found is None or len(ends) < 2 or found.mean <= 0:
        return None
    value = 100 * found.deviation / found.mean
    return Cell(value, f"{number(value)} %", details=(f"of {len(ends)} runs",))


def _measure(
    key: str, title: str, about: str, read: Callable[[Family], Cell | None], **more: Any
) -> tuple[Measure, Reader]:
    """A measure of this theme, of which less is better, and how its cell is read."""
    return Measure(key, title, "lower", "stability", about, **more), _of_family(read)


#: Each measure, and how its cell is read. The first stands for the theme.
STABILITY: Sequence[tuple[Measure, Reader]] = (
    _measure(
        "divergence",
        "End over best",
        "How far from its best a training run ends: 1 is at its best, 2 twice as far from real pictures.",
        divergence_cell,
        interval=SEEDS,
    ),
    _measure(
        "collapsed",
        "Collapsed runs",
        "Training runs that ended in ruin, of those that were started.",
        collapsed_cell,
    ),
    _measure(
        "variation",
        "Spread over seeds",
        "How much the runs' last distances differ: their standard deviation over their mean.",
        variation_cell,
        unit="%",
    ),
    _measure(
        "final",
        "Distance at the end",
        "Where the runs of the short recipe end; hold it against the other families, not against shipped models.",
        lambda family: spread_cell(family.final()),
        interval=SEEDS,
    ),
    _measure(
        "reached",
        "Best distance",
        "The nearest that the runs of the short recipe came to real pictures on the way.",
        lambda family: spread_cell(family.best()),
        interval=SEEDS,
    ),
)
