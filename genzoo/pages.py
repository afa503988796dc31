"""Pages of memory that are mapped from a file: given back once they are read, unless they were written to."""

from __future__ import annotations

import contextlib
import mmap
import sys

#: What the system says of its pages, 8 bytes for each (Linux's documentation: admin-guide/mm/pagemap).
_PAGEMAP = "/proc/self/pagemap"

#: The three upper bits of such an entry's upper byte: in memory (4), swapped out (2), part of a file (1). A page of a
#: private mapping that was written to is a copy of its own, and part of no file.
_SHIFT = 5

#: Of pages that the file still holds as they are: those that are not in memory, and those that are the file's.
_CLEAN = frozenset({0b000, 0b001, 0b101})


def give_back(mapping: mmap.mmap, address: int, begin: int, end: int) -> None:
    """Give the whole pages of [begin, end) of a private mapping back; they are read from the file if they are used.

    If one of them was written to, or where the system does not tell or refuses (as for memory that is locked), all of
    them stay. What another thread writes to them at the very moment may be lost: whoever gives them back sees to it
    that nobody does.

    Args:
        mapping: of a file, from its start.
        address: where it begins in memory.
        begin, end: bytes of the file.
    """
    first, last = -(-begin // mmap.PAGESIZE), end // mmap.PAGESIZE
    if first < last and hasattr(mmap, "MADV_DONTNEED") and _clean(address // mmap.PAGESIZE + first, last - first):
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def _clean(first: int, count: int) -> bool:
    """Whether the file still holds what is in ``count`` pages of memory from number ``first`` on."""
    try:
        with open(_PAGEMAP, "rb", buffering=0) as file:
            file.seek(8 * first)
            raw = file.read(8 * count)
    except OSError:
        return False
    upper = raw[7::8] if sys.byteorder == "little" else raw[::8]
    return len(raw) == 8 * count and {byte >> _SHIFT for byte in set(upper)} <= _CLEAN
