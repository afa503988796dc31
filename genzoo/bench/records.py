"""Rows of ``genzoo bench``: what one configuration of one model costs.

A file of rows says where it was measured and by which command, so that a stranger's file can stand beside ours; a row
that breaks the rules of the protocol (see benchmarks/README.md) is no row and cannot be read.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from genzoo.cards import Line
from genzoo.frozen import Count, Frozen, Label, Number, Seq, Text
from genzoo.record import Environment, Record, read_file

MAX_BYTES = 64 << 20

#: Repetitions and seconds that a timing rests on at least.
LEAST = 10
LEAST_SECONDS = 1.0

#: Repetitions after which a timing ends, however short they are.
MOST = 1000

#: Significant digits of a sample. A clock's other digits are noise, and thousands of samples are most of a file.
DIGITS = 4

#: The largest share of a sample that rounding takes off.
ROUNDING = 0.5 * 10.0 ** (1 - DIGITS)

#: A sample of a timing, in seconds.
Sample = Annotated[Number, AfterValidator(lambda seconds: float(f"{seconds:.{DIGITS}g}"))]

Dtype = Literal["fp32", "bf16", "fp16"]
Compile = Literal["off", "default", "reduce-overhead", "max-autotune", "freezing"]
Status = Literal["ok", "out of memory", "refused", "failed"]

#: How far a pixel in [-1, 1] may be from float32 eager. Rounding alone, grown over a walk of many steps: half precision
#: carries 11 bits and bfloat16 8, and a few pixels on an edge move far more than the others do.
BOUNDS: dict[str, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.5}

#: How much nearer all pixels together must be: what moves every one of them that far is no rounding.
TIGHTER = 10


class Task(Frozen):
    """One configuration, measured in a process of its own.

    Attributes:
        model: a name or path, as ``genzoo generate`` takes it.
        options: of the model's family, as steps.
        device, dtype: where and as what the weights are.
        batch: images per call; 0 for the most that fit.
        compile: torch.compile's mode for the network, freezing (see ``compiler.SETTINGS``), or off.
        threads: of the CPU.
        seconds: after which no further repetition begins, for each timing.
        replicas: processes that run at once, each on a device of its own.
        bound: the largest difference of a pixel in [-1, 1] from float32 eager that is accepted, with a tenth of it for
            their root mean square; null: the dtype's own.
        slow: also measure a dtype that the processor has no units for.
    """

    model: Label
    options: dict[str, Any] = Field(default_factory=dict)
    device: Label = "cpu"
    dtype: Dtype = "fp32"
    batch: Annotated[int, Field(ge=0, le=1 << 20)] = 1
    compile: Compile = "off"
    threads: Annotated[int, Field(ge=1, le=100_000)] = 1
    seconds: Annotated[float, Field(gt=0, le=1e5)] = 10.0
    replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    bound: Annotated[float, Field(ge=0, le=2)] | None = None
    slow: bool = False

    @property
    def limit(self) -> float:
        """The largest difference of a pixel that is accepted."""
        return BOUNDS[self.dtype] if self.bound is None else self.bound

    def objection(self, difference: float, rms: float) -> str | None:
        """Why pixels that differ so much from float32 eager are not accepted; None where they are.

        Args:
            difference: the largest of a pixel.
            rms: the root mean square over all of them.
        """
        # Not difference > limit, which a NaN would pass.
        if not difference <= self.limit:
            return f"a pixel differs by {difference:.3g} from float32 eager, beyond the bound of {self.limit:g}"
        bound = self.limit / TIGHTER
        if not rms <= bound:
            return (
                f"its pixels differ by {rms:.3g} (root mean square) from float32 eager, beyond the bound of {bound:g}"
            )
        return None


class Timing(Frozen):
    """Repetitions of one call, each to ``DIGITS`` significant digits.

    Attributes:
        wall: seconds on the clock, the device idle before and after.
        busy: seconds of the processor (CPU), or between events on the stream (GPU); empty where neither is known.
    """

    wall: Seq[Sample]
    busy: Seq[Sample] = ()

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.wall)

    def quantile(self, share: float) -> float:
        """Seconds that ``share`` of the repetitions do not exceed, as 0.9 for p90; between two of them, linearly."""
        ordered = sorted(self.wall)
        place = share * (len(ordered) - 1)
        below = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
        return ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])

    @property
    def spread(self) -> float:
        """The interquartile range, in seconds."""
        return self.quantile(0.75) - self.quantile(0.25)


class Memory(Frozen):
    """Bytes; null where the device does not tell.

    Attributes:
        weights: of parameters and buffers.
        base: held before the model was loaded.
        peak: the most held while images were made: allocated on a GPU, resident on a CPU.
        reserved: the most that the allocator took from the driver; null on a CPU.
    """

    weights: Count
    base: Count | None = None
    peak: Count | None = None
    reserved: Count | None = None


class Clocks(Frozen):
    """A GPU at one moment, from NVML.

    Attributes:
        sm, memory: MHz.
        temperature: degrees Celsius.
        throttled: the reasons for which it ran slower than asked, as "thermal" or "power cap".
    """

    sm: Number | None = None
    memory: Number | None = None
    temperature: Number | None = None
    throttled: Seq[Label] = ()


class Row(Frozen):
    """What a task gave.

    Attributes:
        task: what was asked, its batch replaced by the one that was found where the most were asked for.
        largest: whether the batch is the most that fit.
        status: "ok", or why there is no timing; ``why`` says it in words.
        name: the card's, where there is one.
        weights: sha256 of the weights, where a card names one.
        options: all options of the run, the model's defaults too.
        settings: of the device and of torch, as TF32; the memory format and the attention kernels that were seen at
            work in eager mode; and what the compiler made.
        nfe, flops: per image.
        load_seconds: from the name to a model that is ready.
        first_seconds: the first images, caches cold, before anything is compiled.
        compile_seconds: the first call after compiling; null without.
        whole: seeds to uint8 pixels on the host.
        network: the same evaluations of the network alone, replayed; null where there is no module to replay.
        memory: see there.
        difference, rms_difference: of the pixels in [-1, 1] from float32 eager, the largest and the root mean square; a
            refused row says it in ``why``.
        joules: of the GPU per image; null where NVML does not tell.
        before, after: the GPU's clocks around the timings.
        replica_seconds: median seconds a batch of each replica.
    """

    task: Task
    largest: bool = False
    status: Status
    why: Text = ""
    name: Label | None = None
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, str] = Field(default_factory=dict)
    nfe: Number | None = None
    flops: Number | None = None
    load_seconds: Number | None = None
    first_seconds: Number | None = None
    compile_seconds: Number | None = None
    whole: Timing | None = None
    network: Timing | None = None
    memory: Memory | None = None
    difference: Number | None = None
    rms_difference: Number | None = None
    joules: Number | None = None
    before: Clocks | None = None
    after: Clocks | None = None
    replica_seconds: Seq[Number] = ()

    @model_validator(mode="after")
    def _follows_the_rules(self) -> Row:
        if self.status != "ok":
            if not self.why:
                raise ValueError(f"a row that is {self.status!r} says why")
            if self.whole is not None:
                raise ValueError(f"a row that is {self.status!r} has no timing")
            return self
        if self.whole is None or self.memory is None or self.difference is None or self.rms_difference is None:
            raise ValueError("a row has a timing, its memory, and the difference of its pixels from float32 eager")
        count, spent = len(self.whole.wall), sum(self.whole.wall) * (1 + ROUNDING)
        if spent < self.task.seconds and count < MOST and (count < LEAST or spent < LEAST_SECONDS):
            raise ValueError(f"a timing has {LEAST} repetitions and {LEAST_SECONDS:g} s, or all the time it was given")
        objection = self.task.objection(self.difference, self.rms_difference)
        if objection is not None:
            raise ValueError(objection)
        if self.task.compile != "off" and self.compile_seconds is None:
            raise ValueError("a compiled row says how long compiling took")
        return self

    @property
    def asked(self) -> Task:
        """The task as it was asked, its batch 0 where the most that fit were asked for."""
        return self.task.model_copy(update={"batch": 0}) if self.largest else self.task

    @property
    def images_per_second(self) -> float | None:
        """Of all replicas together."""
        if self.whole is None:
            return None
        seconds = self.replica_seconds or (self.whole.median,)
        return sum(self.task.batch / each for each in seconds)


class Benchmark(Record):
    """Rows of one machine.

    Attributes:
        made: when, ISO 8601, UTC.
        command: what repeats it.
        environment: the machine and its software.
        note: what else a reader should know, from whoever measured it.
    """

    COMMAND: ClassVar[str] = "genzoo bench"
    FILE: ClassVar[str] = "bench.json"

    format: Literal["genzoo.bench/2"] = "genzoo.bench/2"
    made: Line
    command: Text
    environment: Environment
    note: Text = ""
    rows: Seq[Row]


def read_benchmark(path: Path) -> Benchmark:
    """Rows from a file; raises ResultsError that says which rule they break."""
    return read_file(path, (Benchmark,), MAX_BYTES)
