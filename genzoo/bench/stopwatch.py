"""Repeating a call until its time is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from genzoo.bench.records import LEAST, LEAST_SECONDS, MOST, Timing

if TYPE_CHECKING:
    from genzoo.bench.devices import Device


def repeat(device: Device, call: Callable[[], object], seconds: float, *, warm: bool = True) -> Timing:
    """Time a call: ``LEAST`` times and for ``LEAST_SECONDS``, but begin none after ``seconds`` or ``MOST``.

    Args:
        device: whose clock is used.
        call: does the same work every time.
        seconds: that the repetitions may take.
        warm: call once before, untimed.
    """
    if warm:
        call()
        device.wait()
    wall: list[float] = []
    busy: list[float] = []
    while sum(wall) < seconds and len(wall) < MOST and (len(wall) < LEAST or sum(wall) < LEAST_SECONDS):
        lap = device.lap(call)
        wall.append(lap.wall)
        if lap.busy is not None:
            busy.append(lap.busy)
    return Timing(wall=tuple(wall), busy=tuple(busy))
