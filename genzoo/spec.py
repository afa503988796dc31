"""Specs: the text that makes a registered object, as ``ddim:eta=0.5``. Light: never imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genzoo.documents import scalar
from genzoo.errors import OptionError, quoted, shorten
from genzoo.frozen import Frozen

if TYPE_CHECKING:
    from genzoo.registry import Zoo


def parse(spec: str, kind: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of ``name`` or ``name:key=value,key=value``; ``kind`` says in errors of what."""
    name, _, rest = spec.partition(":")
    given: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise OptionError(f"{kind} {quoted(spec)}: write options as name:key=value,key=value")
        if key in given:
            raise OptionError(f"{kind} {quoted(spec)}: {shorten(key, 40)} stands there twice")
        given[key] = scalar(value.strip())
    return name.strip(), given


def describe(thing: Frozen, zoo: Zoo) -> str:
    """What ``zoo.make`` makes ``thing`` from: its registered name, and the options that it was given.

    What nobody registered is named by its class: nothing can be made from that, but a reader sees what it was.
    """
    cls = type(thing)
    targets = (cls, f"{cls.__module__}:{cls.__qualname__}")
    name = next((name for (_, name), entry in zoo.entries.items() if entry.target in targets), cls.__name__)
    settings = [f"{key}={_written(value, zoo)}" for key, value in thing if key in thing.model_fields_set]
    return ":".join(filter(None, (name, ",".join(settings))))


def plain_options(options: Frozen | Mapping[str, Any], zoo: Zoo) -> dict[str, Any]:
    """Options as JSON can hold them, and as a generator takes them again: objects as their specs.

    Labels are left out: they belong to each image, and are told there.
    """
    return {key: _plain(value, zoo) for key, value in dict(options).items() if key != "labels"}


def _plain(value: Any, zoo: Zoo) -> Any:
    if isinstance(value, int | float | str | bool | type(None)):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item, zoo) for item in value]
    return describe(value, zoo) if isinstance(value, Frozen) else str(value)


def _written(value: Any, zoo: Zoo) -> str:
    """A value inside a spec: a comma ends an option, so a list has "/" between its items, and one of specs "+"."""
    if isinstance(value, Frozen):
        return describe(value, zoo).replace(",", ";")
    if isinstance(value, tuple | list):
        between = "+" if any(isinstance(item, Frozen) for item in value) else "/"
        return between.join(_written(item, zoo) for item in value)
    if isinstance(value, int | float | type(None)):
        return json.dumps(value).removesuffix(".0")  # null, true, false
    return str(value)
