"""What a model costs: time, arithmetic, memory and disk, as measures of the table. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genzoo.report.measures import Cell, Entry, Measure, Reader
from genzoo.report.text import count, megabytes, number, seconds
from genzoo.results import Speed
from genzoo.uncertainty import median_interval

REPETITIONS = "intervals of the median"


def _of_speed(read: Callable[[Speed], Cell | None]) -> Reader:
    """A cell from the time and memory of a model; none where they were not measured."""

    def cell(entry: Entry) -> Cell | None:
        return None if entry.model.speed is None or not entry.competes else read(entry.model.speed)

    return cell


def _throughput(speed: Speed) -> Cell:
    low, high = median_interval([speed.batch / value for value in speed.batch_seconds])
    rate = speed.images_per_second
    tried = f", the fastest of {len(speed.tried)}" if len(speed.tried) > 1 else ""
    return Cell(rate, number(rate), low, high, (f"batch {speed.batch}{tried}",))


def _latency(speed: Speed) -> Cell:
    value, times = speed.median_latency, speed.latency
    return Cell(value, seconds(value), *median_interval(times), (f"median of {len(times)}",))


def _known(value: float | None, words: Callable[[float], str]) -> Cell | None:
    """A number that may be unknown."""
    return None if value is None else Cell(value, words(value))


def _parameters(entry: Entry) -> Cell | None:
    return _known(entry.model.parameters or None, count)


def _file(entry: Entry) -> Cell | None:
    return _known(entry.model.file_bytes or None, megabytes)


#: Each measure, and how its cell is read.
COSTS: Sequence[tuple[Measure, Reader]] = (
    (
        Measure(
            "throughput",
            "Images/s",
            "higher",
            "speed",
            "Pictures per second, as many at a time as is fastest, from seed to finished pixels.",
            interval=REPETITIONS,
            local=True,
        ),
        _of_speed(_throughput),
    ),
    (
        Measure(
            "latency",
            "Latency",
            "lower",
            "speed",
            "How long one picture takes, by itself.",
            interval=REPETITIONS,
            local=True,
        ),
        _of_speed(_latency),
    ),
    (
        Measure(
            "load",
            "Load time",
            "lower",
            "speed",
            "From the name to a model that is ready; measured once.",
            local=True,
        ),
        _of_speed(lambda speed: Cell(speed.load_seconds, seconds(speed.load_seconds))),
    ),
    (
        Measure("nfe", "NFE", "lower", "speed", "How often the network runs for one picture.", counted=True),
        _of_speed(lambda speed: Cell(speed.nfe, number(speed.nfe))),
    ),
    (
        Measure("flops", "FLOPs/image", "lower", "cost", "Arithmetic for one picture.", counted=True),
        _of_speed(lambda speed: _known(speed.flops, count)),
    ),
    (
        Measure("parameters", "Parameters", "lower", "cost", "Numbers that were learned.", counted=True),
        _parameters,
    ),
    (
        Measure("file", "File size", "lower", "cost", "The weights on disk.", counted=True),
        _file,
    ),
    (
        Measure(
            "memory",
            "Memory",
            "lower",
            "cost",
            "Highest memory beyond what the process held before the model; measured once.",
            local=True,
        ),
        _of_speed(lambda speed: _known(speed.added_bytes, megabytes)),
    ),
)
