"""Events of long work, for whoever shows how it stands. Light: never imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """How far long work has come.

    Attributes:
        what: is being done, in words.
        done, total: of that.
    """

    what: str
    done: int
    total: int
