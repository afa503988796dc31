"""Quality against speed, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from genzoo.report.table import inert
from genzoo.results import ModelResult, Results

#: Stands for "the colour of the text around"; replaced in the SVG, so that one picture suits light and dark pages.
INK = "#010203"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P")


def plottable(results: Results) -> list[ModelResult]:
    """Models with a Frechet distance and a speed."""
    return [m for m in results.models if m.kind == "model" and m.speed is not None and m.score("frechet") is not None]


def _draw(results: Results, models: Sequence[ModelResult], ink: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    rates = [model.speed.images_per_second for model in models if model.speed]
    middle = (min(rates) * max(rates)) ** 0.5
    for i, model in enumerate(models):
        score, speed = model.score("frechet"), model.speed
        if score is None or speed is None:
            continue
        x, y, colour = speed.images_per_second, score.value, COLOURS[i % len(COLOURS)]
        if score.low is not None and score.high is not None:
            reach = [[max(0.0, y - max(score.low, y * 1e-3))], [max(0.0, score.high - y)]]
            axes.errorbar([x], [y], yerr=reach, color=colour, capsize=3, linewidth=1.2)
        axes.plot([x], [y], MARKERS[i % len(MARKERS)], color=colour, markersize=8)
        # Names of the faster models stand to the left of their marks, so that none runs out of the frame.
        right = x > middle
        axes.annotate(
            inert(model.name),
            (x, y),
            xytext=(-8 if right else 8, 8),
            textcoords="offset points",
            ha="right" if right else "left",
            color=ink,
            fontsize=9,
            parse_math=False,
        )
    floor = next((m.score("frechet") for m in results.models if m.kind == "data"), None)
    if floor is not None:
        axes.axhline(floor.value, color=ink, linewidth=0.8, linestyle="--")
        axes.annotate(
            "real images", (0.99, floor.value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            color=ink, fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.25, y=0.25)
    axes.set_xlabel("images per second (faster to the right)", color=ink)
    axes.set_ylabel("Frechet distance (better below)", color=ink)
    axes.tick_params(colors=ink, which="both")
    for spine in axes.spines.values():
        spine.set_color(ink)
    axes.grid(True, which="major", color=ink, alpha=0.15)
    return figure


def svg(results: Results) -> str:
    """The plot as inline SVG in the colour of the surrounding text; empty where nothing can be plotted."""
    models = plottable(results)
    if not models:
        return ""
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: it is read by a screen reader, scales, and the file does not change with the font's version.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "genzoo", "font.family": "sans-serif"}):
        _draw(results, models, INK).savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def png(results: Results) -> bytes:
    """The plot as a PNG on white, for pages that take no SVG."""
    buffer = io.BytesIO()
    figure = _draw(results, plottable(results), "#222222")
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()
