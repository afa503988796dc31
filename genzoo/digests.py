"""sha256 of files, worked out once for each state of a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from pathlib import Path

from genzoo.files import write_whole

#: How many files' digests are remembered.
MOST = 1000

#: A file younger than this is not remembered: a later write within the clock's grain would leave its times as they are.
SETTLED = 2.0

_remembered: dict[str, str] | None = None


def cache_folder() -> Path:
    """Where genzoo keeps what it can work out again: GENZOO_CACHE, else ``genzoo`` in the user's cache folder."""
    if named := os.environ.get("GENZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genzoo"


def digest(file: io.BufferedReader) -> str:
    """The sha256 of an open regular file, in hexadecimal; its position is left at the start.

    Remembered by device, inode, size and both times. The time of the last status change is among them because a
    program can set the time of modification back, but not that one.
    """
    state = os.fstat(file.fileno())
    key = f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"
    known = _load()
    if key in known:
        return known[key]
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED:
        known[key] = found
        _store(known)
    return found


def forget() -> None:
    """Read the remembered digests anew at the next call."""
    global _remembered
    _remembered = None


def _path() -> Path:
    return cache_folder() / "digests.json"


def _load() -> dict[str, str]:
    global _remembered
    if _remembered is None:
        try:
            read = json.loads(_path().read_text())
            pairs = read.items() if isinstance(read, dict) else ()
            _remembered = {k: v for k, v in pairs if isinstance(v, str) and len(v) == 64}
        except (OSError, ValueError, RecursionError, RuntimeError):
            _remembered = {}
    return _remembered


def _store(known: dict[str, str]) -> None:
    for old in list(known)[:-MOST]:
        del known[old]
    # A cache that cannot be written costs time, nothing else.
    with contextlib.suppress(OSError, RuntimeError):
        write_whole(_path(), json.dumps(known))
