"""What the solvers share: the step that is exact for a constant x_0, the coordinates of the flow, and sums of tensors.

Along the probability flow (Song et al. 2021, eq. 13) with x_t = alpha x_0 + sigma eps, let D(x_t, t) be the denoiser's
estimate of x_0. In the coordinates y = x / c and s = sigma / c the flow is dy/ds = (y - D) / s, both for c = alpha
(EDM: Karras et al. 2022, algorithm 1, line 4; the slope is eps) and for c = alpha + sigma (flow matching; the slope is
the velocity eps - x_0). Solvers differ in how they integrate it, and in the variable that D or the slope is taken for a
polynomial of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule
from genzoo.scheduler import Grid, Highest, Level, Lowest, Scheduler

#: Walks shorter than this lower their order towards the end, where the authors of DPM-Solver advise it.
FEW_STEPS = 15

#: Steps whose coefficients are remembered, where they take long to work out: every walk over a grid takes the same.
REMEMBERED = 4096

#: Bounds of the default grids in sigma / alpha. 80 is EDM's (Karras et al. 2022, table 1): a cosine schedule begins at
#: 20,000, whence a ramp spends half of its steps in noise. Below 0.05 a step is a single denoising: what noise is left
#: there is 6 of 255 grey levels, and few steps are better spent above it.
LOWEST, HIGHEST = 0.05, 80.0

#: The upper bound for methods that average slopes (eps) rather than estimates of x_0. In pure noise a slope tells
#: nothing of x_0, and a step across orders of magnitude multiplies its error: on the shipped model Heun's method with 9
#: evaluations has a Frechet distance of 15 from the schedule's own end, 3 from 80 and 1 from 20.
SLOPES_HIGHEST = 20.0

#: The option that says where a walk stops.
End = Annotated[int, Field(ge=0, le=1, description="the last time: 0 is clean data, 1 the first noisy level")]


def weighted(x: Tensor, weight: float, *terms: tuple[float, Tensor]) -> Tensor:
    """weight x + the weighted terms: one new tensor, one pass over memory a term."""
    out = x.mul(weight)
    for factor, term in terms:
        if factor:
            out = out.add_(term, alpha=factor)
    return out


def straight(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
    """x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x_0: the flow's solution for a constant D.

    The same step is DDIM with eta 0 (Song, Meng & Ermon 2021, eq. 12), Euler's in EDM's and in flow matching's
    coordinates, and DPM-Solver-1. It holds at both ends: from alpha = 0, and to sigma = 0, where it gives x_0.
    """
    ratio = there.sigma / here.sigma
    return weighted(x, ratio, (there.alpha - here.alpha * ratio, x0))


def slope(x: Tensor, x0: Tensor, here: Level) -> Tensor:
    """eps = (x_t - alpha x_0) / sigma, which is dy/ds in EDM's coordinates."""
    return weighted(x, 1 / here.sigma, (-here.alpha / here.sigma, x0))


def transfer(x: Tensor, eps: Tensor, here: Level, there: Level) -> Tensor:
    """x_s = (alpha_s / alpha_t) x_t + (sigma_s - sigma_t alpha_s / alpha_t) eps: the solution for a constant eps."""
    ratio = there.alpha / here.alpha
    return weighted(x, ratio, (there.sigma - here.sigma * ratio, eps))


class Solver(Scheduler):
    """A method on a bounded grid; ``step`` is the first-order one, which the others start with and end on.

    ``start`` "level" takes the noise that a walk begins with as sigma eps, as if all of x_0 were 0, and not as eps,
    which has the variance that x_t has of data of variance 1. (diffusers' "init_noise_sigma" is sigma / alpha in one
    case, and sqrt(1 + (sigma / alpha)^2) in the other.) ``inner`` is how its multistep classes count the times of
    "linspace" and "leading".
    """

    sigma_min: Lowest = LOWEST
    sigma_max: Highest = HIGHEST
    inner: Annotated[bool, Field(description="the grid of one step more, without its last noisy level")] = False
    start: Annotated[
        Literal["unit", "level"], Field(description="begin with noise of deviation 1, or with the first level's sigma")
    ] = "unit"

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        if not self.inner:
            return super().grid(schedule, steps)
        longer = super().grid(schedule, steps + 1)
        return replace(longer, levels=(*longer.levels[:-2], longer.levels[-1]))

    def begin(self, eps: Tensor, grid: Grid) -> Tensor:
        return eps * grid.levels[0].sigma if self.start == "level" else eps

    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        return straight(x, x0, here, there)


class Stopping(Solver):
    """A method that may also stop at the first noisy level ("final_sigmas_type": "sigma_min" in the field's files)."""

    end: End = 0

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        grid = super().grid(schedule, steps)
        return grid.stopped() if self.end else grid
