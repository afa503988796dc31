"""Documents: the subset that is read, and that whatever lies outside it is refused by file and line."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from genzoo import documents
from genzoo.documents import MAX_BYTES, MAX_DEPTH, DocumentError, load, parse, scalar
from genzoo.frozen import Frozen, Seq

REGISTRY = (Path(__file__).parent.parent / "registry.yaml").read_text()

LOADERS = [yaml.SafeLoader] + ([yaml.CSafeLoader] if hasattr(yaml, "CSafeLoader") else [])


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__, autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every test holds with PyYAML's parser in C, and without it."""
    monkeypatch.setattr(documents, "_LOADER", request.param)
    return request.param


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("-7", -7),
        ("010", 10),
        ("null", None),
        ("Null", None),
        ("~", None),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("2001-12-14", "2001-12-14"),
        ("12:30:45", "12:30:45"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("=", "="),
        ("'7'", "7"),
        ('"null"', "null"),
        ("|\n  7", "7"),
        (">-\n  a\n  b", "a b"),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = parse(f"key: {text}", "file").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_the_command_line_reads_as_a_file_does() -> None:
    assert [scalar(text) for text in ("20", "1e-4", "no", "true", "", "ddim")] == [20, 1e-4, "no", True, None, "ddim"]


def test_every_value_has_its_line() -> None:
    document = parse("a: 1\nb:\n  - x\n  - c: 2\n    d:\n      - 3\n", "file")
    assert document.data == {"a": 1, "b": ["x", {"c": 2, "d": [3]}]}
    places = [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "d"), ("b", 1, "d", 0)]
    assert [document.line(place) for place in places] == [1, 2, 3, 4, 5, 6]
    assert document.line(("b", 1, "missing", 4)) == 4, "the nearest thing around it"


FAULTS = {
    "anchor": ("a: 1\nb: &x 2", 2, "anchors"),
    "alias": ("a: 1\nb: *x", 2, "anchors"),
    "merge": ("a: &x {b: 1}\nc:\n  <<: *x", 1, "anchors"),
    "tag": ("a: !!python/object:os.system 1", 1, "tags"),
    "verbatim tag": ("a: 1\nb: !<tag:yaml.org,2002:int> 1", 2, "tags"),
    "directive": ("%YAML 1.1\n---\na: 1", 1, "directives"),
    "tag directive": ("%TAG ! tag:x.org,2000:\n---\na: 1", 1, "directives"),
    "duplicate key": ("a: 1\nb: 2\na: 3", 3, "duplicate key 'a'; it stands in line 1"),
    "duplicate key inside": ("a:\n  b: 1\n  c: 2\n  b: 3", 4, "duplicate key 'b'"),
    "duplicate key, quoted": ("a: 1\n'a': 2", 2, "duplicate key 'a'"),
    "key that is no text": ("a: 1\n? [x]\n: 2", 2, "a key must be text"),
    "two documents": ("a: 1\n---\nb: 2", 2, "second document"),
    "control character": ("a: 1\nb: \x1b[31m", 2, "control character '\\x1b'"),
    "escaped control character": ('a: 1\nb: "\\e[31m"', 2, "control character '\\x1b'"),
    "escaped zero": ('a: "\\0"', 1, "control character '\\x00'"),
    "escaped carriage return": ('a: "x\\ry"', 1, "control character '\\r'"),
    "control character in a key": ('a: 1\n"\\a": 2', 2, "control character '\\x07'"),
    "reading direction": ("a: 1\nb: x\u202ey", 2, "control character '\\u202e'"),
    "line separator": ("a: 1\nb: x\u2028y", 2, "control character"),
    "half a character": ("a: 1\nb: \ud800", 2, "control character '\\ud800'"),
    "number beyond float": ("a: 1\nb: 1e999", 2, "beyond the range"),
    "number of 41 digits": ("a: 1\nb: " + "9" * 41, 2, "beyond the range"),
    "number of 5000 digits": ("a: 1\nb: " + "9" * 5000, 2, "5000 characters"),
    "number of 5000 decimals": ("a: 0." + "9" * 5000, 1, "5002 characters"),
    "deep list": ("a: 1\nb: " + "[" * 1000 + "]" * 1000, 2, f"deeper than {MAX_DEPTH}"),
    "deep mapping": ("a: 1\nb: " + "{a: " * 1000 + "1" + "}" * 1000, 2, f"deeper than {MAX_DEPTH}"),
    "deep block": ("- " * 1000 + "1", 1, f"deeper than {MAX_DEPTH}"),
    "not closed": ("a: 1\nb: [1, 2", 2, "not readable"),
    "tab": ("a:\n\tb: 1", 2, "not readable"),
    "no such character": ('a: 1\nb: "\\U00110000"', 2, "not readable"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_file_and_line(name: str) -> None:
    text, line, words = FAULTS[name]
    with pytest.raises(DocumentError) as caught:
        parse(text, "file.yaml")
    message = str(caught.value)
    where, _, rest = message.partition(": ")
    file, _, number = where.partition(":")
    assert file == "file.yaml"
    # A directive is noticed by one of the parsers only where the document begins.
    assert abs(int(number) - line) <= (words == "directives")
    assert words in rest
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 300


def test_depth_up_to_the_limit_is_read() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "file").data is not None


def test_what_is_too_long_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="at most"):
        parse("a" * (MAX_BYTES + 1), "file")
    path = tmp_path / "long.yaml"
    path.write_text("é" * (MAX_BYTES // 2 + 1))
    with pytest.raises(DocumentError, match=r"long\.yaml: more than"):
        load(path)


def test_files_that_are_no_documents(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match="not a regular file"):
        load(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(DocumentError, match=r"bytes\.yaml:2: not UTF-8"):
        load(tmp_path / "bytes.yaml")
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(DocumentError, match="not a regular file"):
        load(tmp_path / "fifo.yaml")


def test_a_windows_file_reads_alike(tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x,\r\n  y]\r\n")
    assert load(tmp_path / "dos.yaml").data == {"a": 1, "b": ["x", "y"]}


# -- models ------------------------------------------------------------------------------------------------------------


class Inner(Frozen):
    steps: Annotated[int, Field(ge=1, le=1000)]
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5


class Outer(Frozen):
    name: str
    flag: bool = False
    inner: Seq[Inner] = ()


def test_a_document_becomes_a_model() -> None:
    read = parse("name: x\nflag: true\ninner:\n- steps: 5\n- steps: 7\n  rate: 1e-4", "file").read(Outer)
    assert read == Outer(name="x", flag=True, inner=(Inner(steps=5), Inner(steps=7, rate=1e-4)))
    assert parse("a:\n- steps: 3", "file").read(Inner, ("a", 0)).steps == 3


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("name: x\ninner:\n- steps: 5\n- stepz: 7", 4, "inner.1.stepz: unknown key; did you mean 'steps'?"),
        ("name: x\nqqq: 7", 2, "qqq: unknown key"),
        ("name: x\ninner:\n- steps: 0", 3, "inner.0.steps: Input should be greater than or equal to 1 (got 0)"),
        ("name: x\ninner:\n- steps: 1" + "0" * 30, 3, "inner.0.steps: "),
        ("name: x\ninner:\n- steps: '5'", 3, "inner.0.steps: "),
        ("name: x\ninner:\n- steps: true", 3, "inner.0.steps: "),
        ("name: x\ninner:\n- steps: 5\n  rate: .nan", 4, "inner.0.rate: "),
        ("name: x\nflag: no", 2, "flag: "),
        ("name: 7", 1, "name: "),
        ("flag: true", 1, "name: Field required"),
        ("- 1", 1, ""),
    ],
)
def test_a_key_that_breaks_the_rules_is_named_with_its_line(text: str, where: int, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text, "file.yaml").read(Outer)
    assert str(caught.value).startswith(f"file.yaml:{where}: document: {words}")


def test_of_a_thousand_faults_a_few_are_listed() -> None:
    text = "name: x\ninner:\n" + "- steps: 0\n" * 1000
    with pytest.raises(DocumentError, match="and 996 more") as caught:
        parse(text, "file").read(Outer)
    assert len(str(caught.value)) < 1000


# -- anything at all ---------------------------------------------------------------------------------------------------

TOKENS = [
    *("{", "}", "[", "]", ",", ":", "|", ">", "'", '"', "#", "%", "@", "`", "~", "\\", "!", "!!x", "&a", "*a"),
    *(": ", "- ", "? ", "  ", "\n", "\r", "\t", "\x00", "\x85", "\u2028", "\ud800", "\ufeff"),
    *("---", "...", "<<", "key", "1e999", "9" * 50, "\\u0000", '"\\U0011ffff"'),
    *("%YAML 99999999999.1\n---\n", "{a: " * 40, "- " * 40),
]

texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
    st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@st.composite
def mutated(draw: st.DrawFn, source: str = REGISTRY) -> str:
    """The catalogue with pieces cut out, doubled, or replaced."""
    text = source
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 60)))
        piece = draw(st.one_of(st.sampled_from([*TOKENS, ""]), st.text(max_size=5), st.just(text[start:end] * 2)))
        text = text[:start] + piece + text[end:]
    return text


def read_whatever(text: str) -> None:
    """Read the text as data and as a model. DocumentError alone may stop it; any other exception is a failure."""
    said = []
    try:
        document = parse(text, "file")
        json.dumps(document.data, allow_nan=False)
        document.read(Outer)
    except DocumentError as error:
        said.append(str(error))
    assert all(words.startswith("file") and "\n" not in words for words in said)


ANY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=150, **ANY)
@given(st.one_of(texts, mutated()))
@example("%YAML " + "9" * 5000 + ".1\n---\na: 1")
@example("&" * 1000)
@example("? " * 5000)
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("a: " * 100_000)
def test_only_document_errors_come_out(text: str) -> None:
    read_whatever(text)


@pytest.mark.slow
@settings(max_examples=1000, **ANY)
@given(st.one_of(texts, mutated()))
def test_only_document_errors_come_out_of_a_thousand(text: str) -> None:
    read_whatever(text)


words = st.text(st.characters(min_codepoint=32, max_codepoint=0x2000, exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, **ANY)
@given(plain, st.sampled_from([None, 1]))
def test_json_reads_as_json_does(value: Any, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    assert same(parse(text, "file").data, json.loads(text))


@settings(max_examples=150, **ANY)
@given(plain, st.data())
def test_broken_json_is_refused_or_read(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text)))
    read_whatever(text[:cut] + data.draw(st.sampled_from(TOKENS)) + text[cut:])


@settings(max_examples=150, **ANY)
@given(plain)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    """Numbers aside, whose form differs between the versions of YAML."""
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    assert same(parse(text, "file").data, value)


def same(found: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(found, dict) and found.keys() == value.keys() and all(same(found[k], value[k]) for k in value)
    if isinstance(value, list):
        return isinstance(found, list) and len(found) == len(value) and all(map(same, found, value))
    if isinstance(value, float):
        return math.isclose(found, value)
    return type(found) is type(value) and bool(found == value)
