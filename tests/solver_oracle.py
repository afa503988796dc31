"""An exact denoiser and an exact flow: a one-dimensional Gaussian mixture in every pixel.

In one dimension the probability flow keeps a sample's quantile, so that it is known without any solver: F_t'(x_t') =
F_t(x_t), where F_t is the distribution function of x_t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule
from genzoo.scheduler import Denoise, Grid, Level, Scheduler

WEIGHTS = torch.tensor([0.35, 0.65], dtype=torch.float64)
MEANS = torch.tensor([-0.8, 0.5], dtype=torch.float64)
SPREADS = torch.tensor([0.45, 0.6], dtype=torch.float64)


class Smooth(NoiseSchedule):
    """phi(t) = (t / T) 0.95 pi / 2: no kinks between whole times, so that a high order can show."""

    @property
    def length(self) -> int:
        return 1000

    def angle(self, t: Tensor) -> Tensor:
        return t / self.length * 0.95 * math.pi / 2


def clean(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x_0 | x_t = x], pixel by pixel."""
    variance = alpha**2 * SPREADS**2 + sigma**2
    off = x.double()[..., None] - alpha * MEANS
    share = torch.softmax(WEIGHTS.log() - 0.5 * variance.log() - 0.5 * off**2 / variance, -1)
    return (share * (MEANS + alpha * SPREADS**2 / variance * off)).sum(-1).to(x.dtype)


def distribution(x: Tensor, level: Level) -> Tensor:
    """F_t(x)."""
    deviation = (level.alpha**2 * SPREADS**2 + level.sigma**2).sqrt()
    return (WEIGHTS * torch.special.ndtr((x.double()[..., None] - level.alpha * MEANS) / deviation)).sum(-1)


def flow(x: Tensor, here: Level, there: Level) -> Tensor:
    """Where the probability flow takes x from one level to another, by bisection of F_there."""
    wanted = distribution(x, here)
    low, high = torch.full_like(wanted, -20.0), torch.full_like(wanted, 20.0)
    for _ in range(70):
        middle = (low + high) / 2
        below = distribution(middle, there) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


class Oracle:
    """(x_t, t) -> E[x_0 | x_t] on a schedule; ``calls`` are the times that were asked for."""

    def __init__(self, schedule: NoiseSchedule, levels: tuple[Level, ...] = ()) -> None:
        self.schedule = schedule
        # Levels given by somebody else's table go before the schedule's own.
        self.known = {level.t: (level.alpha, level.sigma) for level in levels}
        self.calls: list[float] = []

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.calls.append(t)
        return clean(x, *self.known.get(t, self.schedule.level(t)))


def walk(scheduler: Scheduler, x: Tensor, grid: Grid, denoise: Denoise, seeds: range | None = None) -> list[Tensor]:
    """x after every step."""
    steps: Iterator[Tensor] = scheduler.walk(
        denoise, x, grid, Noise(seeds if seeds is not None else range(len(x)), dtype=x.dtype)
    )
    return list(steps)


def log_snr_grid(schedule: NoiseSchedule, start: float, end: float, steps: int, run_up: int = 0) -> Grid:
    """``steps`` equal steps in log-SNR from time ``start`` to ``end``; the first is halved ``run_up`` times."""
    ends = [Level(t, *schedule.level(t)).log_snr for t in (start, end)]
    width = (ends[1] - ends[0]) / steps
    inside = [width * 0.5**k for k in range(run_up, 0, -1)] + [width * i for i in range(1, steps)]
    wanted = torch.tensor([ends[0] + rise for rise in inside], dtype=torch.float64)
    return Grid.of(schedule, [start, *schedule.times_of_log_snr(wanted).tolist(), end])


def order_of(scheduler: Scheduler, steps: list[int], *, run_up: bool = False, even: bool = False) -> float:
    """The slope of log error against log steps, from time 900 to time 150 of the smooth schedule."""
    schedule = Smooth()
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).reshape(1, 1, 1, 41)
    errors = []
    for count in steps:
        if even:
            grid = Grid.of(schedule, [900 - i * 750 / count for i in range(count + 1)])
        else:
            grid = log_snr_grid(schedule, 900, 150, count, run_up=12 if run_up else 0)
        exact = flow(x, grid.levels[0], grid.levels[-1])
        errors.append(float((walk(scheduler, x, grid, Oracle(schedule))[-1] - exact).abs().max()))
    return fitted_order(steps, errors)


def fitted_order(steps: list[int], errors: list[float]) -> float:
    """Minus the slope of log error against log steps, by least squares."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


class Apart(Noise):
    """Standard normal numbers as vectors over a basis: every draw has a coordinate of its own, after ``taken`` others.

    What a walk that is linear in x and its noise does to them is its result's decomposition into independent parts.
    """

    def __init__(self, taken: int) -> None:
        super().__init__([0], dtype=torch.float64)
        self.drawn = taken

    def normal(self, *shape: int) -> Tensor:
        out = torch.zeros(1, *shape, dtype=torch.float64)
        out[..., self.drawn] = 1
        self.drawn += 1
        return out


def weak_order_of(scheduler: Scheduler, steps: list[int]) -> float:
    """As ``order_of``, of the error of the variance, for data of one Gaussian N(0, 0.3^2)."""
    schedule, spread, errors = Smooth(), 0.3**2, []

    def denoise(x: Tensor, t: float) -> Tensor:
        alpha, sigma = schedule.level(t)
        return x * (alpha * spread / (alpha**2 * spread + sigma**2))

    for count in steps:
        grid = log_snr_grid(schedule, 900, 150, count)
        first, last = ((level.alpha**2 * spread + level.sigma**2) for level in (grid.levels[0], grid.levels[-1]))
        x = torch.zeros(1, 1, 1, count + 1, dtype=torch.float64)
        x[..., 0] = first**0.5
        *_, out = scheduler.walk(denoise, x, grid, Apart(1))
        errors.append(abs(float(out.square().sum()) - last))
    return fitted_order(steps, errors)
