"""The table and the plot of results/guidance.json."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from genzoo.metric import Estimate

if TYPE_CHECKING:
    from guidance import Control, Reading

#: Marked on the axis, as far as the plot reaches.
DISTANCES = (0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 7)

#: Metric -> (its column, how its numbers are written).
COLUMNS = {
    "frechet": ("Frechet distance", ".3f"),
    "label-accuracy": ("recognised %", ".1f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
}

NOTES = (
    "Recognised is the share that the extractor's own classifier takes for the class that was asked for. The curve "
    "`classifier` is guided by that same classifier, so its share recognised is circular, and its Frechet distance is "
    "taken through the same features: read its precision and recall with that in mind.",
    "`cfgpp` is exact for first-order solvers: it is walked with ddim, and `cfg, ddim` is its neighbour. Its strength "
    "0 is the unconditional model, 1 the conditional x_0 noised again with the unconditional eps.",
    "`negative` moves away from shirts alone: shirts themselves are not guided by it. The two curves with an interval "
    "are guided where 0.3 < sigma / alpha <= 5 only, which saves evaluations.",
    "Dynamic thresholding divides the whole image where half a per cent of its pixels go beyond [-1, 1]. Made for data "
    "that rarely touch its ends, it turns the black that a third of these pixels are into grey (`threshold`, `chain`).",
    "`autoguidance` leads away from ddpm.fashion-mnist-weak, which knows the class as well: no way to obey it more.",
)


def lines(control: Control) -> dict[str, Sequence[Reading]]:
    """Curve -> readings by strength, led by the plain model on the same scheduler where the curve begins at it."""
    curves: dict[str, list[Reading]] = {}
    for reading in control.readings:
        if reading.strength is not None:
            curves.setdefault(reading.curve, []).append(reading)
    plain = {r.setting.scheduler: r for r in control.readings if r.strength is None}
    start = {name: plain.get(found[0].setting.scheduler) for name, found in curves.items() if name in control.plain}
    return {name: [*([first] if (first := start.get(name)) else []), *found] for name, found in curves.items()}


def cell(estimate: Estimate | None, form: str) -> str:
    """A number with its interval in small type."""
    if estimate is None:
        return ""
    value, low, high = estimate.value, estimate.low, estimate.high
    return f"{value:{form}}" + ("" if low is None or high is None else f" <sub>{low:{form}} to {high:{form}}</sub>")


def markdown(control: Control) -> str:
    """Every reading, what was left out, and what the figures mean."""
    walk = control.readings[0].setting
    text = [
        f"Control against quality of {control.model}: n = {control.n}, {control.extractor}, {control.dataset} test "
        f"split, {walk.steps} steps of {walk.name} where nothing else is said. In small type the 95 % intervals; few "
        "images make every distance larger, so these compare with each other alone.",
        "",
        f"| guidance | strength | evaluations | {' | '.join(title for title, _ in COLUMNS.values())} |",
        f"|---|---:|---:|{'---:|' * len(COLUMNS)}",
    ]
    for reading in control.readings:
        named = f"none ({reading.setting.name})" if reading.strength is None else reading.curve
        strength = "" if reading.strength is None else f"{reading.strength:g}"
        scores = (cell(reading.scores.get(name), form) for name, (_, form) in COLUMNS.items())
        text.append(f"| {named} | {strength} | {reading.nfe:g} | {' | '.join(scores)} |")
    text += ["", *(f"- {note}" for note in NOTES)]
    text += [f"- {name} is left out: {why}." for name, why in sorted(control.left_out.items())]
    text += ["", f"Made {control.made} on {control.environment.processor}: `{control.command}`"]
    return "\n".join(text) + "\n"


def svg(control: Control) -> str:
    """Share recognised against the Frechet distance, a curve a guidance."""
    buffer = io.StringIO()
    # A fixed salt: the same results give the same file.
    with rc_context({"svg.hashsalt": "genzoo", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.5, 5.2), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        curves = lines(control)
        for i, (name, found) in enumerate(curves.items()):
            style, colour = "o-" if i % 2 == 0 else "s--", colormaps["turbo"](0.05 + 0.9 * i / len(curves))
            xs, ys = ([r.scores[name].value for r in found] for name in ("frechet", "label-accuracy"))
            axes.plot(xs, ys, style, color=colour, label=name, markersize=3.5, linewidth=1.1)
            last = found[-1]
            axes.annotate(
                f"{last.strength:g}",
                (xs[-1], ys[-1]),
                fontsize=7,
                color=colour,
                xytext=(3, -8),
                textcoords="offset points",
            )
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = [distance for distance in DISTANCES if low < distance < high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"Frechet distance, n = {control.n} (lower is better)")
        axes.set_ylabel("recognised as the class asked for, % (higher is better)")
        axes.set_title(f"{control.model}: the number at a curve's end is its strength", fontsize=11)
        axes.grid(alpha=0.3)
        if curves:
            figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
