"""Plugins as they are installed: entry points of the group ``genzoo``. Light: never imports torch, nor any of them."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genzoo.errors import GenzooError

GROUP = "genzoo"


class PluginError(GenzooError):
    """A plugin that cannot do what it registered."""


class Plugin(NamedTuple):
    """An installed plugin.

    Attributes:
        name: its entry point's name.
        package, version: the distribution it came with.
        root: the folder of its module, where its weights and recipes lie.
        brings: what it registered, as ("generator", "ddpm").
    """

    name: str
    package: str
    version: str
    root: Path
    brings: tuple[tuple[str, str], ...] = ()


class Broken(NamedTuple):
    """A plugin that was skipped, and why."""

    name: str
    package: str
    version: str
    cause: str


class Installed(NamedTuple):
    """An entry point of this group.

    Attributes:
        name: its own.
        package, version: the distribution it came with.
        load: imports and returns what it names; raises whatever that meets.
    """

    name: str
    package: str
    version: str
    load: Callable[[], Any]


def installed() -> Iterator[Installed]:
    """Every entry point of this group, whatever state the other packages' metadata is in."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        package = version = "unknown"
        try:
            # Most packages have none, and asking for the name of one of those means reading all that it says of itself.
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            about = distribution.metadata
            package, version = about["Name"] or package, about["Version"] or version
            points = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            yield Installed(package, package, version, functools.partial(_raise, error))
            continue
        # The first of a name on the path is the one that Python imports.
        normal = re.sub(r"[-_.]+", "-", package).lower()
        if normal not in seen:
            seen.add(normal)
            for point in points:
                yield Installed(point.name, package, version, point.load)


def _raise(error: Exception) -> Any:
    raise error


def version_of(package: str) -> str:
    """The version of an installed distribution, or ``unknown``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def folder_of(module: Any) -> Path:
    """The folder of a plugin's module, or of the class that a plugin object is of."""
    file = getattr(module, "__file__", None) or getattr(sys.modules.get(type(module).__module__), "__file__", None)
    return Path(file).parent if file else Path()
