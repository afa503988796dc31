"""Reading YAML and JSON that may be hostile: plain data only, every key with its line, nothing unbounded.

The subset: mappings with text keys, lists, and scalars by YAML 1.2's core rules, so that ``1e-4`` is a number and
``no`` is a word. Anchors, aliases, tags, duplicate keys and deep nesting are refused. JSON is a part of that subset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from genzoo.errors import GenzooError, explain

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")


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
            first = error.errors(include_url=False)[0]["loc"]
            raise self.error(path + tuple(first), explain(error, ".".join(map(str, path)) or "document")) from None
        except (ValueError, RecursionError) as error:
            raise self.error(path, f"unreadable value: {error}") from None


def parse(text: str, source: str) -> Document:
    """The document in ``text``. Raises DocumentError, and nothing else, for anything that is not in the subset."""
    if len(text) > MAX_BYTES:
        raise DocumentError(f"{source}: {len(text)} characters; at most {MAX_BYTES} are read")
    lines: dict[Path_, int] = {}
    try:
        root = _compose(text, source)
        data = None if root is None else _plain(root, (), lines, source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise DocumentError(
            f"{where}: not readable: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from None
    except (RecursionError, ValueError) as error:
        raise DocumentError(f"{source}: not readable: {type(error).__name__}") from None
    return Document(data, lines, source)


def load(path: Path) -> Document:
    """The document in a file. Raises DocumentError where it is missing, not text, or not in the subset."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return parse(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None


def _compose(text: str, source: str) -> yaml.Node | None:
    """The node tree, refusing by its events what could make building it expensive."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DocumentError(f"{source}:{line}: anchors and aliases are not used here; write the value out")
        if tag := getattr(event, "tag", None):
            raise DocumentError(f"{source}:{line}: tags such as {tag} are not used here; leave it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise DocumentError(f"{source}:{line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return node


def _plain(node: yaml.Node, path: Path_, lines: dict[Path_, int], source: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise DocumentError(f"{source}:{at}: a key must be text")
            key = _text(key_node.value, source, at)
            if key in out:
                first = lines[(*path, key)]
                raise DocumentError(f"{source}:{at}: duplicate key {key!r}; it stands in line {first} already")
            lines[(*path, key)] = at
            out[key] = _plain(value_node, (*path, key), lines, source)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), lines, source) for i, item in enumerate(node.value)]
    return _scalar(node, source, line)


def _scalar(node: yaml.Node, source: str, line: int) -> Any:
    text = _text(node.value, source, line)
    if getattr(node, "style", None) is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if abs(value) == float("inf"):
            raise DocumentError(f"{source}:{line}: {text} is beyond the range of a number")
        return value
    return text


def _text(text: str, source: str, line: int) -> str:
    if bad := _CONTROL.search(text):
        raise DocumentError(f"{source}:{line}: control character {bad.group()!r} in text")
    return text


def scalar(text: str) -> Any:
    """A value typed at the command line, by the same rules: ``20`` is a number, ``true`` a truth value."""
    return _scalar(yaml.ScalarNode("", text), "the command line", 1)
