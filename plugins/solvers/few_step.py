"""Samplers for consistency-distilled models, which need few steps and were trained for certain times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from genzoo import grids
from genzoo.errors import OptionError
from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule
from genzoo.scheduler import Denoise, Grid, Level, Scheduler
from genzoo_plugins.solvers.solver import End, straight, weighted


def distilled_times(steps: int, length: int, distilled: int) -> list[float]:
    """``steps`` of the times k, 2k ... length that a model was distilled on (k = length / distilled), and 0.

    Evenly spread over that list from its noisy end (Luo et al. 2023, skipping steps).
    """
    grids.check_steps(steps, length)
    if steps > distilled or distilled > length:
        raise OptionError(
            f"steps={steps}, distilled={distilled} and the schedule's {length} must rise in this order; lower steps"
        )
    taught = [float((i + 1) * (length // distilled)) for i in range(distilled)][::-1]
    return [taught[i * distilled // steps] for i in range(steps)] + [0.0]


class _FewStep(Scheduler):
    distilled: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="times the model was distilled on; null: any, spread by spacing"),
    ] = 50

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        if self.distilled is None or self.times is not None:
            return super().grid(schedule, steps)
        return Grid.of(schedule, distilled_times(steps, schedule.length, self.distilled))

    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        """x_0 noised anew to ``there`` (Song et al. 2023, algorithm 1)."""
        if there.sigma == 0:
            return x0
        return weighted(x0, there.alpha, (there.sigma, noise.normal(*x.shape[1:])))


class LCM(_FewStep):
    """Multistep consistency sampling for latent consistency models (Luo et al. 2023).

    f = c_skip x + c_out x_0, noised anew to the next level. With u = ``scaling`` times the network's timestep and
    s = 1/2, c_skip = s^2 / (u^2 + s^2) and c_out = u / sqrt(u^2 + s^2) (Song et al. 2023, appendix C), so that f = x at
    timestep 0. One evaluation a step; no noise in the last.
    """

    scaling: Annotated[float, Field(gt=0, le=1e6, description="of the timestep in the boundary condition")] = 10.0

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, there in grid.pairs():
            u, s = self.scaling * grid.timestep(here.t), 0.5
            root = math.hypot(u, s)
            consistent = weighted(x, (s / root) ** 2, (u / root, denoise(x, here.t)))
            x = self.step(x, consistent, here, there, noise)
            yield x


class TCD(_FewStep):
    """Strategic stochastic sampling for trajectory consistency models (Zheng et al. 2024).

    From t to s' = (1 - eta) t' without noise, then up to t' with fresh noise: x' = (alpha' / alpha_s) x_s +
    sqrt(sigma'^2 - (alpha' / alpha_s)^2 sigma_s^2) z. eta (the paper's gamma) 0 is deterministic, 1 noises x_0 anew.
    Timesteps are whole, as the authors' code rounds them down. One evaluation a step; the last ends in clean data, and
    in the authors' code at the first noisy level (``end`` 1).
    """

    eta: Annotated[float, Field(ge=0, le=1, description="share of each step that is taken anew")] = 0.3
    end: End = 0

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        grid = super().grid(schedule, steps)
        return grid.stopped() if self.end else grid

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, there in grid.pairs():
            x0 = denoise(x, here.t)
            if self.eta == 0 or there is grid.levels[-1]:
                x = straight(x, x0, here, there)
            else:
                first = here.t - grid.timestep(here.t)
                # In float32, as there: 0.7 of 90 is 63, and a float64 falls short of it.
                share = torch.tensor(grid.timestep(there.t), dtype=torch.float32) * (1 - self.eta)
                between = grid.at(first + math.floor(share))
                ratio = there.alpha / between.alpha
                added = max(there.sigma**2 - (ratio * between.sigma) ** 2, 0.0) ** 0.5
                x = weighted(straight(x, x0, here, between), ratio, (added, noise.normal(*x.shape[1:])))
            yield x
