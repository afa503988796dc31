"""Pictures that a page can hold: SVG in the ink of the text around, with ids that no other picture on the page has."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from genzoo.report.text import brief

#: Stands for "the colour of the text around"; replaced in the SVG, so that one picture suits light and dark pages.
INK = "#010203"
#: On white paper, where there is no page around.
PRINT = "#222222"

#: Longest name inside a picture.
LONGEST = 26

#: Names in one legend.
MOST_NAMES = 8

#: Points of one curve that are drawn; more are not to be told apart.
MOST_POINTS = 200

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"#([\w.-]+)")


class Style(NamedTuple):
    """How one model is drawn, in every picture of a page."""

    colour: str
    marker: str
    dash: Any


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2569b", "#b8860b", "#3a9bdc", "#7b5fc4", "#8a8a3a")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


def style(index: int) -> Style:
    """The colour, mark and dashes of the index-th model; all three, for those who cannot tell the colours apart."""
    return Style(_COLOURS[index % 8], _MARKERS[index % 8], _DASHES[index % 4])


def name_in_picture(text: str) -> str:
    """A name, as long as a picture has room for."""
    name = brief(text, LONGEST)
    # A name with an underscore in front is one that a legend leaves out.
    return f" {name}" if name.startswith("_") else name


def panel(
    title: str, x: str, y: str, *, ink: str = INK, size: tuple[float, float] = (4.6, 3.4), log: Sequence[str] = ()
) -> tuple[Any, Any]:
    """A figure and its axes: labelled, in one ink, logarithmic along the axes named in ``log``.

    Small: a page scales it up on a wide screen, and on a phone its letters are still letters.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    if title:
        axes.set_title(title, color=ink, fontsize=10, parse_math=False)
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.set_xlabel(x, color=ink, fontsize=10, parse_math=False)
    axes.set_ylabel(y, color=ink, fontsize=10, parse_math=False)
    axes.tick_params(colors=ink, which="both", labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_alpha(0.45)
        spine.set_visible(side in ("left", "bottom"))
    axes.grid(True, which="major", color=ink, alpha=0.13, linewidth=0.7)
    return figure, axes


def _plain_ticks(axis: Any) -> None:
    """Numbers as people write them along a logarithmic axis, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(axes: Any, ink: str = INK) -> None:
    """A legend above the axes, where it hides nothing; of the first curves, where more would leave no room."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    if len(names) > MOST_NAMES:
        names[MOST_NAMES - 1 :] = [f"and {len(names) - MOST_NAMES + 1} more"]
    drawn = axes.figure.legend(
        handles[: len(names)],
        names,
        fontsize=9,
        frameon=False,
        labelcolor=ink,
        loc="outside upper left",
        ncols=2 if max(map(len, names)) > 14 else 3,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS of a curve, evenly, the last one among them."""
    stride = max(1, -(-len(points) // MOST_POINTS))
    return [*points[:-1:stride], *points[-1:]]


def svg(figure: Any, name: str, description: str) -> str:
    """A figure as inline SVG.

    Args:
        name: unlike that of any other picture on the page; every id begins with it.
        description: for those who hear the page.
    """
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: it is read by a screen reader, scales, and the file does not change with the font's version.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "genzoo", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    root = ElementTree.fromstring(text[text.index("<svg") :])
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    used = {found for element in root.iter() for found in _references(element)}
    for element in root.iter():
        _rename(element, name, used)
    # Its size is the page's business.
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("role", "img")
    root.set("aria-label", description)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode").replace(INK, "currentColor")


def _references(element: ElementTree.Element) -> Iterator[str]:
    for value in element.attrib.values():
        yield from _REFERENCE.findall(value) if "url(#" in value or value.startswith("#") else ()


def _rename(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Give an element's id and references the picture's name; an id that nobody refers to goes."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            if value in used:
                element.set(key, f"{name}-{value}")
            else:
                del element.attrib[key]
        elif key == f"{{{_XLINK}}}href" or "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"#{name}-\1", value))


def png(figure: Any) -> bytes:
    """A figure as a PNG on white, for pages that take no SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()
