"""Euler's and Heun's methods in EDM's coordinates y = x / alpha, s = sigma / alpha, with and without fresh noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Highest, Level, Spread
from genzoo_plugins.solvers.solver import SLOPES_HIGHEST, Solver, straight, weighted

#: A level's s: sigma / alpha, or sigma / (alpha + sigma).
Place = Callable[[Level], float]


def edm(level: Level) -> float:
    """s = sigma / alpha, infinite for pure noise."""
    return level.sigma / level.alpha if level.alpha > 0 else float("inf")


def heun_step(x: Tensor, x0: Tensor, here: Level, there: Level, denoise: Denoise, place: Place = edm) -> Tensor:
    """The trapezoidal rule (Karras et al. 2022, algorithm 1): the mean of the slopes here and at Euler's point there.

    With d = (y - D) / s and d' = (y' - D') / s' the step y + (s' - s) (d + d') / 2 is written out in y, D and D'.
    """
    s, s_there = place(here), place(there)
    guess = straight(x, x0, here, there)
    # Euler alone into clean data, where d' is 0 / 0, and out of pure noise, where s is infinite.
    if s_there == 0 or s == float("inf"):
        return guess
    again = denoise(guess, there.t)
    half = (s_there - s) / 2 * there.sigma / s_there
    return weighted(x, there.sigma / here.sigma, (half * (1 / s_there - 2 / s), x0), (-half / s_there, again))


class Euler(Solver):
    """Euler's method (Karras et al. 2022, algorithm 1 without its lines 6 to 8). One evaluation a step, order 1.

    The last step goes to sigma = 0 and gives x_0 at the last evaluated level ("final_sigmas_type": zero).
    """

    spacing: Spread = "karras"


class EulerAncestral(Solver):
    """Euler to a lower level, then fresh noise up to the next (k-diffusion's ``sample_euler_ancestral``).

    In s = sigma / alpha: s_up^2 = eta^2 s'^2 (s^2 - s'^2) / s^2 and s_down^2 = s'^2 - s_up^2. DDIM with the same eta is
    the same step (Song, Meng & Ermon 2021, eq. 12 and 16).
    """

    spacing: Spread = "karras"
    eta: Annotated[float, Field(ge=0, le=1, description="share of the ancestral noise")] = 1.0

    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        # (s' / s)^2, written so that it holds for s = infinity.
        ratio = (there.sigma * here.alpha / (there.alpha * here.sigma)) ** 2
        up = self.eta * there.sigma * (1 - ratio) ** 0.5
        down = Level(there.t, there.alpha, max(there.sigma**2 - up**2, 0.0) ** 0.5)
        out = straight(x, x0, here, down)
        return out.add_(noise.normal(*x.shape[1:]), alpha=up) if up > 0 else out


class Heun(Solver):
    """Heun's second-order method (Karras et al. 2022, algorithm 1). Two evaluations a step, one in the last."""

    spacing: Spread = "karras"
    sigma_max: Highest = SLOPES_HIGHEST

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, there in grid.pairs():
            x = heun_step(x, denoise(x, here.t), here, there, denoise)
            yield x

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1


class Churn(Solver):
    """The stochastic sampler of EDM (Karras et al. 2022, algorithm 2).

    Before a step the level rises from s to s (1 + gamma) by fresh noise, with gamma = min(churn / steps, sqrt(2) - 1)
    where low <= s <= high; the denoiser is evaluated at the risen level. A level above the schedule's last is lowered
    to it, so nothing is added there.
    """

    spacing: Spread = "karras"
    sigma_max: Highest = SLOPES_HIGHEST
    churn: Annotated[float, Field(ge=0, le=1e6, description="S_churn, shared out over the steps")] = 40.0
    low: Annotated[float, Field(ge=0, le=1e9, description="S_tmin, in sigma / alpha")] = 0.05
    high: Annotated[float, Field(ge=0, le=1e9, description="S_tmax, in sigma / alpha")] = 50.0
    inflate: Annotated[float, Field(ge=0, le=10, description="S_noise, the fresh noise's standard deviation")] = 1.003
    order: Annotated[Literal[1, 2], Field(description="2: Heun's step; 1: Euler's")] = 2

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        gamma = min(self.churn / (len(grid.levels) - 1), 2**0.5 - 1)
        for before, there in grid.pairs():
            here = before
            if gamma > 0 and self.low <= edm(before) <= self.high:
                x, here = self._risen(x, before, gamma, grid, noise)
            x0 = denoise(x, here.t)
            x = heun_step(x, x0, here, there, denoise) if self.order == 2 else straight(x, x0, here, there)
            yield x

    def _risen(self, x: Tensor, before: Level, gamma: float, grid: Grid, noise: Noise) -> tuple[Tensor, Level]:
        """x with fresh noise, at s (1 + gamma) or the schedule's last level, whichever is lower."""
        here = grid.at_log_snr(-math.log(edm(before) * (1 + gamma)))
        added = edm(here) ** 2 - edm(before) ** 2
        if here.t <= before.t or added <= 0:
            return x, before
        fresh = noise.normal(*x.shape[1:])
        return weighted(x, here.alpha / before.alpha, (here.alpha * self.inflate * added**0.5, fresh)), here

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1 if self.order == 2 else steps
