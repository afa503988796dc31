"""Files that appear whole or not at all, and are what they seem to be."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from genzoo.errors import GenzooError

#: What a disk without space answers, and a place that may only be read.
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EACCES, errno.EROFS, errno.EPERM)


@contextlib.contextmanager
def open_regular(path: Path, error: type[GenzooError] = GenzooError) -> Iterator[io.BufferedReader]:
    """A regular file, opened for reading; a FIFO, device or folder is refused at once instead of waited for."""
    try:
        # Non-blocking: opening a FIFO that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as cause:
        raise error(f"{path}: {cause.strerror or cause}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise error(f"{path}: not a regular file")
    with os.fdopen(handle, "rb") as file:
        yield file


def sha256_of(path: Path, error: type[GenzooError] = GenzooError) -> str:
    """The sha256 of a regular file, in hexadecimal."""
    import hashlib  # brings OpenSSL along, which reading a catalogue does without

    with open_regular(path, error) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends well, and is removed when it does not.

    In order: write, flush to disk, rename, flush the folder; so that a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named, and not yet made: a signal may come between any two lines, and what is made outside the block would stay.
    part = path.parent / f".{path.name}.{os.urandom(4).hex()}.part"
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        # A full disk names no file.
        error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a small file whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def clear_unfinished(folder: Path) -> None:
    """Remove what a process that was killed had begun in a folder, by ``whole_file``; others must not write there."""
    for part in folder.glob(f".*.{'[0-9a-f]' * 8}.part"):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
