"""Settings files of other libraries, read key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genzoo.formats import FormatError


@dataclass
class Keys:
    """A settings file read key by key: what nobody asked for is an error at the end.

    Attributes:
        data: the file's mapping.
        source: how the file is named in messages.
        idle: keys without any effect.
        seen: keys that were asked for.
        values: what was got, the class's defaults among it.
    """

    data: Mapping[str, Any]
    source: str
    idle: frozenset[str] = frozenset()
    seen: set[str] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any, kind: type | tuple[type, ...]) -> Any:
        """The value, of the right type (a whole number is a real one too), or the class's default."""
        self.seen.add(name)
        value = self.data.get(name, default)
        if isinstance(value, bool) and bool not in (kind if isinstance(kind, tuple) else (kind,)):
            value = str(value)
        if kind is float and isinstance(value, int | float):
            value = float(value)
        if not isinstance(value, kind):
            raise FormatError(f"{self.source}: {name}: {str(value)[:60]!r} is not of the right type")
        self.values[name] = value
        return value

    def refuse(self, name: str, *accepted: Any, why: str = "it would change the images") -> None:
        """A setting that only has an effect in other values than these is refused in those."""
        self.seen.add(name)
        if name in self.data and self.data[name] not in accepted:
            raise FormatError(f"{self.source}: {name}: {str(self.data[name])[:60]!r} is not supported; {why}")

    def choose(self, name: str, default: str, known: Mapping[str, str]) -> str:
        """A word from a table."""
        word = self.get(name, default, str)
        if word not in known:
            raise FormatError(f"{self.source}: {name}: {word[:60]!r} is not supported; these are: {', '.join(known)}")
        return known[word]

    def finish(self) -> None:
        """Refuse the keys that are left."""
        left = sorted(set(self.data) - self.seen - self.idle)
        if left:
            raise FormatError(f"{self.source}: {', '.join(key[:60] for key in left)}: not known here, so not ignored")
