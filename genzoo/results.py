"""Results: what was measured, on what, with which settings, how often, how sure. Light: never imports torch.

A report is made from these alone, so yesterday's and a colleague's can stand beside today's.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from genzoo.cards import Line, Name, Sha256
from genzoo.errors import ResultsError
from genzoo.frozen import Count, Frozen, Label, Number, Seq, Text
from genzoo.milestones import Milestone
from genzoo.record import Environment as Environment
from genzoo.record import Record as Record
from genzoo.record import read_file
from genzoo.runs import Family

MAX_BYTES = 256 << 20

#: What a metric tells of; the report makes a table of each.
Theme = Literal["quality", "diversity", "control"]


class Score(Frozen):
    """One metric of one model, never without its n, extractor and interval (null where none is known).

    Attributes:
        metric: its registered name.
        title, unit, better, theme, about, paper: what a reader needs, from the metric.
        value, low, high: the mean over the repetitions, with a 95 % interval.
        n: images a repetition; all of them for a metric that pools them.
        repeats: the value of each repetition, where there are several: other seeds, and nothing else.
        by_class: the value in each class of ``Results.classes``; empty where the metric has none, null where unknown.
    """

    metric: Label
    title: Label
    unit: str = ""
    better: Literal["lower", "higher"]
    theme: Theme = "quality"
    about: Text = ""
    paper: Text = ""
    value: Number
    low: Number | None
    high: Number | None
    n: Annotated[int, Field(ge=1, le=10**12)]
    repeats: Seq[Number] = ()
    by_class: Seq[Number | None] = ()


class Rate(Frozen):
    """Images per second at one batch size."""

    batch: Annotated[int, Field(ge=1)]
    images_per_second: Number


class Speed(Frozen):
    """What it costs, measured end to end: seeds to uint8 pixels on the host.

    Attributes:
        load_seconds: from the name to a model that is ready.
        first_seconds: the first image, caches cold.
        latency: seconds for one image, batch 1, each repetition.
        batch, batch_seconds: of the batch run, each repetition; images/s is batch over its median.
        tried: images/s at the batch sizes that were looked at, of which ``batch`` was the fastest.
        peak_bytes: highest resident memory of the process (CPU) or allocated memory (GPU); null where unknown.
        base_bytes: the same before the model was loaded.
        nfe: evaluations of the network per image.
        flops: floating-point operations per image; null where they cannot be counted.
    """

    load_seconds: Number
    first_seconds: Number
    latency: Seq[Number]
    batch: Annotated[int, Field(ge=1)]
    batch_seconds: Seq[Number]
    tried: Seq[Rate] = ()
    peak_bytes: Count | None
    base_bytes: Count | None
    nfe: Number
    flops: Number | None

    @property
    def median_latency(self) -> float:
        """Seconds for one image."""
        return median(self.latency)

    @property
    def images_per_second(self) -> float:
        """At the measured batch size."""
        return self.batch / median(self.batch_seconds)

    @property
    def added_bytes(self) -> int | None:
        """Peak memory beyond what the process held before the model."""
        if self.peak_bytes is None or self.base_bytes is None:
            return None
        return max(0, self.peak_bytes - self.base_bytes)


class Sheet(Frozen):
    """A sheet of sample images.

    Attributes:
        png: the picture, base64.
        columns: images a row.
        labels: the class of each column; empty where there are none.
        seeds: the seed of each image, row by row.
    """

    png: Annotated[str, Field(max_length=64 << 20, pattern=r"^[A-Za-z0-9+/=]*$")]
    columns: Annotated[int, Field(ge=1, le=1000)]
    labels: Seq[Label] = ()
    seeds: Seq[int] = ()


class Neighbours(Frozen):
    """Generated images beside the training images nearest to them, those nearest of all first: were any copied?

    Attributes:
        png: two rows, base64: the generated images, and below each its nearest training image.
        seeds: of the generated images.
        distances: to the nearest training image, in the extractor's features.
        searched: training images that were searched.
    """

    png: Annotated[str, Field(max_length=64 << 20, pattern=r"^[A-Za-z0-9+/=]*$")]
    seeds: Seq[int]
    distances: Seq[Number]
    searched: Count


class Setting(Frozen):
    """One point of a sweep: the option's value, and what was measured there."""

    value: Number
    scores: Seq[Score]


class Sweep(Frozen):
    """What turning one option does: control against the quality that it costs.

    Attributes:
        option: as "guidance" or "truncation".
        n: images at each point, fewer than the comparison's own: distances hold among these points only.
        points: by value.
    """

    option: Name
    n: Annotated[int, Field(ge=1, le=10**12)]
    points: Seq[Setting]


class Stability(Record):
    """What ``genzoo stability`` saw: families trained alike from several seeds.

    Attributes:
        made, command, environment: as of a comparison.
        dataset, extractor, digest, n: what the distances are measured with.
        floor: what as many real images score, by metric; empty where none were at hand.
    """

    COMMAND: ClassVar[str] = "genzoo stability"
    FILE: ClassVar[str] = "stability.json"

    format: Literal["genzoo.stability/1"] = "genzoo.stability/1"
    made: Line
    command: Text
    environment: Environment
    dataset: Name
    extractor: Label
    digest: Sha256
    n: Annotated[int, Field(ge=1, le=10**12)]
    floor: dict[str, Number] = Field(default_factory=dict)
    families: Seq[Family]


class ModelResult(Frozen):
    """Everything measured of one model, or of real images (``kind`` "data", the floor).

    Attributes:
        name, summary, generator: from its card.
        options: all options of the run, the defaults too.
        parameters, file_bytes: of the model; 0 for data.
        weights: sha256 of the weights.
        failed: why there are no numbers, where it failed.
        neighbours: the memorisation check's pictures.
        sweeps: control curves.
        training: the measured curve of its training, from its card.
        environment, command: where this row was measured and by what, where that is not the results' own (merged).
    """

    name: Label
    kind: Literal["model", "data"] = "model"
    summary: Text = ""
    generator: Label = "data"
    options: dict[str, Any] = Field(default_factory=dict)
    parameters: Count = 0
    file_bytes: Count = 0
    weights: Sha256 | None = None
    scores: Seq[Score] = ()
    speed: Speed | None = None
    sheet: Sheet | None = None
    failed: Text | None = None
    neighbours: Neighbours | None = None
    sweeps: Seq[Sweep] = ()
    training: Seq[Milestone] = ()
    environment: Environment | None = None
    command: Text | None = None

    def score(self, metric: str) -> Score | None:
        """The score of that metric, or None."""
        return next((score for score in self.scores if score.metric == metric), None)


class Results(Record):
    """One run of ``genzoo compare``.

    Attributes:
        made: when, ISO 8601, UTC.
        command: what repeats it.
        environment: where.
        dataset, split: what the models are held against.
        reference_n: real images in the reference.
        extractor, digest: what looked at the images, and the sha256 of it.
        n, repeats, seeds: images per model and repetition, repetitions, and all their seeds in words.
        classes: names of the data set's classes.
        batch: images per network call.
        models: the rows, real images among them.
        stability: how families train, from records that were merged in.
    """

    COMMAND: ClassVar[str] = "genzoo compare"
    FILE: ClassVar[str] = "results.json"

    format: Literal["genzoo.results/1"] = "genzoo.results/1"
    made: Line
    command: Text
    environment: Environment
    dataset: Name
    split: Line
    reference_n: Count
    extractor: Label
    digest: Sha256
    n: Annotated[int, Field(ge=1, le=10**12)]
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    seeds: Line
    classes: Seq[Label] = ()
    batch: Annotated[int, Field(ge=1)]
    models: Seq[ModelResult]
    stability: Seq[Stability] = ()


def read_results(path: Path) -> Results:
    """Results from a file; raises ResultsError that says what is wrong with it."""
    record = read_record(path)
    if not isinstance(record, Results):
        raise ResultsError(f"{path}: a record of genzoo stability; give a results.json of genzoo compare")
    return record


def read_record(path: Path) -> Results | Stability:
    """What ``genzoo compare`` or ``genzoo stability`` wrote; raises ResultsError that says what is wrong with it."""
    kinds: tuple[type[Results] | type[Stability], ...] = (Results, Stability)
    return read_file(path, kinds, MAX_BYTES)
