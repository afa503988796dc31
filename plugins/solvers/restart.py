"""Restart sampling: parts of the walk, walked several times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from genzoo.frozen import Seq
from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Highest, Level, Spread, split
from genzoo_plugins.solvers.euler import edm, heun_step
from genzoo_plugins.solvers.solver import SLOPES_HIGHEST, Solver, straight, weighted

#: One value for all intervals, or one each, as 0.06/1.1.
Bounds = Annotated[Seq[Annotated[float, Field(gt=0, le=1e9)]], BeforeValidator(split)]
Repeats = Annotated[Seq[Annotated[int, Field(ge=0, le=1000)]], BeforeValidator(split)]
Counts = Annotated[Seq[Annotated[int, Field(ge=1, le=1000)]], BeforeValidator(split)]


@dataclass(frozen=True)
class Interval:
    """A part of the walk, from ``high`` to ``low`` in sigma / alpha, ``repeats`` times in ``descent`` steps."""

    low: float
    high: float
    repeats: int
    descent: int


class Restart(Solver):
    """Restart (Xu et al. 2023, algorithm 2): Heun's walk, with intervals of levels gone through again and again.

    At the level nearest to s_min = ``low`` in s = sigma / alpha, fresh noise of variance s_max^2 - s_min^2 leads back
    to s_max = ``high``, and ``descent`` steps of the same method down again, ``repeats`` times: the noise contracts the
    errors that were made before. The levels between are even in s^(1 / rho). Several intervals are listed, as in
    low=0.06/1 with high=0.3/2, and repeats and descent where they differ too. Where no level between the first and the
    last lies below an interval's ``high``, it is not repeated.
    """

    spacing: Spread = "karras"
    sigma_max: Highest = SLOPES_HIGHEST
    low: Annotated[Bounds, Field(description="t_min of each interval, in sigma / alpha")] = (0.06,)
    high: Annotated[Bounds, Field(description="t_max of each, in sigma / alpha")] = (0.3,)
    repeats: Annotated[Repeats, Field(description="K, how often each is gone through again")] = (2,)
    descent: Annotated[Counts, Field(description="steps each time, one less than the paper's N_restart")] = (2,)
    order: Annotated[Literal[1, 2], Field(description="2: Heun's step; 1: Euler's")] = 2

    @model_validator(mode="after")
    def _listed_alike(self) -> Restart:
        lists = (self.low, self.high, self.repeats, self.descent)
        if {len(values) for values in lists} - {1, len(self.low)} or len(self.high) != len(self.low):
            raise ValueError("give low and high a value for each interval, repeats and descent as many, or one for all")
        if any(interval.low >= interval.high for interval in self.intervals):
            raise ValueError("each interval's low must be below its high")
        return self

    @property
    def intervals(self) -> list[Interval]:
        """The intervals, the noisiest first."""
        count = len(self.low)
        columns = (values * (count if len(values) == 1 else 1) for values in (self.repeats, self.descent))
        listed = (Interval(*row) for row in zip(self.low, self.high, *columns, strict=True))
        return sorted(listed, key=lambda interval: -interval.high)

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        turnings = [(self._turning(grid, interval), interval) for interval in self.intervals if interval.repeats]
        for here, there in grid.pairs():
            x = self._stepped(x, denoise, here, there)
            for level, interval in turnings:
                if level is there:
                    x = self._repeated(x, denoise, there, interval, grid, noise)
            yield x

    def _repeated(
        self, x: Tensor, denoise: Denoise, bottom: Level, interval: Interval, grid: Grid, noise: Noise
    ) -> Tensor:
        """x at ``bottom`` after the interval's repetitions."""
        again = self._descent(bottom, interval, grid)
        top = again.levels[0]
        added = max(edm(top) ** 2 - edm(bottom) ** 2, 0.0) ** 0.5
        for _ in range(interval.repeats):
            fresh = noise.normal(*x.shape[1:])
            x = weighted(x, top.alpha / bottom.alpha, (top.alpha * added, fresh))
            for above, below in again.pairs():
                x = self._stepped(x, denoise, above, below)
        return x

    def _stepped(self, x: Tensor, denoise: Denoise, here: Level, there: Level) -> Tensor:
        x0 = denoise(x, here.t)
        return heun_step(x, x0, here, there, denoise) if self.order == 2 else straight(x, x0, here, there)

    @staticmethod
    def _turning(grid: Grid, interval: Interval) -> Level | None:
        """The level that an interval restarts from, if there is one."""
        inside = [level for level in grid.levels[1:-1] if 0 < edm(level) < interval.high]
        return min(inside, key=lambda level: abs(edm(level) - interval.low), default=None)

    def _descent(self, bottom: Level, interval: Interval, grid: Grid) -> Grid:
        """From s_max, or the grid's first level, to ``bottom``."""
        low, high = edm(bottom), min(interval.high, edm(grid.levels[0]))
        ends, steps = (high ** (1 / self.rho), low ** (1 / self.rho)), interval.descent
        places = [(ends[0] + i / steps * (ends[1] - ends[0])) ** self.rho for i in range(steps)]
        return replace(grid, levels=(*(grid.at_log_snr(-math.log(s)) for s in places), bottom))

    def nfe(self, steps: int) -> int:
        """Evaluations on this method's own grid, which has a level to restart from wherever it has two steps."""
        repeated = sum(interval.repeats * interval.descent for interval in self.intervals) if steps > 1 else 0
        return self.order * (steps - 1 + repeated) + 1
