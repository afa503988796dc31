"""Cards: the catalogue reads, its files are what it says, and what breaks a rule is named by file, line and key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genzoo.cards import Asset, Card, Catalogue, catalogue_path, read_catalogue
from genzoo.errors import CardError
from genzoo.files import sha256_of
from genzoo.registry import default_zoo

GOOD = """\
version: 1
cards:
- name: ddpm.test
  summary: A test
  generator: diffusion
  shape: [1, 28, 28]
  classes: [T-shirt/top, no]
  config: {a: {b: 1e-4}}
  weights:
    file: weights/test.safetensors
    sha256: 'aa{zeros}'
    size: 10
  licence: MIT
  paper: none
  training:
    recipe: recipes/test.yaml
    seed: 0
    steps: 10
    batch: 2
    images: 20
    minutes: 1
    hardware: a machine
    versions: {torch: 2.13.0}
  results:
  - metric: frechet
    value: 1.5
    low: 1
    high: 2
    n: 1000
    settings: steps 20
    command: genzoo compare
- name: gan.test
  summary: Another
  generator: dcgan
  shape: [1, 28, 28]
  licence: MIT
  paper: none
""".replace("{zeros}", "0" * 62)


def line_of(text: str) -> int:
    """The line of the catalogue that begins so."""
    return [line.strip() for line in GOOD.splitlines()].index(text) + 1


def read(folder: Path, text: str) -> tuple[Card, ...]:
    path = folder / "registry.yaml"
    path.write_text(text)
    return read_catalogue(path)


def test_a_catalogue_is_read(tmp_path: Path) -> None:
    first, second = read(tmp_path, GOOD)
    assert (first.name, second.name) == ("ddpm.test", "gan.test")
    assert first.config == {"a": {"b": 1e-4}}
    assert first.classes == ("T-shirt/top", "no")
    assert first.training is not None
    assert first.training.versions == {"torch": "2.13.0"}
    assert second.weights is None


def test_a_card_survives_json() -> None:
    for card in default_zoo().cards():
        assert Card.model_validate_json(card.model_dump_json(), strict=True) == card


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("summary: A test", "sumary: A test", "cards.0.sumary: unknown key; did you mean 'summary'?"),
        ("- name: ddpm.test", "- name: DDPM.test", "cards.0.name: "),
        ("- name: ddpm.test", "- name: ddpm", "cards.0.name: "),
        ("- name: ddpm.test", "- name: ../ddpm.test", "cards.0.name: "),
        ("summary: A test", "summary: ''", "cards.0.summary: "),
        ("summary: A test", 'summary: "two\\nlines"', "cards.0.summary: "),
        ("summary: A test", "summary: " + "x" * 401, "cards.0.summary: "),
        ("summary: A test", "summary: no, 1", None),
        ("summary: A test", "summary: 7", "cards.0.summary: "),
        ("generator: diffusion", "generator: torch.nn:Module", "cards.0.generator: "),
        ("shape: [1, 28, 28]", "shape: [1, 28]", "cards.0.shape.2: "),
        ("shape: [1, 28, 28]", "shape: [1, 28, 0]", "cards.0.shape.2: "),
        ("shape: [1, 28, 28]", "shape: [1, 28, 1000000000000000000000000000000]", "cards.0.shape.2: "),
        ("shape: [1, 28, 28]", "shape: [1, 28, 28.0]", "cards.0.shape.2: "),
        ("classes: [T-shirt/top, no]", "classes: [true]", "cards.0.classes.0: "),
        ("config: {a: {b: 1e-4}}", "config: [a]", "cards.0.config: "),
        ("file: weights/test.safetensors", "file: ../test.safetensors", "cards.0.weights.file: "),
        ("file: weights/test.safetensors", "file: /etc/passwd", "cards.0.weights.file: "),
        ("file: weights/test.safetensors", "file: a/./b", "cards.0.weights.file: "),
        ("size: 10", "size: 0", "cards.0.weights.size: "),
        ("size: 10", "size: '10'", "cards.0.weights.size: "),
        ("size: 10", "size: 10\n    sise: 3", "cards.0.weights.sise: unknown key; did you mean 'size'?"),
        ("recipe: recipes/test.yaml", "recipe: ../../test.yaml", "cards.0.training.recipe: "),
        ("seed: 0", "seed: -1", "cards.0.training.seed: "),
        ("seed: 0", "seed: 4294967296", "cards.0.training.seed: "),
        ("minutes: 1", "minutes: 1e300", "cards.0.training.minutes: "),
        ("minutes: 1", "minutes: .nan", "cards.0.training.minutes: "),
        ("versions: {torch: 2.13.0}", "versions: {torch: 2.13}", "cards.0.training.versions.torch: "),
        ("value: 1.5", "value: 1e13", "cards.0.results.0.value: "),
        ("n: 1000", "n: 0", "cards.0.results.0.n: "),
        ("settings: steps 20", "about: steps 20", "cards.0.results.0.about: unknown key"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, old: str, new: str, key: str | None) -> None:
    text = GOOD.replace(old, new, 1)
    if key is None:
        assert read(tmp_path, text)
        return
    with pytest.raises(CardError) as caught:
        read(tmp_path, text)
    wrong = line_of(old) + new.count("\n")
    assert str(caught.value).startswith(f"{tmp_path / 'registry.yaml'}:{wrong}: document: {key}")


def test_a_duplicate_key_and_a_duplicate_name_are_named(tmp_path: Path) -> None:
    second = line_of("- name: gan.test")
    with pytest.raises(CardError, match=rf"registry\.yaml:{second + 6}: duplicate key 'paper'; it stands in line"):
        read(tmp_path, GOOD + "  paper: again\n")
    with pytest.raises(CardError, match=rf"registry\.yaml:{second}: name: 'ddpm.test' is taken by the card in line 3"):
        read(tmp_path, GOOD.replace("gan.test", "ddpm.test"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a catalogue is a mapping"),
        ("[]", "a catalogue is a mapping"),
        ("version: 0\ncards: []", ":1: document: version: Input should be greater"),
        ("cards: []\nmore: 1\nversion: 2", ":3: document: version 2 is of a newer genzoo than this one, "),
        ("version: 1", ":1: document: cards: Field required"),
        ("version: 1\ncards: {}", ":2: document: cards: "),
        ("version: 1\ncards: [7]", ":2: document: cards.0: "),
        ("version: 1\ncards: &a []", ":2: anchors"),
    ],
)
def test_what_is_no_catalogue(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CardError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "registry.yaml") in str(caught.value)
    assert words in str(caught.value)


def test_a_catalogue_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="No such file"):
        read_catalogue(tmp_path / "registry.yaml")
    os.mkfifo(tmp_path / "registry.yaml")
    with pytest.raises(CardError, match="not a regular file"):
        read_catalogue(tmp_path / "registry.yaml")


class Strange:
    """Something that no file can hold."""


@pytest.mark.parametrize("value", [Strange(), {1, 2}, float("nan"), b"x", 1j])
def test_a_plugins_own_card_holds_plain_data_only(value: Any) -> None:
    draft = {"name": "a.b", "summary": "s", "generator": "g", "shape": (1, 2, 2), "licence": "MIT", "paper": "none"}
    assert Card.model_validate({**draft, "config": {"widths": (1, 2)}}).config == {"widths": [1, 2]}
    with pytest.raises(ValidationError, match="plain data"):
        Card.model_validate({**draft, "config": {"x": value}})


def test_a_card_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    draft = {"name": "a.b", "summary": "s", "generator": "g", "shape": (1, 2, 2), "licence": "MIT", "paper": "none"}
    with pytest.raises(ValidationError):
        Card.model_validate({**draft, "options": loop})


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "a\rb", "a\x9bb", "a\u2028b", "x\u202ey"])
def test_no_line_of_a_card_moves_a_terminal(text: str) -> None:
    draft = {"name": "a.b", "summary": "s", "generator": "g", "shape": (1, 2, 2), "licence": "MIT", "paper": "none"}
    for key in ("summary", "licence", "paper"):
        with pytest.raises(ValidationError):
            Card.model_validate({**draft, key: text})
    with pytest.raises(ValidationError):
        Card.model_validate({**draft, "classes": ("ok", text)})


# -- the repository's own ----------------------------------------------------------------------------------------------


def test_the_catalogue_of_the_repository_is_read() -> None:
    read_catalogue(catalogue_path())
    assert "registry.yaml" not in default_zoo().broken


@pytest.mark.parametrize("name", [card.name for card in read_catalogue(catalogue_path())])
def test_the_files_of_a_card_are_what_it_says(name: str) -> None:
    zoo = default_zoo()
    card, root = zoo.card(name), zoo.root(name)
    assert card.generator in zoo.names("generator")
    assert card.data is None or card.data in zoo.names("dataset")
    if card.weights is not None:
        path = root / card.weights.file
        found = Asset(file=card.weights.file, sha256=sha256_of(path), size=path.stat().st_size)
        assert found == card.weights
    if card.training is not None:
        assert (root / card.training.recipe).is_file()
        assert card.training.images == card.training.steps * card.training.batch


# -- anything at all ---------------------------------------------------------------------------------------------------

REGISTRY = catalogue_path().read_text()
JSON = json.dumps({"version": 1, "cards": [card.model_dump(mode="json") for card in read_catalogue(catalogue_path())]})
PIECES = [
    "",
    "\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "null",
    "true",
    "-1",
    "0",
    "1e30",
    "9" * 30,
    "''",
    '"',
    "name",
    "\x00",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The catalogue, as YAML or as JSON, with lines dropped, doubled and swapped, and pieces replaced."""
    text = draw(st.sampled_from([REGISTRY, GOOD, JSON]))
    lines = text.split("\n") if "\n" in text else text.split(", ")
    glue = "\n" if "\n" in text else ", "
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "double", "swap", "value", "piece"]))
        if kind == "drop":
            lines[at : at + 1] = []
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "value":
            lines[at] = lines[at].partition(":")[0] + ": " + draw(st.sampled_from(PIECES))
        else:
            cut = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:cut] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + lines[at][cut:]
        lines = lines or [""]
    return glue.join(lines)


def read_whatever(folder: Path, text: str) -> None:
    """Read it. CardError alone may come out, and a catalogue that is read is one that could be written again."""
    path = folder / "registry.yaml"
    path.write_text(text, errors="surrogatepass")
    said = []
    try:
        cards = read_catalogue(path)
        assert Catalogue.model_validate_json(Catalogue(version=1, cards=cards).model_dump_json()).cards == cards
    except CardError as error:
        said.append(str(error))
    assert all(words.startswith(str(path)) and "\n" not in words for words in said)


ANY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=150, **ANY)
@given(st.text() | mutated())
def test_only_card_errors_come_out(tmp_path: Path, text: str) -> None:
    read_whatever(tmp_path, text)


@pytest.mark.slow
@settings(max_examples=1000, **ANY)
@given(st.text() | mutated())
def test_only_card_errors_come_out_of_a_thousand(tmp_path: Path, text: str) -> None:
    read_whatever(tmp_path, text)
