"""The report: true to its results, one file, and inert whatever a name or label says."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import report_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.report import details, drawing, html, markdown, plots, terminal, text, write_report
from genzoo.report.measures import Table
from genzoo.report.table import families_table, table_of
from genzoo.report.verdicts import APART, Verdict, answers, choice, standing, verdicts
from genzoo.results import ModelResult, Results, Score, Sheet, read_record


def score(value: float, low: float | None = None, high: float | None = None, metric: str = "frechet") -> Score:
    better = "lower" if metric == "frechet" else "higher"
    return Score(metric=metric, title=metric.title(), better=better, value=value, low=low, high=high, n=100)


def model(
    name: str, value: float, low: float | None = None, high: float | None = None, rate: float = 10
) -> ModelResult:
    return cases.model(
        name,
        0,
        "x",
        scores=(score(value, low, high), score(90, 88, 92, "accuracy")),
        speed=cases.speed(1 / rate, rate, 20, 1e9),
        sheet=Sheet(png=cases.PIXEL, columns=1, labels=("Bag",), seeds=(0,)),
    )


def plain(*models: ModelResult, **changes: object) -> Results:
    return cases.results(*models, **{"repeats": 1, "n": 100, **changes})


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._quiet = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._quiet = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._quiet = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._quiet else data


# -- the table and its verdicts ---------------------------------------------------------------------------------------


def all_verdicts(table: Table) -> list[Verdict]:
    return [verdict for line in table.lines for verdict in verdicts(table, line)]


def said(results: Results) -> dict[str, str]:
    return {verdict.measure.key: verdict.text for verdict in all_verdicts(table_of(results))}


def test_verdicts_follow_the_intervals() -> None:
    apart = said(plain(model("a.b", 1, 0.9, 1.1), model("c.d", 2, 1.8, 2.2)))
    assert apart["frechet"] == "a.b wins by a factor of 2 (1 against 2 of c.d)"
    near = said(plain(model("a.b", 1, 0.5, 1.9), model("c.d", 2, 1.8, 2.2)))
    assert near["frechet"] == "a.b (1) and c.d (2) are too close to call: their 95 % intervals overlap"
    assert near["accuracy"] == "a.b and c.d are equal (90)"


def test_without_an_interval_nobody_wins_but_counts_are_exact() -> None:
    table = table_of(plain(model("a.b", 1), model("c.d", 2)))
    found = {verdict.measure.key: verdict for verdict in all_verdicts(table)}
    assert not found["frechet"].clear
    assert found["frechet"].text.endswith("without an interval to trust it by")
    few = cases.model("e.f", 1, "x")
    assert {v.measure.key: v.clear for v in all_verdicts(table_of(plain(few, model("a.b", 1))))}["parameters"]


ROW = st.tuples(st.floats(0.1, 10), st.floats(0, 3), st.floats(0, 3))
ROWS = st.lists(ROW, min_size=2, max_size=6, unique_by=lambda row: row[0])


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_a_winner_is_called_only_where_no_other_interval_reaches_its_own(
    rows: list[tuple[float, float, float]],
) -> None:
    models = [
        ModelResult(name=f"m.{i}", scores=(score(value, value - down, value + up),))
        for i, (value, down, up) in enumerate(rows)
    ]
    (verdict,) = all_verdicts(table_of(plain(*models)))
    best = min(range(len(rows)), key=lambda i: rows[i][0])
    reach = rows[best][0] + rows[best][2]
    alone = all(value - down > reach for i, (value, down, _) in enumerate(rows) if i != best)
    assert verdict.clear == alone
    assert verdict.winners[0] == f"m.{best}"
    level = {f"m.{i}" for i, (value, down, _) in enumerate(rows) if value - down <= reach}
    assert set(verdict.winners) == level


def test_the_answer_names_a_model_for_each_theme() -> None:
    table = table_of(cases.full())
    assert choice(table) == (
        "Choose ddpm for quality and diversity; dcgan for speed and cost. No clear winner in control and stability."
    )
    quality = answers(table)[0]
    assert quality.lead == (
        "Frechet distance: ddpm wins by a factor of 2.9 (0.487 against 1.41 of stylegan-lite); "
        "real images reach 0.0703."
    )
    assert "ddpm also wins" in quality.others
    assert [theme.key for theme, _ in table.themes()] == [
        "quality",
        "diversity",
        "control",
        "stability",
        "speed",
        "cost",
    ]
    line = table.themes()[0][1][0]
    stands = {entry.label: standing(table, line, i) for i, entry in enumerate(table.entries)}
    assert stands["ddpm"] == ("best", "best")
    assert stands["stylegan-lite"] == ("behind", "2.9 times more")
    assert stands["real images"] == ("", "")


def test_where_all_are_equal_none_is_best() -> None:
    table = table_of(plain(model("a.b", 1), model("c.d", 2)))
    nfe = next(line for line in table.lines if line.measure.key == "nfe")
    assert not any(cell.best for cell in nfe.cells)
    assert standing(table, nfe, 0) == ("level", "all equal")


def test_the_table_sorts_and_real_images_stay_last() -> None:
    floor = ModelResult(name="real images", kind="data", scores=(score(0.1),))

    def order(results: Results, sort: str) -> list[str]:
        return [entry.label for entry in table_of(results, sort).entries]

    assert order(plain(model("c.d", 2), floor, model("a.b", 1)), "frechet") == ["a.b", "c.d", "real images"]
    assert order(plain(model("a.b", 1), floor, model("c.d", 2, rate=20)), "throughput") == ["c.d", "a.b", "real images"]
    # A model keeps its colour wherever it stands.
    table = table_of(plain(model("c.d", 2), model("a.b", 1)), "frechet")
    assert [entry.index for entry in table.entries] == [1, 0]


def test_repetitions_show_their_mean_and_minimum() -> None:
    table = table_of(cases.full())
    cell = table.lines[0].cells[0]
    assert cell.details[0] == "2.5 to 2.76"
    assert cell.details[1] == "mean of 3, min 2.58"


def test_speeds_of_different_machines_are_not_held_against_each_other() -> None:
    there = cases.environment("Apple M2", 8)
    first, second, third = cases.three()
    away = [m.model_copy(update={"environment": there}) for m in (second, third)]
    table = table_of(plain(first, *away))
    said = {verdict.measure.key: verdict for verdict in all_verdicts(table)}
    # The two of one machine are compared, and the place is told.
    assert said["throughput"].text == (
        "stylegan-lite wins by a factor of 150 (3,120 against 20.86 of ddpm) (on processor=Apple M2, threads=8)"
    )
    assert said["nfe"].winners == ("dcgan", "stylegan-lite")
    # But the answer does not recommend the winner of two, whom the third, faster by its number, never met.
    fastest = first.model_copy(update={"name": "quick", "speed": second.speed})
    assert "speed" in choice(table_of(plain(fastest, *away))).split("No clear winner in ")[1]
    alone = table_of(plain(first, away[0]))
    assert "throughput" not in {verdict.measure.key for verdict in all_verdicts(alone)}
    speed = next(answer for answer in answers(alone) if answer.theme.key == "speed")
    assert speed.lead == f"Images/s: {APART}."
    assert not any(cell.best for line in alone.lines if line.measure.local for cell in line.cells)
    assert "No clear winner" in choice(alone)
    # Where one of them alone was timed, there is nothing that could have been compared.
    untimed = table_of(plain(first.model_copy(update={"speed": None}), away[0]))
    assert not untimed.several_machines()
    assert APART not in " ".join(answer.lead for answer in answers(untimed))
    assert "different machines" not in html(plain(first.model_copy(update={"speed": None}), away[0]))


def test_labels_are_short_and_tell_models_apart() -> None:
    def labels(*models: ModelResult) -> list[str]:
        return [entry.label for entry in table_of(plain(*models)).entries]

    assert labels(*cases.three()) == ["dcgan", "stylegan-lite", "ddpm"]
    assert labels(model("a.b", 1), cases.three()[0]) == ["a.b", "dcgan.fashion-mnist"]
    slow = cases.three()[2].model_copy(update={"options": {"steps": 50, "guidance": 2.0, "truncation": None}})
    assert labels(cases.three()[2], slow) == ["ddpm (steps=20)", "ddpm (steps=50)"]
    away = cases.three()[2].model_copy(update={"environment": cases.environment("Apple M2", 2)})
    assert labels(cases.three()[2], away) == ["ddpm (processor=AMD EPYC 7763)", "ddpm (processor=Apple M2)"]
    assert labels(cases.three()[2], cases.three()[2]) == ["ddpm", "ddpm #2"]


def test_a_model_is_as_stable_as_the_family_that_trains_it() -> None:
    table = table_of(cases.full())
    collapsed = next(line for line in table.lines if line.measure.key == "collapsed")
    assert [cell.text for cell in collapsed.cells] == ["1 of 3", "0 of 3", "0 of 3", text.NOTHING]
    # Two families of one recipe: nobody knows which of them speaks for the model.
    twice = cases.stability(*(cases.family(f"dcgan.{i}", "dcgan", 3, (1.0,)) for i in range(2)))
    assert table_of(cases.results(stability=(twice,))).entries[0].family is None


def test_the_floor_of_training_is_its_distance_alone() -> None:
    assert "as many real images reach 1.2." in " ".join(Page(html((cases.stability(),))).text.split())


def test_what_training_came_to() -> None:
    record = cases.stability()
    rows = {line.measure.key: line.cells for line in families_table(record).lines}
    runs = record.families[0].runs
    best = [min(m.scores["frechet"] for m in run.milestones) for run in runs]
    last = [run.milestones[-1].scores["frechet"] for run in runs]
    assert rows["reached"][0].value == pytest.approx(sum(best) / 3)
    assert rows["final"][0].value == pytest.approx(sum(last) / 3)
    assert rows["divergence"][0].value == pytest.approx(sum(b / a for a, b in zip(best, last, strict=True)) / 3)
    deviation = math.sqrt(sum((v - sum(last) / 3) ** 2 for v in last) / 2)
    assert rows["variation"][0].value == pytest.approx(100 * deviation / (sum(last) / 3))
    assert rows["collapsed"][0].text == "1 of 3"


def test_a_family_whose_runs_failed_does_not_win_by_the_one_that_did_not() -> None:
    steady = cases.family("steady.tiny", "a", 3, (1.0, 1.1, 1.2))
    broken = cases.family("broken.tiny", "b", 3, (1.0, 1.0, 1.0))
    runs = [run.model_copy(update={"failed": "loss is nan"} if run.seed else {}) for run in broken.runs]
    table = families_table(cases.stability(steady, broken.model_copy(update={"runs": tuple(runs)})))
    line = next(line for line in table.lines if line.measure.key == "divergence")
    assert line.cells[1].text == "1 with 2 failed"
    assert "too close to call" in answers(table)[0].lead
    assert "1 with 2 failed" in html((cases.stability(steady, broken.model_copy(update={"runs": tuple(runs)})),))


def test_classes_show_each_model_s_weakest() -> None:
    recall, *_ = details.by_class(table_of(cases.full()), cases.CLASSES)
    assert recall.measure.key == "recall"
    assert recall.labels == ("dcgan", "stylegan-lite", "ddpm", "real images")
    assert [name for name, _ in recall.rows] == list(cases.CLASSES)
    values = [cells[0].value for _, cells in recall.rows]
    assert values[recall.weakest[0] or 0] == min(value for value in values if value is not None)
    assert recall.weakest[3] is None


def test_sweeps_stand_in_numbers_too() -> None:
    found = details.sweeps(table_of(cases.full()))
    assert [(sweep.label, sweep.option, len(sweep.rows)) for sweep in found] == [
        ("dcgan", "truncation", 3),
        ("stylegan-lite", "truncation", 3),
        ("ddpm", "guidance", 5),
    ]
    assert found[0].titles == ("Label accuracy", "Frechet distance")


# -- the pages --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_page() -> str:
    return html(cases.full())


def test_the_page_is_one_file_that_asks_nobody_for_anything(whole_page: str) -> None:
    for tag, attributes in Page(whole_page).tags:
        for key in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, key, value)
    assert not re.search(r"url\((?!#)", whole_page)
    assert "<script" not in whole_page
    assert len(whole_page) < 2_000_000


def test_the_page_holds_every_number_and_setting(whole_page: str) -> None:
    shown = Page(html(plain(model("a.b", 1.25), model("c.d", 2.5)))).text
    for wanted in (
        "a.b",
        "c.d",
        "1.25",
        "2.5",
        "genzoo compare",
        "AMD EPYC",
        "0-2999",
        "eyes",
        "torch 2",
        "100 a model",
    ):
        assert wanted in shown, wanted
    everything = Page(whole_page).text
    for wanted in ("Were any copied?", "Class by class", "What quality costs", "Does training end well?", "guidance"):
        assert wanted in everything, wanted
    for metric in cases.METRICS:
        assert metric[1] in everything


def test_rows_of_another_machine_carry_their_own_settings() -> None:
    away = {"environment": cases.environment("Apple M2", 8), "command": "genzoo compare elsewhere"}
    made = cases.results(cases.three()[0], cases.three()[1].model_copy(update=away))
    for shown in (Page(html(made)).text, markdown(made)):
        assert "Apple M2" in shown
        assert "genzoo compare elsewhere" in shown


def test_training_alone_makes_a_page() -> None:
    record = (cases.stability(),)
    page = Page(html(record)).text
    assert "How stably do 3 families train on fashion-mnist?" in page
    assert "ended at 2.6 times its best distance" in page
    for shown in (page, markdown(record), terminal(record, width=300)):
        assert "diffusion.tiny wins Distance at the end" in shown


def test_one_model_and_none_make_a_page() -> None:
    assert "One model alone wins nothing" in html(plain(model("a.b", 1)))
    failed = plain(ModelResult(name="a.b", failed="no weights"))
    for shown in (html(failed), markdown(failed), terminal(failed)):
        assert "no weights" in shown


def test_a_failed_model_is_shown_with_its_cause() -> None:
    made = plain(model("a.b", 1), ModelResult(name="bad.one", failed="made images that hold NaN"))
    for shown in (Page(html(made)).text, terminal(made), markdown(made)):
        assert "made images that hold NaN" in shown


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("count", [3, 8])
def test_the_terminal_s_lines_fit_and_hold_every_model(width: int, count: int) -> None:
    models = [cases.model(f"model-{i}-of-many.fashion-mnist", i % 3, "x") for i in range(count)]
    shown = terminal(cases.results(*models, cases.floor()), width=width)
    assert max(map(len, shown.splitlines())) <= width
    for i in range(count):
        assert f"model-{i}-of-many" in shown


def test_markdown_tables_are_whole() -> None:
    """Every row of a table has as many cells as its head."""
    tables = re.findall(r"(?:^\|.*\|\n?)+", markdown(cases.full()), re.MULTILINE)
    assert len(tables) == 6 + 3 + 3  # five themes, three sweeps, three measures by class, and training
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_markdown_has_the_numbers_of_the_page() -> None:
    """Every cell of the tables by class and of the sweeps; what ended badly; and where the pictures are."""
    made = markdown(cases.full())
    page = Page(html(cases.full()))
    table = table_of(cases.full())
    for part in details.by_class(table, cases.CLASSES):
        rows = [[name, *(cell.text for cell in cells)] for name, cells in part.rows]
        assert all(f"| {' | '.join(row)} |" in made.replace("*", "") for row in rows), part.measure.key
        assert all(cell in page.text for row in rows for cell in row)
        for column, worst in enumerate(part.weakest):
            assert worst is None or f"*{rows[worst][column + 1]}*" in made
    for sweep in details.sweeps(table):
        assert f"## {sweep.label}: {sweep.option}" in made
        for value, x, y in sweep.rows:
            assert re.search(rf"^\| {text.number(value)} \| {x.text}.*\| {y.text}", made, re.MULTILINE)
    assert "- dcgan.tiny, seed 1: ended at 2.6 times its best distance" in made
    assert "report.html" in made


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "&lt;b&gt;",
    "$x^2$ and $\\frac{1}{0}$",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe\u2066",
    "[click](http://example.org) www.example.org <http://example.org>",
    "| a | b |",
    "`code` *bold* _it_ ~~no~~",
    "line\nbreak\r\nand\ttab",
    "_" * 200,
]


def hostile_rows(name: str) -> list[ModelResult]:
    """A model that says something hostile wherever it may, and one that failed."""
    titled = score(1).model_copy(update={"title": name, "about": name, "metric": name, "by_class": (1.0, 2.0)})
    changes = {
        "summary": name,
        "options": {name: name},
        "scores": (score(1), titled),
        "command": name,
        "sheet": Sheet(png=cases.PIXEL, columns=1, labels=(name,)),
    }
    return [cases.model(name, 0, "dcgan").model_copy(update=changes), ModelResult(name=name, failed=name)]


def hostile_results(*names: str) -> Results:
    families = [cases.family(name, "dcgan", 3, (1.0, 3.0)) for name in names[:2]]
    return plain(
        *(row for name in names for row in hostile_rows(name)),
        command=names[0],
        extractor=names[0],
        classes=names[:2],
        stability=(cases.stability(*families, processor=names[0]),),
    )


def test_hostile_text_is_inert_on_the_page() -> None:
    """See also the tests in a browser."""
    page, harmless = Page(html(hostile_results(*HOSTILE))), Page(html(hostile_results("x.y", "z.a")))
    # No tag and no handler that a harmless name does not have.
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in harmless.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert not CONTROLS.search(page.text)


#: What moves a terminal's cursor or turns the direction of reading; a line's end is the report's own.
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_inert_in_a_terminal_and_in_markdown(hostile: str) -> None:
    made = hostile_results(hostile, "x.y")
    for shown in (terminal(made), markdown(made)):
        assert not CONTROLS.search(shown)
    assert not re.search(r"<(?!br>|sub>|/sub>)", markdown(made))
    assert not re.search(r"(?<!\\)[\[\]`]|://|www\.", markdown(made))


def test_a_reader_of_markdown_finds_neither_link_nor_tag_in_hostile_text() -> None:
    """markdown-it-py reads CommonMark with the tables and bare links of GitHub."""
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    made = markdown(hostile_results(*HOSTILE))
    harmless = markdown(hostile_results(*(f"x.{i}" for i in range(len(HOSTILE)))))

    def kinds(source: str) -> set[str]:
        tokens = [part for token in reader.parse(source) for part in (token, *(token.children or ()))]
        return {token.type + (token.content if token.type == "html_inline" else "") for token in tokens}

    assert kinds(made) == kinds(harmless)
    assert "link_open" not in kinds(made)


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    made = plain(model("a.b", 1), model("c.d", 2))
    paths = write_report(made, tmp_path / "out")
    assert sorted(p.name for p in paths) == ["report.html", "report.md", "results.json"]
    assert read_record(tmp_path / "out" / "results.json") == made
    family = cases.family("a.b", "x", 1, (1.0,))
    pair = (cases.stability(family), cases.stability(family, processor="Apple M2"))
    paths = write_report(pair, tmp_path / "training")
    assert sorted(p.name for p in paths) == ["report.html", "report.md", "stability-2.json", "stability.json"]
    assert read_record(tmp_path / "training" / "stability-2.json") == pair[1]


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_takes_the_page_s_ink_and_is_reproducible() -> None:
    def drawn(name: str) -> str:
        figure = plots.quality_speed(table_of(plain(model("a.b", 1, 0.9, 1.1), model("c.d", 2))))
        return drawing.svg(figure, name, 'said "aloud"')

    source = drawn("one")
    assert source.startswith("<svg")
    assert "currentColor" in source
    assert drawing.INK not in source
    assert source == drawn("one")
    root = ElementTree.fromstring(source)
    assert root.get("aria-label") == 'said "aloud"'
    ids = {element.get("id") for element in root.iter()} - {None}
    assert ids
    assert all(name.startswith("one-") for name in ids if name)
    assert set(re.findall(r"url\(#([^)]*)\)", source)) <= ids
    assert not ids & {element.get("id") for element in ElementTree.fromstring(drawn("two")).iter()} - {None}
    assert drawing.png(plots.quality_speed(table_of(cases.full()))).startswith(b"\x89PNG")


def test_there_is_no_picture_of_nothing() -> None:
    table = table_of(plain(ModelResult(name="a.b", scores=(score(1),))))
    assert plots.quality_speed(table) is None
    assert plots.control(table) is None
    assert plots.training(table) is None
    bare = cases.family("a.b", "x", 1, (1.0,)).model_copy(update={"runs": ()})
    assert plots.distances(bare, None, None) is None
    assert plots.losses(bare) is None


def test_one_model_that_was_timed_stands_beside_real_images() -> None:
    floor = ModelResult(name="real images", kind="data", scores=(score(0.1),))
    untimed = model("c.d", 2).model_copy(update={"speed": None})
    figure = plots.quality_speed(table_of(plain(model("a.b", 1, 0.9, 1.1, rate=20), untimed, floor)))
    assert figure is not None
    assert figure.axes[0].get_xlim() == pytest.approx((2, 200))


def test_what_is_not_above_zero_is_drawn_too() -> None:
    """A kernel distance may be negative, and a loss 0: no logarithm is taken of them."""
    assert plots.quality_speed(table_of(plain(model("a.b", -1, -2, 0), model("c.d", 0)))) is not None
    zero = cases.model("a.b", 0, "x").model_copy(
        update={"training": tuple(m.model_copy(update={"scores": {"frechet": 0.0}}) for m in cases.curve(1, 1))}
    )
    assert plots.training(table_of(plain(zero))) is not None


def test_a_legend_names_at_most_as_many_as_there_is_room_for() -> None:
    models = [model(f"m{i}.x", 1 + i, rate=10 + i) for i in range(20)]
    figure = plots.quality_speed(table_of(plain(*models)))
    assert figure is not None
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*(f"m{i}.x" for i in range(drawing.MOST_NAMES - 1)), f"and {21 - drawing.MOST_NAMES} more"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=1000))
@settings(max_examples=20, deadline=None)
def test_a_thinned_curve_keeps_its_ends(points: list[tuple[float, float]]) -> None:
    kept = drawing.thinned(points)
    assert len(kept) <= drawing.MOST_POINTS + 1
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len(points) > drawing.MOST_POINTS or kept == points


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.35"), (0.12345, "0.123"), (-0.002, "-0.002"), (1e-7, "1.00e-07")],
)
def test_numbers(value: float, shown: str) -> None:
    assert text.number(value) == shown
