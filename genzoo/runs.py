"""Training runs of one family from several seeds, and what follows from them. Light: never imports torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

from genzoo.frozen import Count, Frozen, Label, Seq, Text
from genzoo.milestones import Milestone
from genzoo.uncertainty import wilson

#: The metric by which runs are held against each other: lower is better.
DISTANCE = "frechet"


@dataclass(frozen=True)
class Spread:
    """One number of several runs: their mean, lowest, highest and standard deviation (n - 1; 0 for a single run)."""

    mean: float
    lowest: float
    highest: float
    deviation: float


@dataclass(frozen=True)
class Share:
    """How many of several runs, with the 95 % Wilson interval of the share."""

    hits: int
    count: int
    low: float
    high: float


class Run(Frozen):
    """One training run of a family.

    Attributes:
        seed: of the run.
        milestones: by step; those with scores are the measured curve.
        failed: why it ended early, as by a loss that is not finite.
        collapsed: why it counts as collapsed; null where it does not.
    """

    seed: Count
    milestones: Seq[Milestone] = ()
    failed: Text | None = None
    collapsed: Text | None = None

    def curve(self, metric: str = DISTANCE) -> tuple[tuple[int, float], ...]:
        """(step, value) wherever the metric was measured."""
        return tuple((m.step, m.scores[metric]) for m in self.milestones if metric in m.scores)

    def best(self, metric: str = DISTANCE) -> float | None:
        """The lowest value on the way; None where there is none."""
        return min((value for _, value in self.curve(metric)), default=None)

    def final(self, metric: str = DISTANCE) -> float | None:
        """The last value; None for a run that failed, which has no end."""
        curve = self.curve(metric)
        return curve[-1][1] if curve and self.failed is None else None

    def divergence(self, metric: str = DISTANCE) -> float | None:
        """Final over best value: 1 for a run that ends at its best, 2 for one that ends twice as far away."""
        best, final = self.best(metric), self.final(metric)
        return final / best if best and best > 0 and final is not None else None


class Family(Frozen):
    """A family trained from several seeds with one recipe.

    Attributes:
        name: the recipe's, as "dcgan.tiny".
        recipe: the registered recipe.
        steps, batch: of each run.
        parameters: of the generator.
        digest: sha256 of the recipe but for its seed; empty where unknown.
        runs: one a seed.
    """

    name: Label
    recipe: Label
    steps: Count
    batch: Count
    parameters: Count = 0
    digest: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    runs: Seq[Run]

    def best(self, metric: str = DISTANCE) -> Spread | None:
        """The runs' best values; None where nothing was measured."""
        return spread(run.best(metric) for run in self.runs)

    def final(self, metric: str = DISTANCE) -> Spread | None:
        """The last values of the runs that did not fail."""
        return spread(run.final(metric) for run in self.runs)

    def divergence(self, metric: str = DISTANCE) -> Spread | None:
        """Final over best value of the runs that did not fail."""
        return spread(run.divergence(metric) for run in self.runs)

    def collapsed(self) -> Share:
        """The runs that collapsed; failed ones are among them."""
        hits = sum(run.collapsed is not None for run in self.runs)
        low, high = wilson(hits, len(self.runs)) if self.runs else (0.0, 1.0)
        return Share(hits, len(self.runs), low, high)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return Spread(statistics.fmean(known), min(known), max(known), deviation)
