"""Two ways of doing the same, timed in turns in one process: what is noise on the machine hits both alike."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any, Literal, Self

from genzoo.bench import environment, now
from genzoo.frozen import Frozen, Label, Number, Seq, Text
from genzoo.record import Environment, Record
from genzoo.uncertainty import median_interval

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
        ratios = tuple(b / a for a, b in zip(first, second, strict=True))
        low, high = median_interval(ratios)
        return cls(
            value=median(ratios), low=low, high=high, first=tuple(first), second=tuple(second),
            clock=clock,
        )  # fmt: skip


class Made(Record):
    """What a script leaves in a file, with what repeats it; each adds its ``format``."""

    made: Label
    command: Text
    environment: Environment

    @classmethod
    def here(cls, **found: Any) -> Self:
        """What this process found, on the CPU."""
        command = shlex.join(["python", *sys.argv])
        return cls.model_validate({"made": now(), "command": command, "environment": environment("cpu"), **found})


class Rows(Made):
    """What a run measured; a script adds the ``rows``."""

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """The rows of this process's own run."""
        return cls.here(rows=tuple(rows))


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
