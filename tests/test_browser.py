"""The page as a browser shows it: nothing leaves it, nothing in it runs, and a phone shows it whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest
import report_cases as cases

from genzoo.report import html
from genzoo.results import ModelResult, Results, Sheet, Stability

PATH = chromium.found()
pytestmark = pytest.mark.skipif(PATH is None, reason="no Chromium is installed; on Debian: apt-get install chromium")

PHONE = 360


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    assert PATH is not None
    shown = chromium.Browser(PATH, tmp_path_factory.mktemp("profile"))
    yield shown
    shown.close()


@pytest.fixture(scope="module")
def ear() -> Iterator[tuple[str, list[str]]]:
    with chromium.listening() as found:
        yield found


def hostile(address: str) -> list[str]:
    """Names that try to run, to ask, to break out and to overflow."""
    return [
        f"<script>window.ran=1;fetch('{address}/a')</script>",
        f'"><img src={address}/b onerror=window.ran=1>',
        f"'><svg onload=window.ran=1><image href='{address}/c'/></svg>",
        f"</svg><script src={address}/d></script>",
        f"</style><link rel=stylesheet href={address}/e>",
        f"</title><meta http-equiv=refresh content='0;url={address}/f'>",
        f"<iframe src={address}/g></iframe><base href={address}/>",
        f"url({address}/h);background:url({address}/h)",
        "javascript:window.ran=1",
        "{{ 7*7 }}{% include 'page.html' %}",
        "\u202egnp.exe\u2066\u200f",
        "$\\frac{1}{0}$ & &lt;b&gt; ]]> -->",
        "W" * 200,
        "a very long name " * 11,
        "_" * 200,
        "\u0410\u0300\u0301\u0302" * 50,
    ]


def attacked(address: str) -> Results:
    """Results that say something hostile wherever they may say anything."""
    names = hostile(address)
    labels = [name[:200] for name in names]
    models = []
    for i, name in enumerate(names[:: len(names) // 5]):
        column = i % 3
        model = cases.model(name[:200], column, ("dcgan", "stylegan", "diffusion")[column])
        scores = tuple(
            score.model_copy(update={"title": labels[(i + j) % len(labels)], "about": name, "unit": name[:20]})
            for j, score in enumerate(model.scores)
        )
        sheet = Sheet(png=cases.PIXEL, columns=10, labels=labels[i : i + 10])
        changes = {"summary": name, "options": {name: name}, "scores": scores, "sheet": sheet, "command": name}
        models.append(model.model_copy(update=changes))
    failed = [ModelResult(name=label, failed=name) for label, name in zip(labels, names, strict=True)]
    families = [cases.family(label, "dcgan", 3.0, (1.0, 3.0)) for label in labels[-2:]]
    families = [
        family.model_copy(update={"runs": tuple(run.model_copy(update={"collapsed": name}) for run in family.runs)})
        for family, name in zip(families, names, strict=False)
    ]
    place = cases.environment(labels[0]).model_copy(update={"versions": {names[1]: names[2]}})
    return cases.results(
        *models,
        *failed,
        environment=place,
        command=names[3],
        extractor=labels[4],
        classes=labels[:10],
        stability=(cases.stability(*families),),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, ear: tuple[str, list[str]]) -> dict[str, Path]:
    """The pages of a comparison, of training alone, and of hostile results."""
    folder = tmp_path_factory.mktemp("pages")
    records: dict[str, Results | tuple[Stability, ...]] = {
        "comparison": cases.full(),
        "training": (cases.stability(),),
        "hostile": attacked(ear[0]),
    }
    for name, record in records.items():
        (folder / f"{name}.html").write_text(html(record), "utf-8")
    return {name: folder / f"{name}.html" for name in records}


def test_the_browser_itself_sees_a_script_a_request_and_an_overflow(
    page: chromium.Browser, ear: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Or else all tests below say nothing."""
    address, heard = ear
    file = tmp_path / "bad.html"
    file.write_text(
        f"<meta name=viewport content='width=device-width, initial-scale=1'><script>window.ran=1;alert(1)</script>"
        f"<img src={address}/seen><p style='width:900px'>x"
    )
    page.open(file, PHONE)
    assert page.value("window.ran") == 1
    assert page.said("Page.javascriptDialogOpening")
    assert page.requests() == [f"{address}/seen"]
    assert heard == ["/seen"]
    assert page.value("document.documentElement.scrollWidth") > PHONE
    heard.clear()


def test_hostile_names_run_nothing_ask_nobody_and_fit(
    page: chromium.Browser, ear: tuple[str, list[str]], pages: dict[str, Path]
) -> None:
    _, heard = ear
    page.open(pages["hostile"], PHONE)
    assert page.value("window.ran === undefined")
    assert not page.said("Page.javascriptDialogOpening", "Runtime.exceptionThrown")
    # The policy of the page would have stopped a request, and said so: nothing even tried.
    assert not page.said("Log.entryAdded", "Runtime.consoleAPICalled")
    assert page.requests() == []
    assert heard == []
    active = "document.querySelectorAll('script, iframe, link, base, form, object, embed, a, input')"
    assert page.value(f"{active}.length") == 0
    assert page.value("document.querySelectorAll('meta[http-equiv=refresh]').length") == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => /^on/i.test(a.name))"
    assert page.value(f"{handlers}.length") == 0
    assert page.value("document.documentElement.scrollWidth") <= PHONE
    # All of it is there, as text.
    assert page.value("document.body.textContent.includes('window.ran=1')")


@pytest.mark.parametrize("name", ["comparison", "training"])
@pytest.mark.parametrize("width", [PHONE, 1000])
def test_nothing_stands_out_of_the_window(
    page: chromium.Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    page.open(pages[name], width)
    assert page.value("document.documentElement.scrollWidth") <= width
    # Nor is anything cut off: only tables are wider than the window, and those scroll.
    wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.value(f"{wide}.filter(e => !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 200))") == []
    assert page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_three_models_stand_side_by_side_on_a_phone(page: chromium.Browser, pages: dict[str, Path]) -> None:
    """The models beside their themes; the real images may wait at the side."""
    page.open(pages["comparison"], PHONE)
    edges = "[...document.querySelectorAll('.glance thead th')].map(e => e.getBoundingClientRect().right)"
    room = page.value("document.querySelector('.glance').parentElement.getBoundingClientRect().right")
    assert page.value(edges)[3] <= room


def test_ids_are_unique_and_every_reference_is_met(page: chromium.Browser, pages: dict[str, Path]) -> None:
    """Several pictures stand in one page, and each names parts of itself."""
    page.open(pages["comparison"])
    ids = page.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) > 10
    used = page.value(
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).map(a => a.value)"
        ".flatMap(v => [...v.matchAll(/url\\(#([^)]*)\\)/g)].map(m => m[1])"
        ".concat(/^#[\\w.-]+$/.test(v) && !/^#[0-9a-f]{6}$/.test(v) ? [v.slice(1)] : []))"
    )
    assert used
    assert set(used) <= set(ids)


CONTRAST = """
(() => {
  const light = text => {
    const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = text.match(/[\\d.]+/g).map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return /, 0\\)$|transparent/.test(colour) && e.parentElement ? behind(e.parentElement) : colour;
  };
  const texts = 'p, li, td, th, small, dt, dd, code, figcaption, .soft, .best, .weakest, .failed';
  return [...document.querySelectorAll(texts)]
    .map(e => [light(getComputedStyle(e).color), light(behind(e)), e.className + ' ' + e.tagName])
    .map(([a, b, name]) => [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), name])
    .filter(([ratio]) => ratio < 4.5);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: chromium.Browser, pages: dict[str, Path], scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5 to 1."""
    page.open(pages["comparison"], scheme=scheme)
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.value(CONTRAST) == []
    # The pictures' ink is that of the text around them.
    ink = page.value("getComputedStyle(document.querySelector('svg text')).fill")
    assert ink == page.value("getComputedStyle(document.body).color")
