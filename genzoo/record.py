"""Records: what a command leaves in a file, with where it was measured. Light: never imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationError

from genzoo.errors import ResultsError, explain, is_newer, newer, quoted
from genzoo.files import open_regular, write_whole
from genzoo.frozen import Frozen, Label

R = TypeVar("R", bound="Record")


class Environment(Frozen):
    """Where it was measured.

    Attributes:
        device: "cpu", "cuda:0", ... with its name in words.
        processor, threads: of the host.
        platform: operating system and machine.
        versions: of genzoo, torch, Python and what else matters; "genzoo code" is the fingerprint of the code that ran,
            which records made before it was taken do not have.
    """

    device: Label
    processor: Label
    threads: Annotated[int, Field(ge=1, le=100_000)]
    platform: Label
    versions: dict[str, str]


class Record(Frozen):
    """What a command leaves in a file, for a report to be made of.

    Attributes:
        COMMAND, FILE: what writes it, and how the file is called there; ``read_file`` tells them to whoever gives it
            something else.
        format: what the file holds, in which version, as "genzoo.results/1"; a subclass defaults it to its own.
    """

    COMMAND: ClassVar[str]
    FILE: ClassVar[str]

    format: str

    def to_json(self) -> str:
        """The file's text: every field has a line, and so has a list of numbers or words, however long.

        So the difference of two files tells which fields have changed, and thousands of samples stay a small file.
        """
        return _lines(self.model_dump(mode="json"), "\n") + "\n"

    def write(self, path: Path) -> None:
        """Write, whole or not at all."""
        write_whole(path, self.to_json())


def read_file(path: Path, kinds: Sequence[type[R]], largest: int) -> R:
    """A file that holds a record.

    Args:
        path: of the file.
        kinds: what it may hold, told apart by ``format``; the first is what the user is taken to have meant where the
            file is none of them.
        largest: bytes that such a file has at the most.

    Raises:
        ResultsError: says what is wrong with the file.
    """
    wanted = kinds[0]
    with open_regular(path, ResultsError) as file:
        raw = file.read(largest + 1)
    if len(raw) > largest:
        raise ResultsError(f"{path}: more than {largest} bytes; give a {wanted.FILE} of {wanted.COMMAND}")
    try:
        head = json.loads(raw)
        found = head.get("format") if isinstance(head, dict) else None
    except (ValueError, RecursionError):
        raise ResultsError(f"{path}: not JSON; give a {wanted.FILE} of {wanted.COMMAND}") from None
    kind = next((kind for kind in kinds if _format(kind) == found), None)
    if kind is None:
        raise ResultsError(f"{path}: {_other_format(found, kinds)}")
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise ResultsError(explain(error, str(path), kind)) from None


def _lines(value: Any, line: str) -> str:
    """Plain data as JSON; ``line`` begins a line of the mapping or list that it stands in."""
    inside = line + " "
    if isinstance(value, dict) and value:
        fields = (f"{inside}{_word(key)}: {_lines(item, inside)}" for key, item in value.items())
        return "{" + ",".join(fields) + line + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + ",".join(inside + _lines(item, inside) for item in value) + line + "]"
    return _word(value)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _format(kind: type[Record]) -> str:
    """The format that this version writes."""
    return str(kind.model_fields["format"].default)


def _other_format(found: object, kinds: Sequence[type[Record]]) -> str:
    """What is wrong with a format that no kind has, and what to do: a file of an older version is measured again."""
    for kind in kinds:
        ours = _format(kind)
        (kept, _, version), (there, _, other) = ours.rpartition("/"), str(found).rpartition("/")
        if there == kept:
            if other.isdecimal() and is_newer(int(other[:9]), int(version)):
                return f"format {newer(found, ours)}"
            # Into another folder, for a command that goes on with what a folder holds would meet this file again.
            again = f"measure again with {kind.COMMAND} -o ANOTHER_FOLDER"
            return f"format {quoted(found)}, where this version reads {ours!r}; {again}"
    return f"format {quoted(found)} is not read here; give a {kinds[0].FILE} of {kinds[0].COMMAND}"
