"""Two ways of doing the same, timed in turns in one process: what is noise on the machine hits both alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from genzoo.frozen import Frozen, Seq
from genzoo.results import Number, median

Clock = Literal["wall", "process"]

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "process": time.process_time}


class Ratio(Frozen):
    """How many times faster the first is than the second.

    Attributes:
        value: the median over the repetitions of (seconds of the second) / (seconds of the first).
        low, high: a 95 % interval of that median, from its order statistics; as wide as the data where they are few.
        first, second: seconds of every repetition.
        clock: "wall", or "process" for the processor's time, which a busy machine changes less.
    """

    value: Number
    low: Number
    high: Number
    first: Seq[Number]
    second: Seq[Number]
    clock: Clock = "wall"

    @classmethod
    def of(cls, first: list[float], second: list[float], clock: Clock = "wall") -> Ratio:
        """The ratio of paired repetitions."""
        ratios = sorted(b / a for a, b in zip(first, second, strict=True))
        low, high = median_interval(len(ratios))
        return cls(
            value=median(tuple(ratios)), low=ratios[low], high=ratios[high], first=tuple(first), second=tuple(second),
            clock=clock,
        )  # fmt: skip


def median_interval(count: int, confidence: float = 0.95) -> tuple[int, int]:
    """Places in a sorted sample of the narrowest symmetric interval that holds the median with that confidence.

    The number of values below the median is binomial with a half, whatever the distribution.
    """
    below = 0.0
    place = 0
    while place < (count - 1) // 2:
        below += math.comb(count, place) / 2**count
        if 2 * below > 1 - confidence:
            break
        place += 1
    low = max(place - 1, 0)
    return low, count - 1 - low


def interleaved(
    first: Callable[[], object], second: Callable[[], object], repetitions: int, clock: Clock = "wall"
) -> Ratio:
    """Time both in turns after one warming call each; every other time in the other order."""
    now = CLOCKS[clock]

    def timed(call: Callable[[], object]) -> float:
        begin = now()
        call()
        return now() - begin

    first(), second()
    firsts: list[float] = []
    seconds: list[float] = []
    for i in range(repetitions):
        if i % 2:
            seconds.append(timed(second))
            firsts.append(timed(first))
        else:
            firsts.append(timed(first))
            seconds.append(timed(second))
    return Ratio.of(firsts, seconds, clock)
