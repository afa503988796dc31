"""Schedulers: numerical methods that walk from noise to data over a grid of times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from genzoo import grids
from genzoo.denoiser import Denoise as Denoise
from genzoo.errors import OptionError
from genzoo.frozen import Frozen, Seq
from genzoo.grids import Spacing as Spacing
from genzoo.grids import spaced_times as spaced_times
from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule


@dataclass(frozen=True)
class Level:
    """One time of a grid with its level: x_t = alpha x_0 + sigma eps."""

    t: float
    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """log(alpha / sigma): infinite for clean data, minus infinite for pure noise."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


@dataclass(frozen=True)
class Grid:
    """The times of a walk, from the noisiest down, worked out once, with their float64 levels.

    Attributes:
        levels: one more than the walk has steps.
        schedule: where they come from, for methods that also look between them.
    """

    levels: tuple[Level, ...]
    schedule: NoiseSchedule | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, schedule: NoiseSchedule, times: list[float]) -> Grid:
        """The grid over ``times``, which must fall strictly."""
        if len(times) < 2 or any(a <= b for a, b in zip(times, times[1:], strict=False)):
            raise OptionError(f"a grid needs times that fall strictly, not {times[:6]}")
        alphas, sigmas = schedule.levels(torch.tensor(times, dtype=torch.float64))
        return cls(tuple(Level(*row) for row in zip(times, alphas.tolist(), sigmas.tolist(), strict=True)), schedule)

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(level.t for level in self.levels)

    def at(self, t: float) -> Level:
        """The level of any time of the schedule."""
        return Level(t, *self._source.level(t))

    def at_log_snr(self, log_snr: float) -> Level:
        """The level with log(alpha / sigma) = ``log_snr``, which is at least that of the schedule's last time."""
        return self.at(self._source.time_of_log_snr(log_snr))

    def stopped(self) -> Grid:
        """The same walk, but to the first noisy level (time 1) in place of clean data.

        One that begins there takes its last step in place.
        """
        return Grid((*self.levels[:-1], self.at(1.0)), self.schedule)

    def timestep(self, t: float) -> float:
        """Time t as it is counted in the field: what the network is told, unless that is no count."""
        return self._source.counted(t)

    @property
    def _source(self) -> NoiseSchedule:
        if self.schedule is None:
            raise OptionError("this grid has no schedule to look up times in; make it with Grid.of(schedule, times)")
        return self.schedule

    def pairs(self) -> Iterator[tuple[Level, Level]]:
        """(here, there) of every step."""
        return zip(self.levels, self.levels[1:], strict=False)


#: Grids that are remembered: batch after batch is walked over the same one.
GRIDS = 64


def split(given: Any) -> Any:
    """Numbers written as "999/850.5/736", for a comma ends an option; one alone is a list too."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return (given,)
    if not isinstance(given, str):
        return given
    try:
        return tuple(int(part) if part.isdecimal() else float(part) for part in given.split("/"))
    except ValueError:
        raise ValueError("write the numbers as 1000/851/737") from None


#: Times in a list, in a tuple, or as "1000/851/737".
Times = Annotated[Seq[Annotated[float, Field(ge=0, le=1e6)]], BeforeValidator(split)]


#: The option that names a spacing: a method that wants another default writes ``spacing: Spread = "karras"``.
Spread = Annotated[Spacing, Field(description="how the times are spread over the schedule")]

#: The options that keep times between whole ones within bounds, likewise; null for the schedule's own.
Lowest = Annotated[float | None, Field(gt=0, le=1e6, description="last sigma / alpha of karras, log-snr and beta")]
Highest = Annotated[float | None, Field(gt=0, le=1e6, description="first sigma / alpha of times that are not whole")]


class Scheduler(Frozen, ABC):
    """A numerical method. Frozen: its fields are settings, and nothing is kept between two calls.

    A method with one evaluation a step implements ``step`` alone; one that looks back or evaluates twice overrides
    ``walk`` and ``nfe``.
    """

    spacing: Spread = "leading"
    offset: Annotated[int, Field(ge=0, le=1000, description="added to every leading timestep")] = 0
    rho: Annotated[float, Field(gt=0, le=100, description="exponent of the karras grid")] = 7.0
    shift: Annotated[float, Field(gt=0, le=1000, description="of the uniform grid: above 1, more of it in noise")] = 1.0
    sigma_min: Lowest = None
    sigma_max: Highest = None
    ends: Annotated[
        grids.Ends | None, Field(description="a ramp lies between the first and the last time that this spacing has")
    ] = None
    times: Annotated[
        Times | None,
        Field(
            description="the times themselves, as 1000/851/737, in place of a spacing; the field's timestep k is k + 1"
        ),
    ] = None

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """The times of a walk of ``steps`` steps, down to 0."""
        return _grid(
            schedule,
            steps,
            self.spacing,
            self.times,
            offset=self.offset,
            rho=self.rho,
            shift=self.shift,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            ends=self.ends,
        )

    def begin(self, eps: Tensor, grid: Grid) -> Tensor:
        """x at the grid's first level, where a walk begins with nothing but the normal noise ``eps``."""
        return eps

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        """Yield x after every step; the last is the sample.

        Args:
            denoise: (x_t, t) -> x_0, guidance and clipping inside.
            x: (N, C, H, W) at the grid's first level.
            grid: as ``grid`` made it.
            noise: the samples' random streams, for methods that add noise.
        """
        for here, there in grid.pairs():
            x = self.step(x, denoise(x, here.t), here, there, noise)
            yield x

    @abstractmethod
    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        """x at ``there`` from x and the estimate of x_0 at ``here``."""

    def nfe(self, steps: int) -> int:
        """Evaluations of the denoiser in a walk of ``steps`` steps."""
        return steps

    def evaluated(self, grid: Grid) -> list[float]:
        """The times at which a walk over ``grid`` evaluates the denoiser, in order."""
        return self._rehearsed(grid)[0]

    def draws(self, grid: Grid) -> bool:
        """Whether a walk over ``grid`` adds noise of its own, so that where it begins does not settle where it ends."""
        return self._rehearsed(grid)[1]

    def _rehearsed(self, grid: Grid) -> tuple[list[float], bool]:
        """The times evaluated, and whether noise was drawn: found by walking a single zero."""
        seen: list[float] = []
        noise = _Watched([0])

        def denoise(x: Tensor, t: float) -> Tensor:
            seen.append(t)
            return torch.zeros_like(x)

        for _ in self.walk(denoise, torch.zeros(1, 1, 1, 1), grid, noise):
            pass
        return seen, noise.drawn


@lru_cache(GRIDS)
def _grid(
    schedule: NoiseSchedule, steps: int, spacing: Spacing, listed: tuple[float, ...] | None, **options: Any
) -> Grid:
    """A scheduler's grid, which is a constant of these settings; the options are those of ``grids.times``."""
    if listed is not None:
        return Grid.of(schedule, grids.listed_times(listed, steps, schedule.length))
    return Grid.of(schedule, grids.times(schedule, steps, spacing, **options))


class _Watched(Noise):
    """Noise that remembers whether it was asked for."""

    drawn = False

    def normal(self, *shape: int) -> Tensor:
        self.drawn = True
        return super().normal(*shape)
