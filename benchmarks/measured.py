"""What is measured of a shipped diffusion model's sampling: settings, their points, and the files of these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import click
from pydantic import Field
from ratios import Made

from genzoo.files import write_whole
from genzoo.frozen import Count, Frozen, Label, Number, Seq

if TYPE_CHECKING:
    from sampling import Bench


class Setting(Frozen):
    """One way of sampling.

    Attributes:
        scheduler: a registered name with its options, as "unipc:spacing=trailing".
        steps: of the scheduler.
        guidance: a scale, or a registered name with options.
    """

    scheduler: Label
    steps: Annotated[int, Field(ge=1, le=100_000)]
    guidance: Label = "1"

    @property
    def name(self) -> str:
        """The scheduler's name alone."""
        return self.scheduler.partition(":")[0]

    @property
    def options(self) -> dict[str, Any]:
        """As ``generate`` takes them."""
        bare = self.guidance.replace(".", "", 1).isdecimal()
        guidance = float(self.guidance) if bare else self.guidance
        return {"scheduler": self.scheduler, "steps": self.steps, "guidance": guidance}


class Point(Frozen):
    """A setting, measured.

    Attributes:
        setting: of the sampling.
        nfe: evaluations of the network per image.
        start: the first seed; the others follow it.
        n: images, the classes in turn.
        value, low, high: the Frechet distance with its 95 % interval.
        accuracy: per cent of the images that the extractor takes for their class.
        seconds: that the images took, on a machine that may have had other work.
        made: when, ISO 8601, UTC.
    """

    setting: Setting
    nfe: Number
    start: Count = 0
    n: Count
    value: Number
    low: Number | None
    high: Number | None
    accuracy: Number | None
    seconds: Number
    made: Label


class Difference(Frozen):
    """A setting's distance minus the anchor's, over the same seeds.

    The interval is the delete-a-fold jackknife's over sets of one image of each class, which leave both settings
    together: what classes and seeds do to both alike is not in it.

    Attributes:
        setting: of the sampling.
        start, n: the seeds.
        value, low, high: the difference with its 95 % interval; below 0 the setting is nearer to the data.
        distance, anchor: the two distances.
    """

    setting: Setting
    start: Count = 0
    n: Count
    value: Number
    low: Number | None
    high: Number | None
    distance: Number
    anchor: Number

    @property
    def verdict(self) -> str:
        """What the interval shows."""
        if self.low is None or self.high is None:
            return "too few images"
        if self.high < 0:
            return "nearer to the data"
        return "farther from the data" if self.low > 0 else "not told apart"

    @property
    def interval(self) -> str:
        """The difference with its interval, for a reader."""
        span = "" if self.low is None or self.high is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.value:+.3f}{span}"


class Found(Frozen):
    """What a search found.

    Attributes:
        within: "genzoo", everything that is registered; "diffusers", only what it has too.
        goal: the Frechet distance to reach, the anchor's on the seeds of the search.
        point: the cheapest setting that reaches it there and on fresh seeds; null where none did.
        fresh: its difference from the anchor on as many seeds that took no part in the choice.
        unconfirmed: settings that reached it in the search and not on the fresh seeds.
        tried: settings that were looked at.
    """

    within: Literal["genzoo", "diffusers"]
    goal: Number
    point: Point | None
    fresh: Difference | None = None
    unconfirmed: Seq[Difference] = ()
    tried: Count


class Measured(Made):
    """What was measured of one model with one extractor.

    Attributes:
        model, weights: the card's name and the sha256 of its weights.
        dataset, extractor, digest: what images are compared and recognised with.
        n: images of each point.
    """

    model: Label
    weights: Label
    dataset: Label
    extractor: Label
    digest: Label
    n: Count

    @classmethod
    def of(cls, bench: Bench, n: int, **found: Any) -> Self:
        """What this process found with a bench and ``n`` images a point."""
        return cls.here(
            model=bench.card.name,
            weights=bench.weights,
            dataset=bench.card.data,
            extractor=bench.extractor.name,
            digest=bench.extractor.digest,
            n=n,
            **found,
        )

    @classmethod
    def before(cls, path: Path, bench: Bench, n: int) -> Self | None:
        """What the file that is about to be replaced says of the same weights, extractor and number of images.

        None where there is no file, and where it is of anything else: then it is said that it will be replaced.
        """
        if not path.exists():
            return None
        try:
            before = cls.model_validate_json(path.read_bytes())
        except ValueError:
            click.echo(f"{path} cannot be read, and nothing of it is kept; give another -o to keep it", err=True)
            return None
        if (before.weights, before.digest, before.n) != (bench.weights, bench.extractor.digest, n):
            click.echo(f"{path} is of another model, extractor or -n; give another -o to keep it", err=True)
            return None
        return before

    def publish(self, out: Path, table: str, plot: str) -> None:
        """Write the file, with its table (.md) and plot (.svg) beside it, and show the table."""
        self.write(out)
        write_whole(out.with_suffix(".md"), table)
        write_whole(out.with_suffix(".svg"), plot)
        click.echo(table)


class Curve(Measured):
    """The solvers' points.

    Attributes:
        points: by scheduler and evaluations.
        lines, guidances: schedulers on their grids, and guidances, that the table shows; other points are a search's.
        missing: scheduler -> evaluations at which it could be, and was not yet, measured.
        goal: what has 10 evaluations against the anchor, the best first; and the best again on fresh seeds.
        skipped: scheduler -> why it is not there.
        found: of the searches.
    """

    format: Literal["genzoo.solvers/1"] = "genzoo.solvers/1"
    points: Seq[Point]
    lines: Seq[Label] = ()
    guidances: Seq[Label] = ("1",)
    missing: dict[str, Seq[Count]] = Field(default_factory=dict)
    goal: Seq[Difference] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    found: Seq[Found] = ()


def describe(point: Point) -> str:
    """A point on one line."""
    setting = point.setting
    return f"{setting.scheduler}, {setting.steps} steps, guidance {setting.guidance}: {point.value:.4f}"
