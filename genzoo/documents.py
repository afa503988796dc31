"""Reading YAML and JSON that may be hostile: plain data only, every key with its line, nothing unbounded.

The subset: mappings with text keys, lists, and scalars by YAML 1.2's core rules (decimal numbers only), so that
``1e-4`` is a number and ``no`` is a word. Anchors, aliases, tags, directives, duplicate keys, control characters and
deep nesting are refused. JSON is a part of that subset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from genzoo.errors import GenzooError, explain, faults, shorten
from genzoo.files import open_regular

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_DIGITS = 40
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None} | {
    form: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for form in (word, word.title(), word.upper())
}
#: Control characters, line breaks that editors do not show as such, marks that turn the reading direction around,
#: halves of characters, and code points that are none.
_UNPRINTABLE = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_RAW = re.compile(f"[{_UNPRINTABLE}]")
#: In a value, where an escape may have put it, a carriage return is one as well.
_CONTROL = re.compile(f"[{_UNPRINTABLE}\r]")
#: The parser in C, where PyYAML was built with it: the same events, ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(GenzooError):
    """A file that is not what it should be; the message names file, line and key."""


class Document:
    """Parsed data with the line of every key.

    Attributes:
        data: plain Python values.
        source: how the file is named in messages.
    """

    def __init__(self, data: Any, lines: Mapping[Path_, int], source: str) -> None:
        self.data, self._lines, self.source = data, lines, source

    def line(self, path: Path_) -> int:
        """The line of the value at ``path``, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error(self, path: Path_, message: str) -> DocumentError:
        """An error at ``path``."""
        return DocumentError(f"{self.source}:{self.line(path)}: {message}")

    def read(self, model: type[Model], path: Path_ = ()) -> Model:
        """The part of the document at ``path`` as a checked model; raises DocumentError at the first bad key's line."""
        part = self.data
        for key in path:
            part = part[key]
        try:
            # By way of JSON: its strict mode takes a list for a tuple, and nothing else that is not meant.
            return model.model_validate_json(json.dumps(part, allow_nan=False), strict=True)
        except ValidationError as error:
            first = faults(error)[0]["loc"]
            where = ".".join(map(str, path)) or "document"
            raise self.error(path + tuple(first), explain(error, where, model)) from None
        except (ValueError, RecursionError) as error:
            raise self.error(path, f"unreadable value: {error}") from None


def parse(text: str, source: str) -> Document:
    """The document in ``text``. Raises DocumentError, and nothing else, for anything that is not in the subset."""
    if len(text) > MAX_BYTES:
        raise DocumentError(f"{source}: {len(text)} characters; at most {MAX_BYTES} are read")
    if bad := _RAW.search(text):
        raise DocumentError(f"{source}:{text.count(chr(10), 0, bad.start()) + 1}: control character {bad.group()!r}")
    lines: dict[Path_, int] = {}
    reader = _Reader(text, lines, source)
    try:
        data = reader.document()
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        # What is missing at the end is noticed behind it.
        where = f"{source}:{min(mark.line, text.rstrip().count(chr(10))) + 1}" if mark else source
        raise DocumentError(f"{where}: not readable: {problem or str(error).splitlines()[0]}") from None
    except (ValueError, OverflowError):
        # An escape of a character that does not exist, or a version of a thousand digits.
        raise DocumentError(f"{source}:{reader.line}: not readable after this line") from None
    return Document(data, lines, source)


def load(path: Path) -> Document:
    """The document in a file. Raises DocumentError where it is missing, not text, or not in the subset."""
    with open_regular(path, DocumentError) as file:
        try:
            raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise DocumentError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"{path}: more than the {MAX_BYTES} bytes that are read")
    try:
        return parse(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"{path}:{line}: not UTF-8 text (byte {error.start})") from None


class _Reader:
    """Plain values from the parser's events, in one pass.

    Events, because a tree of a hostile document would be built before it could be refused.

    Attributes:
        line: of the last event.
    """

    def __init__(self, text: str, lines: dict[Path_, int], source: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._lines, self._source = lines, source
        self.line = 1

    def document(self) -> Any:
        """The only document; None where the text holds none."""
        data, found = None, False
        while True:
            event = self._next()
            if isinstance(event, yaml.StreamEndEvent):
                return data
            if isinstance(event, yaml.DocumentStartEvent):
                if found:
                    raise self._error("a second document begins; one is read")
                if event.version or event.tags:
                    raise self._error("directives are not used here; leave the line with % out")
                data, found = self._value(self._next(), (), 0), True

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self.line = event.start_mark.line + 1 if event.start_mark else self.line
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self._error("anchors and aliases are not used here; write the value out")
        if tag := getattr(event, "tag", None):
            raise self._error(f"tags such as {tag[:40]} are not used here; leave it out")
        return event

    def _value(self, event: yaml.Event, path: Path_, depth: int) -> Any:
        self._lines.setdefault(path, self.line)
        if isinstance(event, yaml.ScalarEvent):
            # Quoted text and text blocks are text whatever they hold.
            return self._text(event.value) if event.style else self._plain(event.value)
        if depth == MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._value(event, (*path, len(items)), depth + 1))
            return items
        out: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error("a key must be text")
            key = self._text(event.value)
            inside = (*path, key)
            if key in out:
                raise self._error(
                    f"duplicate key {shorten(key, 40)!r}; it stands in line {self._lines[inside]} already"
                )
            self._lines[inside] = self.line
            out[key] = self._value(self._next(), inside, depth + 1)
        return out

    def _plain(self, text: str) -> Any:
        try:
            return scalar(text)
        except DocumentError as error:
            raise self._error(str(error)) from None

    def _text(self, text: str) -> str:
        if bad := _CONTROL.search(text):
            raise self._error(f"control character {bad.group()!r} in text")
        return text

    def _error(self, message: str) -> DocumentError:
        return DocumentError(f"{self._source}:{self.line}: {message}")


def scalar(text: str) -> Any:
    """An unquoted value, as it may also be typed at the command line: ``20`` is a number, ``true`` a truth value.

    Raises DocumentError for a control character, and for a number that is beyond the range of numbers.
    """
    if bad := _CONTROL.search(text):
        raise DocumentError(f"control character {bad.group()!r} in text")
    if text in _WORDS:
        return _WORDS[text]
    if not _FLOAT.fullmatch(text):
        return text
    if len(text) > 2 * MAX_DIGITS:
        raise DocumentError(f"{shorten(text, 40)!r}: a number of {len(text)} characters; quote it if it is text")
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise DocumentError(f"{shorten(text, 40)!r} is beyond the range of a number; quote it if it is text")
        return int(text)
    value = float(text)
    if abs(value) == float("inf"):
        raise DocumentError(f"{shorten(text, 40)!r} is beyond the range of a number; quote it if it is text")
    return value
