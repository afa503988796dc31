"""Restart sampling: a part of the walk, walked several times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Level, Spread
from genzoo_plugins.solvers.euler import edm, heun_step
from genzoo_plugins.solvers.solver import Solver, straight, weighted


class Restart(Solver):
    """Restart (Xu et al. 2023, algorithm 2): Heun's walk, with one interval of levels gone through again and again.

    At the level nearest to s_min = ``low`` in s = sigma / alpha, fresh noise of variance s_max^2 - s_min^2 leads back
    to s_max = ``high``, and ``inner`` steps of the same method down again, ``repeats`` times: the noise contracts the
    errors that were made before. The levels between are even in s^(1 / rho). Where no level between the first and the
    last lies below ``high``, nothing is repeated.
    """

    spacing: Spread = "karras"
    low: Annotated[float, Field(gt=0, le=1e9, description="t_min of the interval, in sigma / alpha")] = 0.06
    high: Annotated[float, Field(gt=0, le=1e9, description="t_max of the interval, in sigma / alpha")] = 0.3
    repeats: Annotated[int, Field(ge=0, le=1000, description="K, how often the interval is gone through again")] = 2
    inner: Annotated[int, Field(ge=1, le=1000, description="steps each time, one less than the paper's N_restart")] = 2
    order: Annotated[Literal[1, 2], Field(description="2: Heun's step; 1: Euler's")] = 2

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        turning = self._turning(grid)
        for here, there in grid.pairs():
            x = self._stepped(x, denoise, here, there)
            if there is turning:
                again = self._interval(there, grid)
                top = again.levels[0]
                added = max(edm(top) ** 2 - edm(there) ** 2, 0.0) ** 0.5
                for _ in range(self.repeats):
                    fresh = noise.normal(*x.shape[1:])
                    x = weighted(x, top.alpha / there.alpha, (top.alpha * added, fresh))
                    for above, below in again.pairs():
                        x = self._stepped(x, denoise, above, below)
            yield x

    def _stepped(self, x: Tensor, denoise: Denoise, here: Level, there: Level) -> Tensor:
        x0 = denoise(x, here.t)
        return heun_step(x, x0, here, there, denoise) if self.order == 2 else straight(x, x0, here, there)

    def _turning(self, grid: Grid) -> Level | None:
        """The level that the walk restarts from, if there is one."""
        inside = [level for level in grid.levels[1:-1] if 0 < edm(level) < self.high]
        return min(inside, key=lambda level: abs(edm(level) - self.low), default=None) if self.repeats else None

    def _interval(self, bottom: Level, grid: Grid) -> Grid:
        """From s_max, or the schedule's last level, to ``bottom``."""
        low, high = edm(bottom), min(self.high, edm(grid.levels[0]))
        ends = high ** (1 / self.rho), low ** (1 / self.rho)
        places = [(ends[0] + i / self.inner * (ends[1] - ends[0])) ** self.rho for i in range(self.inner)]
        return replace(grid, levels=(*(grid.at_log_snr(-math.log(s)) for s in places), bottom))

    def nfe(self, steps: int) -> int:
        """Evaluations on this method's own grid, which has a level to restart from wherever it has two steps."""
        each = self.order
        return each * (steps - 1) + 1 + (each * self.repeats * self.inner if steps > 1 else 0)
