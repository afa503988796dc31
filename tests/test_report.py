"""The report: true to its results, one file, and inert whatever a name or label says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from genzoo.report import html, markdown, plot, table, write_report
from genzoo.results import Environment, ModelResult, Results, Score, Sheet, Speed

if TYPE_CHECKING:
    from pathlib import Path

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def score(value: float, low: float | None = None, high: float | None = None, metric: str = "frechet") -> Score:
    better = "lower" if metric == "frechet" else "higher"
    return Score(metric=metric, title=metric.title(), better=better, value=value, low=low, high=high, n=100)


def model(
    name: str, value: float, low: float | None = None, high: float | None = None, rate: float = 0.1
) -> ModelResult:
    speed = Speed(
        load_seconds=0.1,
        first_seconds=0.2,
        latency=(rate, rate * 1.1, rate * 0.9),
        batch=10,
        batch_seconds=(rate * 10,),
        peak_bytes=3 * 10**8,
        base_bytes=2 * 10**8,
        nfe=20,
        flops=1e9,
    )
    sheet = Sheet(png=PIXEL, columns=1, labels=("Bag",), seeds=(0,))
    scores = (score(value, low, high), score(90, 88, 92, "accuracy"))
    return ModelResult(name=name, summary="One", generator="x", parameters=10, scores=scores, speed=speed, sheet=sheet)


def results(*models: ModelResult, **changes: str) -> Results:
    return Results(
        made="2026-01-01T00:00:00+00:00",
        command=changes.get("command", "genzoo compare"),
        environment=Environment(
            device="cpu",
            processor=changes.get("processor", "a processor"),
            threads=2,
            platform="Linux",
            versions={"torch": "2"},
        ),
        dataset="fashion-mnist",
        split="test",
        reference_n=10_000,
        extractor=changes.get("extractor", "eyes"),
        digest="0" * 64,
        n=100,
        seeds="0-99",
        batch=64,
        models=models,
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._quiet = False
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:  # type: ignore[no-untyped-def]
        self.tags.append((tag, dict(attrs)))
        self._quiet = tag in ("style", "script")

    def handle_endtag(self, tag) -> None:  # type: ignore[no-untyped-def]
        self._quiet = False

    def handle_data(self, data) -> None:  # type: ignore[no-untyped-def]
        self.text += "" if self._quiet else data


def test_the_page_is_one_file_that_asks_nobody_for_anything() -> None:
    page = Page(html(results(model("a.b", 1), model("c.d", 2))))
    for tag, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, key, value)
    assert not re.search(r"url\((?!#)", html(results(model("a.b", 1), model("c.d", 2))))


def test_the_page_holds_every_number_and_setting() -> None:
    text = Page(html(results(model("a.b", 1.25), model("c.d", 2.5)))).text
    for wanted in ("a.b", "c.d", "1.25", "2.5", "genzoo compare", "a processor", "0-99", "eyes", "torch 2", "n = 100"):
        assert wanted in text, wanted


def test_the_best_of_each_column_is_marked_and_verdicts_follow_the_intervals() -> None:
    apart = results(model("a.b", 1, 0.9, 1.1), model("c.d", 2, 1.8, 2.2))
    assert "Frechet: a.b wins by a factor of 2 (1 against 2 of c.d)." in table.verdicts(apart)
    near = results(model("a.b", 1, 0.5, 1.9), model("c.d", 2, 1.8, 2.2))
    assert any("too close to call" in line for line in table.verdicts(near) if line.startswith("Frechet"))
    assert any("equal" in line for line in table.verdicts(near) if line.startswith("Accuracy"))


def test_the_table_sorts_and_real_images_stay_last() -> None:
    floor = ModelResult(name="real images", kind="data", scores=(score(0.1),))
    _, rows = table.rows(results(model("c.d", 2), floor, model("a.b", 1)), sort="frechet")
    assert [row.model.name for row in rows] == ["a.b", "c.d", "real images"]
    _, rows = table.rows(results(model("a.b", 1, rate=0.5), floor, model("c.d", 2)), sort="throughput")
    assert [row.model.name for row in rows] == ["c.d", "a.b", "real images"]


def test_a_failed_model_is_shown_with_its_cause() -> None:
    failed = ModelResult(name="bad.one", failed="made images that hold NaN")
    made = results(model("a.b", 1), failed)
    assert "made images that hold NaN" in Page(html(made)).text
    assert "made images that hold NaN" in table.terminal(made)
    assert "made images that hold NaN" in markdown(made)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "&lt;b&gt;",
    "$x^2$ and $\\frac{1}{0}$",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe\u2066",
    "[click](http://example.org)",
    "| a | b |",
    "`code` *bold* _it_ ~~no~~",
    "line\nbreak\r\nand\ttab",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_everywhere(text: str) -> None:
    evil = model(text, 1).model_copy(update={"summary": text, "failed": None, "options": {text: text}})
    evil = evil.model_copy(update={"sheet": Sheet(png=PIXEL, columns=1, labels=(text,), seeds=(0,))})
    one = ModelResult(name=text, failed=text)
    made = results(evil, model("a.b", 2), one, command=text, processor=text, extractor=text)
    plain = Page(html(results(model("x.y", 1), model("a.b", 2), ModelResult(name="z", failed="w"))))
    page = Page(html(made))
    # No tag and no handler that a harmless name does not have, and only the page's own script.
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "49" not in page.text
    for shown in (table.terminal(made), markdown(made)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown)
    assert "<script" not in markdown(made)
    assert "](http" not in markdown(made)


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    from genzoo.results import read_results

    made = results(model("a.b", 1), model("c.d", 2))
    paths = write_report(made, tmp_path / "out")
    assert sorted(p.name for p in paths) == ["report.html", "report.md", "results.json"]
    assert read_results(tmp_path / "out" / "results.json") == made


def test_the_plot_takes_the_page_s_ink_and_is_reproducible() -> None:
    made = results(model("a.b", 1, 0.9, 1.1), model("c.d", 2))
    drawn = plot.svg(made)
    assert drawn.startswith("<svg")
    assert "currentColor" in drawn
    assert plot.INK not in drawn
    assert drawn == plot.svg(made)
    assert plot.png(made).startswith(b"\x89PNG")
    assert plot.svg(results()) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.35"), (0.12345, "0.123"), (-0.002, "-0.002"), (1e-7, "1.00e-07")],
)
def test_numbers(value: float, text: str) -> None:
    assert table.number(value) == text
