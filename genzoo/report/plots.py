"""What the pictures of a report show: quality against speed, against control, and along training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genzoo.milestones import Milestone
from genzoo.report.drawing import INK, Style, legend, name_in_picture, panel, style, thinned
from genzoo.report.measures import Cell, Measure, Table
from genzoo.results import Score, Sweep
from genzoo.runs import DISTANCE, Family

BETTER = {"lower": "lower is better", "higher": "higher is better"}


def axis_title(measure: Measure | Score) -> str:
    """A measure's name and direction, for the side of a picture."""
    return f"{name_in_picture(measure.title)} ({BETTER[measure.better]})"


# -- quality against speed --------------------------------------------------------------------------------------------


def quality_speed(table: Table, ink: str = INK) -> Any | None:
    """The first measure of quality against images per second; None where no model has both."""
    quality = next((lines[0] for theme, lines in table.themes() if theme.key == "quality"), None)
    speed = next((line for line in table.lines if line.measure.key == "throughput"), None)
    if quality is None or speed is None:
        return None
    shown = [
        (entry, quality.cells[i], speed.cells[i])
        for i, entry in enumerate(table.entries)
        if entry.competes and None not in (quality.cells[i].value, speed.cells[i].value)
    ]
    if not shown:
        return None
    log = ["x", "y"] if all((cell.value or 0) > 0 for _, cell, _ in shown) else ["x"]
    figure, axes = panel("", "images per second (faster to the right)", axis_title(quality.measure), ink=ink, log=log)
    axes.margins(0.12)
    if len(shown) == 1:
        # A decade about a model that stands alone: an axis needs a length, before it has data.
        rate = shown[0][2].value or 1.0
        axes.set_xlim(rate / 10, rate * 10)
    for entry, y, x in shown:
        _mark(axes, style(entry.index), x, y, name_in_picture(entry.label))
    _floor(axes, next((quality.cells[i].value for i, e in enumerate(table.entries) if not e.competes), None), ink)
    legend(axes, ink)
    return figure


def _mark(axes: Any, drawn: Style, x: Cell, y: Cell, name: str) -> None:
    place = [x.value], [y.value]
    if y.low is not None and y.high is not None and y.value is not None:
        # A logarithmic axis has no place for what reaches 0.
        low = max(y.low, 1e-3 * y.value) if axes.get_yscale() == "log" else y.low
        reach = [[max(0.0, y.value - low)], [max(0.0, y.high - y.value)]]
        axes.errorbar(*place, yerr=reach, color=drawn.colour, capsize=3, linewidth=1.4)
    axes.plot(*place, drawn.marker, color=drawn.colour, markersize=8, label=name)


def _floor(axes: Any, value: float | None, ink: str) -> None:
    """What real images reach, as a line; none on a logarithmic axis for what is not above 0."""
    if value is not None and (value > 0 or axes.get_yscale() == "linear"):
        axes.axhline(value, color=ink, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
        axes.annotate(
            "real images", (0.99, value), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", ha="right", va="bottom", color=ink, fontsize=9,
        )  # fmt: skip


# -- control against quality ------------------------------------------------------------------------------------------


def sweep_axes(sweeps: Sequence[Sweep]) -> tuple[Score, Score] | None:
    """What the sweeps trade: their first measure of control (else of diversity), and their first of quality."""
    scores = [score for sweep in sweeps for point in sweep.points for score in point.scores]
    quality = next((score for score in scores if score.theme == "quality"), None)
    for theme in ("control", "diversity"):
        other = next((score for score in scores if score.theme == theme), None)
        if other is not None and quality is not None:
            return other, quality
    return None


def swept(sweep: Sweep, x: Score, y: Score) -> list[tuple[float, Score, Score]]:
    """(the option's value, x, y) at every point where both were measured."""
    found = []
    for point in sweep.points:
        scores = {score.metric: score for score in point.scores}
        if x.metric in scores and y.metric in scores:
            found.append((point.value, scores[x.metric], scores[y.metric]))
    return found


def control(table: Table) -> Any | None:
    """What each option's turning gives and costs, points labelled by its value; None where nothing was swept."""
    sweeps = [(entry, sweep) for entry in table.entries for sweep in entry.model.sweeps]
    traded = sweep_axes([sweep for _, sweep in sweeps])
    if traded is None:
        return None
    x, y = traded
    curves = [(entry, sweep, points) for entry, sweep in sweeps if (points := swept(sweep, x, y))]
    log = ["y"] if all(b.value > 0 for *_, points in curves for _, _, b in points) else []
    figure, axes = panel("", axis_title(x), axis_title(y), log=log)
    axes.margins(0.12)
    for entry, sweep, points in curves:
        drawn = style(entry.index)
        turn = [other.option for other in entry.model.sweeps].index(sweep.option)
        places = [a.value for _, a, _ in points], [b.value for _, _, b in points]
        axes.plot(
            *places, color=drawn.colour, marker=drawn.marker, markersize=5, linewidth=1.4, linestyle=style(turn).dash,
            label=f"{name_in_picture(entry.label)}: {sweep.option}",
        )  # fmt: skip
        for value, a, b in points:
            axes.annotate(
                f"{value:g}", (a.value, b.value), xytext=(4, 5), textcoords="offset points", fontsize=8, color=INK
            )
    legend(axes)
    return figure


# -- training ---------------------------------------------------------------------------------------------------------


def _curve(milestones: Sequence[Milestone]) -> list[tuple[float, float]]:
    """(minutes, distance) wherever it was measured."""
    return [(m.seconds / 60, m.scores[DISTANCE]) for m in milestones if DISTANCE in m.scores]


def _line(
    axes: Any,
    points: Sequence[tuple[float, float]],
    colour: str,
    label: str | None,
    linewidth: float = 1.4,
    **look: Any,
) -> None:
    """A curve; with its name in the legend, unless that is None."""
    axes.plot(*zip(*thinned(points), strict=True), color=colour, linewidth=linewidth, label=label, **look)


def training(table: Table) -> Any | None:
    """The distance against the minutes of training; None where no model's training was measured on the way."""
    curves = [(entry, points) for entry in table.entries if (points := _curve(entry.model.training))]
    if not curves:
        return None
    log = ["y"] if all(y > 0 for _, points in curves for _, y in points) else []
    figure, axes = panel("", "minutes of training", f"{DISTANCE.capitalize()} distance", log=log)
    for entry, points in curves:
        drawn = style(entry.index)
        look = {"linestyle": drawn.dash, "marker": drawn.marker, "markersize": 4}
        _line(axes, points, drawn.colour, name_in_picture(entry.label), **look)
    legend(axes)
    return figure


def distances(family: Family, limits: tuple[float, float] | None, floor: float | None) -> Any | None:
    """One curve of the distance a seed, above what real images reach; None where none was measured.

    All families share the ``limits``.
    """
    curves = [(run, points) for run in family.runs if (points := run.curve())]
    if not curves:
        return None
    log = ["y"] if limits is not None and limits[0] > 0 else []
    figure, axes = panel("", "steps", "distance", size=(3.6, 2.4), log=log)
    for turn, (run, points) in enumerate(curves):
        drawn = style(turn)
        label = f"seed {run.seed}" + (" (collapsed)" if run.collapsed is not None else "")
        _line(axes, points, drawn.colour, label, linestyle=drawn.dash)
    if limits is not None:
        axes.set_ylim(*limits)
    _floor(axes, floor, INK)
    legend(axes)
    return figure


def distance_limits(families: Sequence[Family], floor: float | None) -> tuple[float, float] | None:
    """What all the families' distances, and that of real images, lie between, with a little room."""
    values = [value for family in families for run in family.runs for _, value in run.curve()]
    if not values:
        return None
    values += [] if floor is None or floor <= 0 else [floor]
    low, high = min(values), max(values)
    return (low / 1.15, high * 1.15) if low > 0 else (low - 0.05 * abs(high), high * 1.05)


def losses(family: Family) -> Any | None:
    """Every logged loss of every seed, one colour a loss; None where none was logged."""
    names = list(dict.fromkeys(name for run in family.runs for m in run.milestones for name in m.losses))
    if not names:
        return None
    figure, axes = panel("", "steps", "loss", size=(3.6, 2.4))
    for turn, name in enumerate(names):
        label: str | None = name_in_picture(name)
        for run in family.runs:
            points = [(m.step, m.losses[name]) for m in run.milestones if name in m.losses]
            if points:
                _line(axes, points, style(turn).colour, label, linewidth=1.1, alpha=0.8)
                label = None
    legend(axes)
    return figure
