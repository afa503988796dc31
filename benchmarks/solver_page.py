"""The table and the plot of results/solvers.json."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measured import Curve, Difference, Found, Point, describe

#: Evaluations that a column stands for: methods of two evaluations a step miss an even number by one.
COLUMNS = (5, 8, 10, 15, 20, 50, 100, 250, 1000)

#: Those that have a tick.
TICKS = (5, 10, 20, 50, 100, 250, 1000)

#: A line of the table or the plot: column -> point.
Line = Mapping[int, Point]

#: Colours and strokes of a scheduler's lines in the plot: on the grid that is the same for all, and on others.
COMMON, OTHERS = ("#1f6fb4", "o-"), (("#c8481e", "s--"), ("#3a8a3f", "^:"), ("#8a4fa8", "v-."))

#: How many times the anchor's distance the plot reaches up to; what lies above is marked at its edge.
REACH = 6.0


def column(nfe: float) -> int | None:
    """The column that a number of evaluations belongs to, which is at most two above it; None for none."""
    return next((top for top in COLUMNS if top - 3 < nfe <= top), None)


def rows(curve: Curve) -> dict[tuple[str, str], dict[int, Point]]:
    """(scheduler, guidance) -> column -> point, those that are best at few evaluations first.

    What a search measured beside the curve's own lines is left to the JSON file.
    """
    table: dict[tuple[str, str], dict[int, Point]] = {}
    for point in curve.points:
        setting, place = point.setting, column(point.nfe)
        if place is not None and setting.scheduler in curve.lines and setting.guidance in curve.guidances:
            line = table.setdefault((setting.scheduler, setting.guidance), {})
            if place not in line or line[place].nfe < point.nfe:
                line[place] = point

    def best_at_few(line: Line) -> float:
        return min((line[place].value for place in line if place <= 10), default=math.inf)

    return dict(sorted(table.items(), key=lambda item: best_at_few(item[1])))


def parted(scheduler: str) -> tuple[str, str]:
    """(name, grid with whatever else is set) of a scheduler's text; a uniform grid has no lower bound."""
    name, _, options = scheduler.partition(":")
    kept = [part for part in options.split(",") if "spacing=uniform" not in options or not part.startswith("sigma_min")]
    return name, ", ".join(kept).replace("spacing=", "")


def markdown(curve: Curve) -> str:
    """The distance by scheduler and evaluations, what was left out, the goal, and what the searches found."""
    table = rows(curve)
    places = [place for place in COLUMNS if any(place in line for line in table.values())]
    best = {place: min(line[place].value for line in table.values() if place in line) for place in places}
    several = len(curve.guidances) > 1
    head = ["scheduler", "grid", *(["guidance"] if several else []), *map(str, places)]
    lines = [
        f"Frechet distance of {curve.model} against evaluations of the network per image: n = {curve.n}, "
        f"{curve.extractor}, {curve.dataset} test split. Lower is better; the best of a column is bold; small: half "
        "the width of the 95 % interval (jackknife over the generated images).",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * (len(head) - len(places)) + "---:|" * len(places),
    ]
    for (scheduler, guidance), line in table.items():
        due = curve.missing.get(scheduler, ())
        cells = [cell(line.get(place), place, best[place], place in due) for place in places]
        lines.append(f"| {' | '.join([*parted(scheduler), *([guidance] if several else []), *cells])} |")
    unseen = absences(curve)
    by_column = ", ".join(f"{count} at {place}" for place, count in unseen.items())
    legend = "In brackets the evaluations, where a method cannot meet the column's number. -: it has no such walk. "
    lacking = f"?: not measured ({sum(unseen.values())}: {by_column})." if unseen else "Nothing is missing."
    lines += ["", legend + lacking]
    lines += against(curve.goal)
    lines += ["", *(f"- {name} is left out: {why}." for name, why in sorted(curve.skipped.items()))]
    lines += [f"- {sentence(found)}" for found in curve.found]
    lines += ["", f"Made {curve.made} on {curve.environment.processor}: `{curve.command}`"]
    return "\n".join(lines) + "\n"


def cell(point: Point | None, place: int, best: float, due: bool) -> str:
    """A point in the table."""
    if point is None:
        return "?" if due else "-"
    text = f"**{point.value:.3f}**" if point.value == best else f"{point.value:.3f}"
    if point.low is not None and point.high is not None:
        text += f" <sub>±{(point.high - point.low) / 2:.3f}</sub>"
    return text if point.nfe == place else f"{text} ({point.nfe:g})"


def absences(curve: Curve) -> dict[int, int]:
    """Column -> lines that lack it, of those that lack any."""
    counts = {place: sum(place in due for due in curve.missing.values()) for place in COLUMNS}
    return {place: count for place, count in counts.items() if count}


def against(goal: Sequence[Difference]) -> list[str]:
    """The differences from the anchor as a table."""
    if not goal:
        return []
    lines = [
        "",
        "Ten evaluations against DDPM with 1,000 steps, paired: the same seeds and classes for both. The scheduler "
        "that is best on the first seeds is held against it once more on seeds that had no part in the choice.",
        "",
        "| scheduler | grid | seeds | distance | DDPM, 1,000 | difference, 95 % interval | the interval says |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for one in goal:
        cells = [
            *parted(one.setting.scheduler), f"{one.start} to {one.start + one.n - 1}", f"{one.distance:.3f}",
            f"{one.anchor:.3f}", one.interval, one.verdict,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sentence(found: Found) -> str:
    """A search's outcome in words."""
    where = f"Cheapest within {found.within} to reach {found.goal:.4f} ({found.tried} settings tried)"
    doubts = f" {len(found.unconfirmed)} that reached it in the search did not on fresh seeds." * bool(
        found.unconfirmed
    )
    if found.point is None:
        return f"{where}: none found.{doubts}"
    chosen = f"{where}: {describe(found.point)}, with {found.point.nfe:g} evaluations."
    fresh = found.fresh
    if fresh is not None:
        chosen += (
            f" On seeds {fresh.start} to {fresh.start + fresh.n - 1}: {fresh.distance:.4f} against {fresh.anchor:.4f}, "
            f"difference {fresh.interval}."
        )
    return chosen + doubts


def svg(curve: Curve) -> str:
    """A panel a scheduler: its distance against the evaluations on each grid, before all the others in grey."""
    buffer = io.StringIO()
    panels = series(curve)
    across = 5
    down = max(math.ceil(len(panels) / across), 1)
    # A fixed salt: the same results give the same file.
    with rc_context({"svg.hashsalt": "genzoo", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(12, 0.6 + 2.2 * down), layout="constrained", facecolor="white")
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        anchor = next((p for p in curve.points if p.setting.name == "ddpm" and p.nfe == 1000), None)
        values = [point.value for lines in panels.values() for line in lines.values() for point in line.values()]
        bottom = 0.7 * min(values, default=1.0)
        top = REACH * (anchor.value if anchor else bottom)
        for panel, (name, lines) in zip(axes, panels.items(), strict=False):
            for others in panels.values():
                for line in others.values():
                    trace(panel, line, top, color="#c8c8c8", linewidth=0.6, zorder=1)
            if anchor is not None:
                panel.axhline(anchor.value, color="black", linewidth=0.8, linestyle=":", zorder=2)
            draw(panel, lines, top)
            panel.set_title(name, fontsize=9, fontweight="bold", loc="left")
            panel.set(xscale="log", yscale="log", ylim=(bottom, top))
            panel.minorticks_off()
            panel.grid(alpha=0.25)
        for panel in axes[len(panels) :]:
            panel.axis("off")
        ticks = [tick for tick in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0) if bottom <= tick <= top]
        axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[0].set_xticks(TICKS, [str(place) for place in TICKS])
        for panel in axes[max(len(panels) - across, 0) : len(panels)]:  # the lowest of each column
            panel.tick_params(labelbottom=True)
        figure.supxlabel("evaluations of the network per image", fontsize=9)
        figure.supylabel(f"Frechet distance, n = {curve.n}", fontsize=9)
        figure.suptitle(
            f"{curve.model}: grey, all schedulers; dotted, DDPM with 1,000 steps; bars, 95 %; triangles lie above",
            fontsize=9,
        )
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def series(curve: Curve) -> dict[str, dict[str, Line]]:
    """Scheduler -> grid, with guidance where there are several -> line of the table."""
    panels: dict[str, dict[str, Line]] = {}
    for (scheduler, guidance), line in rows(curve).items():
        name, grid = parted(scheduler)
        label = f"{brief(grid)}, guidance {guidance}" if len(curve.guidances) > 1 else brief(grid)
        panels.setdefault(name, {})[label] = line
    return panels


def brief(grid: str) -> str:
    """A grid in few characters: "log-snr, sigma_max=80, sigma_min=0.05" is "log-snr 80 to 0.05"."""
    return grid.replace(", sigma_max=", " ").replace(", sigma_min=", " to ")


def draw(panel: Axes, lines: Mapping[str, Line], top: float) -> None:
    """A scheduler's own lines, with bars and a legend."""
    others = iter(OTHERS * len(lines))
    for label, line in sorted(lines.items(), key=lambda item: item[0] != "trailing"):
        colour, stroke = COMMON if label == "trailing" else next(others)
        inside = trace(panel, line, top, stroke, color=colour, label=label, markersize=3, linewidth=1.2, zorder=4)
        bars = [point for point in inside if point.low is not None and point.high is not None]
        panel.vlines(
            [point.nfe for point in bars],
            [point.low or 0.0 for point in bars],
            [point.high or 0.0 for point in bars],
            color=colour,
            linewidth=0.8,
            zorder=3,
        )
        above = [point for point in line.values() if point not in inside]
        panel.plot([point.nfe for point in above], [0.93 * top] * len(above), "^", color=colour, markersize=4, zorder=4)
    panel.legend(fontsize=6.5, frameon=False, loc="upper right", bbox_to_anchor=(1.02, 0.95))


def trace(panel: Axes, line: Line, top: float, stroke: str = "-", **style: object) -> list[Point]:
    """Draw what lies below ``top``; returns those points, by evaluations."""
    inside = sorted((point for point in line.values() if point.value < top), key=lambda point: point.nfe)
    panel.plot([point.nfe for point in inside], [point.value for point in inside], stroke, **style)  # type: ignore[arg-type]
    return inside
