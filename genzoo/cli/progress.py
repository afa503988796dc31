"""One bar for long work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from genzoo.events import Event

E = TypeVar("E", bound=Event)


def watched(events: Iterable[E], unit: str) -> Iterator[E]:
    """The events, each of them shown in a bar that counts in ``unit``.

    Two bars over each other would fight for the line: it is one bar, whose words say what it counts.
    """
    from tqdm import tqdm

    with tqdm(total=1, unit=unit, disable=None, leave=False) as bar:
        for event in events:
            bar.total, bar.n = event.total, event.done
            bar.set_description(event.what)
            yield event
