"""The table and the plot of results/solvers.json."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from sampling import Curve, Found, Point, describe

#: Evaluations that a column stands for: methods of two evaluations a step miss an even number by one.
COLUMNS = (5, 8, 10, 15, 20, 50, 100, 250, 1000)


def column(nfe: float) -> int | None:
    """The column that a number of evaluations belongs to, which is at most two above it; None for none."""
    return next((top for top in COLUMNS if top - 3 < nfe <= top), None)


def rows(curve: Curve) -> dict[tuple[str, str], dict[int, Point]]:
    """(scheduler, guidance) -> column -> point, those that are best at few evaluations first.

    Lines with less than half of the columns, as a search leaves them, are left to the JSON file.
    """
    table: dict[tuple[str, str], dict[int, Point]] = {}
    for point in curve.points:
        place = column(point.nfe)
        if place is not None:
            line = table.setdefault((point.setting.scheduler, point.setting.guidance), {})
            if place not in line or line[place].nfe < point.nfe:
                line[place] = point
    full = max((len(line) for line in table.values()), default=0)

    def best_at_few(line: dict[int, Point]) -> float:
        return min((line[place].value for place in line if place <= 10), default=float("inf"))

    kept = {key: line for key, line in table.items() if 2 * len(line) >= full}
    return dict(sorted(kept.items(), key=lambda item: best_at_few(item[1])))


def markdown(curve: Curve) -> str:
    """The distance by scheduler and evaluations, what was left out, and what the searches found."""
    table = rows(curve)
    places = [place for place in COLUMNS if any(place in line for line in table.values())]
    best = {place: min(line[place].value for line in table.values() if place in line) for place in places}
    lines = [
        f"Frechet distance of {curve.model} against evaluations of the network per image: n = {curve.n}, "
        f"{curve.extractor}, {curve.dataset} test split. Lower is better; the best of a column is bold.",
        "",
        "| scheduler | guidance | " + " | ".join(map(str, places)) + " |",
        "|---|---|" + "---:|" * len(places),
    ]
    for (scheduler, guidance), line in table.items():
        cells = [cell(line.get(place), place, best[place]) for place in places]
        lines.append(f"| {scheduler} | {guidance} | " + " | ".join(cells) + " |")
    lines += ["", "In brackets the evaluations, where a method cannot meet the column's number.", ""]
    lines += [f"- {name} is left out: {why}." for name, why in sorted(curve.skipped.items())]
    lines += [f"- {sentence(found)}" for found in curve.found]
    lines += ["", f"Made {curve.made} on {curve.environment.processor}: `{curve.command}`"]
    return "\n".join(lines) + "\n"


def cell(point: Point | None, place: int, best: float) -> str:
    """A point in the table."""
    if point is None:
        return ""
    text = f"**{point.value:.3f}**" if point.value == best else f"{point.value:.3f}"
    return text if point.nfe == place else f"{text} ({point.nfe:g})"


def sentence(found: Found) -> str:
    """A search's outcome in words."""
    where = f"Cheapest within {found.within} to reach {found.goal:.4f} ({found.tried} settings tried)"
    if found.point is None:
        return f"{where}: none found."
    return f"{where}: {describe(found.point)}, with {found.point.nfe:g} evaluations."


def svg(curve: Curve) -> str:
    """The distance against the evaluations, a line a scheduler."""
    buffer = io.StringIO()
    # A fixed salt: the same results give the same file.
    with rc_context({"svg.hashsalt": "genzoo", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.5, 5.2), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        lines = series(curve)
        for i, (label, points) in enumerate(lines.items()):
            style, colour = "o-" if i % 2 == 0 else "s--", colormaps["turbo"](0.05 + 0.9 * i / len(lines))
            xs, ys = [point.nfe for point in points], [point.value for point in points]
            axes.plot(xs, ys, style, color=colour, label=label, markersize=3.5, linewidth=1.1)
        anchor = next((p for p in curve.points if p.setting.scheduler.startswith("ddpm") and p.nfe == 1000), None)
        if anchor is not None:
            axes.axhline(anchor.value, color="black", linewidth=0.8, linestyle=":", label="ddpm, 1000 steps")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(COLUMNS, [str(place) for place in COLUMNS])
        axes.minorticks_off()
        axes.set_xlabel("evaluations of the network per image")
        axes.set_ylabel(f"Frechet distance, n = {curve.n}")
        axes.set_title(curve.model, fontsize=11)
        axes.grid(alpha=0.3)
        if lines:
            figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def series(curve: Curve) -> dict[str, Sequence[Point]]:
    """Label -> points by evaluations, of the rows of the table."""
    plain = all(point.setting.guidance == "1" for point in curve.points)
    return {
        scheduler if plain else f"{scheduler}, guidance {guidance}": sorted(line.values(), key=lambda point: point.nfe)
        for (scheduler, guidance), line in rows(curve).items()
    }
