"""Put a comparison into the README: its headline table, who wins what, and a picture of its samples and its plot.

genzoo compare -o benchmarks/run
genzoo stability -o benchmarks/stability
python benchmarks/readme.py benchmarks/run/results.json benchmarks/stability/stability.json
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from genzoo.merge import Source, merge
from genzoo.report.drawing import PRINT, png
from genzoo.report.markdown import models_down, verdict_list
from genzoo.report.plots import quality_speed
from genzoo.report.table import table_of
from genzoo.results import Results, read_record

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "results" / "fashion-mnist.json"
PICTURE = KEPT.with_suffix(".png")
START = "<!-- results: benchmarks/results/fashion-mnist.json -->\n"
END = "<!-- end of results -->"

#: Measures of the README's table; all of them stand in the report.
HEADLINE = (
    "frechet", "kernel", "precision", "recall", "coverage", "label-accuracy", "throughput", "latency", "parameters",
)  # fmt: skip
SORT = "frechet"

#: Inches: widths of a sheet of samples and of the plot.
SHEET, PLOT = 5.0, 6.0


def section(results: Results) -> str:
    """What stands between the README's two marks."""
    table = table_of(results, SORT)
    environment = results.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    repeats = f", {results.repeats} times over" if results.repeats > 1 else ""
    lines = [
        models_down(table, [line for key in HEADLINE for line in table.lines if line.measure.key == key]),
        "",
        f"n = {results.n} pictures a model{repeats}, seeds {results.seeds}, against {results.reference_n} test images; "
        f"in small type 95 % intervals. {environment.processor}, {environment.threads} threads; {versions}. "
        f"Command: `{results.command}`.",
        "",
        *verdict_list(table),
    ]
    return "\n".join(lines) + "\n"


def picture(results: Results) -> bytes:
    """The models' first pictures, one below the other, beside the plot of quality against speed, as a PNG."""
    table = table_of(results, SORT)
    shown = [(entry.label, entry.model.sheet) for entry in table.entries if entry.model.sheet]
    figure = Figure(figsize=(SHEET + PLOT, 0.46 * SHEET * len(shown)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(shown), 2, width_ratios=[SHEET, PLOT])
    for i, (label, sheet) in enumerate(shown):
        axes = figure.add_subplot(grid[i, 0])
        image = Image.open(io.BytesIO(base64.b64decode(sheet.png)))
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(label, fontsize=11, parse_math=False)
        axes.set_axis_off()
    plotted = quality_speed(table, PRINT)
    if plotted is not None:
        beside = figure.add_subplot(grid[:, 1])
        beside.imshow(Image.open(io.BytesIO(png(plotted))))
        beside.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def main(paths: Sequence[Path]) -> None:
    """Copy the results, draw the picture, and write the README's section."""
    results = merge([Source(str(path), read_record(path)) for path in paths])
    if not isinstance(results, Results):
        raise SystemExit("nothing was compared; give a results.json of genzoo compare")
    results.write(KEPT)
    PICTURE.write_bytes(picture(results))
    readme = ROOT / "README.md"
    text = readme.read_text()
    between = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    readme.write_text(between.sub(lambda _: START + section(results) + END, text))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
