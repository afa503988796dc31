"""Put a comparison into the README: its table, and a picture of its samples and its plot.

genzoo compare -o benchmarks/run
python benchmarks/readme.py benchmarks/run/results.json
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from genzoo.report import plot
from genzoo.report.table import markdown_table, verdicts
from genzoo.results import Results, read_results

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "results" / "fashion-mnist.json"
PICTURE = KEPT.with_suffix(".png")
START = "<!-- results: benchmarks/results/fashion-mnist.json -->\n"
END = "<!-- end of results -->"


def section(results: Results) -> str:
    """What stands between the README's two marks."""
    environment = results.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    lines = [
        markdown_table(results),
        "",
        f"n = {results.n} pictures a model, seeds {results.seeds}, against {results.reference_n} test images; in small "
        f"type 95 % intervals. {environment.processor}, {environment.threads} threads; {versions}. "
        f"Command: `{results.command}`.",
        "",
        *(f"- {line}" for line in verdicts(results)),
    ]
    return "\n".join(lines) + "\n"


def picture(results: Results) -> bytes:
    """The models' first pictures above the plot of quality against speed, as a PNG."""
    shown = [model for model in results.models if model.sheet]
    figure = Figure(figsize=(8, 0.4 + 2.0 * ((len(shown) + 1) // 2) + 3.9), layout="constrained", facecolor="white")
    grid = figure.add_gridspec((len(shown) + 1) // 2 + 1, 2, height_ratios=[1.6] * ((len(shown) + 1) // 2) + [3.6])
    for i, model in enumerate(shown):
        axes = figure.add_subplot(grid[i // 2, i % 2])
        sheet = Image.open(io.BytesIO(base64.b64decode(model.sheet.png if model.sheet else "")))
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(model.name, fontsize=10, parse_math=False)
        axes.set_axis_off()
    below = figure.add_subplot(grid[-1, :])
    below.imshow(Image.open(io.BytesIO(plot.png(results))))
    below.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def main(path: Path) -> None:
    """Copy the results, draw the picture, and write the README's section."""
    results = read_results(path)
    results.write(KEPT)
    PICTURE.write_bytes(picture(results))
    readme = ROOT / "README.md"
    text = readme.read_text()
    between = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    readme.write_text(between.sub(lambda _: START + section(results) + END, text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
