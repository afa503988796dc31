"""What takes reading a whole file, as its sha256, worked out once for each state of the file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genzoo.files import write_whole

#: How much is remembered.
MOST = 2000

#: A file younger than this is not remembered: a later write within the clock's grain would leave its times as they are.
SETTLED = 2.0


def cache_folder() -> Path:
    """Where genzoo keeps what it can work out again: GENZOO_CACHE, else ``genzoo`` in the user's cache folder."""
    if named := os.environ.get("GENZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genzoo"


@dataclass(frozen=True)
class State:
    """What tells a file from itself after a change: device, inode, size and both times.

    The time of the last status change is among them because a program can set the time of modification back, but not
    that one.

    Attributes:
        key: these, as text.
        settled: whether it is old enough for a later change to show in them.
    """

    key: str
    settled: bool

    @classmethod
    def of(cls, file: io.BufferedReader) -> State:
        """The state of an open file."""
        s = os.fstat(file.fileno())
        settled = time.time() - max(s.st_mtime, s.st_ctime) > SETTLED
        return cls(f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}", settled)


def remembered(state: State, what: str, work: Callable[[], str]) -> str:
    """A short text about a file in that state, worked out once: ``what`` names it."""
    path = _path()
    key, known = f"{what}:{state.key}", known_of(path)
    if key not in known:
        found = work()
        if not state.settled:
            return found
        known[key] = found
        _store(known, path)
    return known[key]


def digest(file: io.BufferedReader) -> str:
    """The sha256 of an open regular file, in hexadecimal; its position is left at the start."""

    def work() -> str:
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        return found

    return remembered(State.of(file), "sha256", work)


def _path() -> Path | None:
    """Where it is remembered from process to process; None for a user without a home folder."""
    try:
        return cache_folder() / "digests.json"
    except RuntimeError:
        return None


@functools.cache
def known_of(path: Path | None) -> dict[str, str]:
    """What a file remembers, read once a process; nothing where it cannot be read. What is found out later is added."""
    try:
        read = json.loads(path.read_text()) if path is not None else None
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = read.items() if isinstance(read, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str) and len(value) <= 64}


def _store(known: dict[str, str], path: Path | None) -> None:
    for old in list(known)[:-MOST]:
        del known[old]
    # A cache that cannot be written costs time, nothing else.
    with contextlib.suppress(OSError):
        if path is not None:
            write_whole(path, json.dumps(known))
