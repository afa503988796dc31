"""One key of another library's settings, and the option of ours that says the same: read one way, written the other."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.errors import shorten
from genzoo.formats import FormatError
from genzoo_plugins.formats.keys import Keys

#: Options of ours that are not yet said, and their values, all as a spec has them.
Given = dict[str, str]


def split(options: str) -> Given:
    """The options of "spacing=karras,end=1"."""
    return dict(part.partition("=")[::2] for part in options.split(",") if part)


def said(options: Mapping[Any, str], given: Given) -> Any:
    """The value whose options are among ``given``, which loses them; the one with the most of them.

    None where even the value with the fewest says something else.
    """
    fits = [value for value, text in options.items() if split(text).items() <= given.items()]
    if not fits:
        return None
    best = max(fits, key=lambda value: len(split(options[value])))
    for name in split(options[best]):
        del given[name]
    return best


@dataclass(frozen=True)
class Words:
    """A key with a value from a table.

    Attributes:
        key, default: its name, and its value where a file has none.
        options: value -> the options that say it, "" for ours by default.
        only: the methods that read it; () for all.
        why: what is in the way of the other values, and what to do.
    """

    key: str
    default: Any
    options: Mapping[Any, str]
    only: tuple[str, ...] = ()
    why: str = ""

    def read(self, keys: Keys) -> Any:
        value = keys.get(self.key, self.default, type(self.default))
        if value not in self.options:
            known = ", ".join(map(str, self.options))
            raise FormatError(
                f"{keys.source}: {self.key}: {shorten(str(value), 60)!r} is not supported; these are: {known}"
                + (f"; {self.why}" if self.why else "")
            )
        return value

    def option(self, value: Any) -> str:
        return self.options[value]

    def write(self, given: Given) -> Any:
        return said(self.options, given)


@dataclass(frozen=True)
class Number:
    """A key with a number, which is an option of ours under another name.

    Attributes:
        key, default: its name, and its value where a file has none.
        ours: the option.
        usual: what that is by default.
        low, high: its bounds.
    """

    key: str
    default: float
    ours: str
    usual: float
    low: float
    high: float
    only: tuple[str, ...] = ()

    def read(self, keys: Keys) -> Any:
        value = keys.get(self.key, self.default, type(self.default))
        if not self.low <= value <= self.high:
            raise FormatError(
                f"{keys.source}: {self.key}: {shorten(str(value), 60)} is not supported; {self.low} to {self.high} are"
            )
        return value

    def option(self, value: Any) -> str:
        return f"{self.ours}={value}" if value != self.usual else ""

    def write(self, given: Given) -> Any:
        return type(self.default)(given.pop(self.ours, self.usual))


@dataclass(frozen=True)
class Refused:
    """A key that is only understood in some values: what the others would do, and what to write."""

    key: str
    accepted: tuple[Any, ...]
    why: str

    def check(self, keys: Keys) -> None:
        keys.refuse(self.key, *self.accepted, why=self.why)


@dataclass(frozen=True)
class Clash:
    """Keys that are refused together.

    Attributes:
        values: key -> the values that it must not have while all the others have theirs. The first is named.
        why: what is in the way, and what to do.
    """

    values: Mapping[str, Container[Any]]
    why: str

    def check(self, keys: Keys) -> None:
        keys.seen.update(self.values)
        found = {key: keys.values.get(key, keys.data.get(key)) for key in self.values}
        if all(found[key] in values for key, values in self.values.items()):
            named, *others = (f"{key}: {shorten(str(value), 60)!r}" for key, value in found.items())
            raise FormatError(
                f"{keys.source}: {named} is not supported{' with ' if others else ''}{' and '.join(others)}; {self.why}"
            )
