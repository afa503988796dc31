"""Schedulers: numerical methods that walk from noise to data over a grid of times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.frozen import Frozen
from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule

#: x_t, t -> x_0: a denoiser with its condition and guidance already inside.
Denoise = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Level:
    """One time of a grid with its level: x_t = alpha x_0 + sigma eps."""

    t: float
    alpha: float
    sigma: float


@dataclass(frozen=True)
class Grid:
    """The times of a walk, from the noisiest down, worked out once, with their float64 levels."""

    levels: tuple[Level, ...]

    @classmethod
    def of(cls, schedule: NoiseSchedule, times: list[float]) -> Grid:
        """The grid over ``times``, which must fall strictly."""
        if len(times) < 2 or any(a <= b for a, b in zip(times, times[1:], strict=False)):
            raise OptionError(f"a grid needs times that fall strictly, not {times[:6]}")
        alphas, sigmas = schedule.levels(torch.tensor(times, dtype=torch.float64))
        return cls(tuple(Level(*row) for row in zip(times, alphas.tolist(), sigmas.tolist(), strict=True)))

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(level.t for level in self.levels)

    def pairs(self) -> Iterator[tuple[Level, Level]]:
        """(here, there) of every step."""
        return zip(self.levels, self.levels[1:], strict=False)


#: leading: 0, r, 2r ... from the clean end; trailing: from the noisy end; linspace: both ends;
#: quadratic: denser near the data (DDIM, section D.3).
Spacing = Literal["leading", "trailing", "linspace", "quadratic"]


def spaced_times(steps: int, length: int, spacing: Spacing, offset: int = 0) -> list[float]:
    """``steps`` times in [1, length] that fall strictly (fewer where rounding merges some), and 0 at the end.

    Args:
        steps: how many evaluations, 1 to ``length``.
        length: the schedule's length T.
        spacing: see ``Spacing``; the field's timestep k is time k + 1 here.
        offset: added to every leading time ("steps_offset" in the field's files).
    """
    if not 1 <= steps <= length:
        raise OptionError(f"steps={steps} is out of range; this model's schedule has {length}: give 1 to {length}")
    # Floating-point sums in numpy's order, so that halves round to the timesteps that other libraries walk over.
    if spacing == "leading":
        timesteps = [i * (length // steps) + offset for i in range(steps)]
    elif spacing == "trailing":
        stride = (length - length / steps) - length
        timesteps = [round(length + i * stride) - 1 for i in range(steps)]
    elif spacing == "linspace":
        timesteps = [round(k) for k in _ramp(length - 1, steps)]
    else:
        timesteps = [int(root**2) for root in _ramp((0.8 * length) ** 0.5, steps)]
    # Rounding can make neighbours meet (quadratic grids with many steps): one evaluation there is enough.
    kept = sorted({min(k, length - 1) for k in timesteps}, reverse=True)
    return [float(k + 1) for k in kept] + [0.0]


def _ramp(end: float, steps: int) -> list[float]:
    """``steps`` even numbers from 0 to ``end``; one alone is ``end``, for a walk has to begin in the noise."""
    stride = end / max(steps - 1, 1)
    return [i * stride for i in range(steps - 1)] + [end]


class Scheduler(Frozen, ABC):
    """A numerical method. Frozen: its fields are settings, and nothing is kept between two calls.

    A method with one evaluation a step implements ``step`` alone; one that looks back or evaluates twice overrides
    ``walk`` and ``nfe``.
    """

    spacing: Annotated[Spacing, Field(description="how the times are spread over the schedule")] = "leading"
    offset: Annotated[int, Field(ge=0, le=1000, description="added to every leading timestep")] = 0

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """The times of a walk of ``steps`` steps, down to 0."""
        return Grid.of(schedule, spaced_times(steps, schedule.length, self.spacing, self.offset))

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
