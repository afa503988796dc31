"""The two schedulers that every diffusion model understands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.schedule import NoiseSchedule
from genzoo.scheduler import Grid, Level, Scheduler


def posterior_variance(here: Level, there: Level) -> tuple[float, float]:
    """(variance of x_there given x_here and x_0, variance of x_here given x_there).

    With a = alpha_t / alpha_s: var(t | s) = sigma_t^2 - a^2 sigma_s^2, and the first is
    var(t | s) sigma_s^2 / sigma_t^2.
    """
    forward = here.sigma**2 - (here.alpha / there.alpha) ** 2 * there.sigma**2
    return forward * there.sigma**2 / here.sigma**2, forward


class DDPM(Scheduler):
    """Ancestral sampling (Ho, Jain & Abbeel 2020, algorithm 2).

    x_s ~ N(mu, var) with mu = (alpha_t/alpha_s) (sigma_s^2/sigma_t^2) x_t + alpha_s (var(t|s)/sigma_t^2) x_0 (eq. 7);
    ``small`` takes the posterior's variance, ``large`` that of the forward step (section 3.2). No noise is added in the
    step that ends in clean data.
    """

    variance: Annotated[Literal["small", "large"], Field(description="fixed small or fixed large variance")] = "small"

    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        posterior, forward = posterior_variance(here, there)
        from_x = here.alpha / there.alpha * (there.sigma / here.sigma) ** 2
        from_x0 = there.alpha * forward / here.sigma**2
        mean = x0.mul(from_x0).add_(x, alpha=from_x)
        if there.t == 0:
            return mean
        std = (posterior if self.variance == "small" else forward) ** 0.5
        return mean.add_(noise.normal(*x.shape[1:]), alpha=std)


@dataclass(frozen=True)
class Strided(Grid):
    """A grid whose steps all end equally far below their times, wherever the next one begins.

    Attributes:
        stride: in whole times.
        last: the time at which what would end below the first noisy level ends.
    """

    stride: float = 1.0
    last: float = 0.0

    def pairs(self) -> Iterator[tuple[Level, Level]]:
        for here in self.levels[:-1]:
            yield here, self.at(here.t - self.stride if here.t - self.stride >= 1 else self.last)


class DDIM(Scheduler):
    """Denoising diffusion implicit models (Song, Meng & Ermon 2021, eq. 12).

    x_s = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps + std z, with std = eta times the posterior's standard deviation
    (eq. 16). eta 0 is deterministic; eta 1 is DDPM with the small variance.

    Where x_0 is clipped there are two ways to go on: with the eps that belongs to the clipped x_0, which keeps x_t on
    its level and is what the model's own ``clip`` leads to; or with the network's own eps, as diffusers does. ``clip``
    is the second way, in place of the first. ``end`` 1 stops at the first noisy level ("set_alpha_to_one": false).

    ``stride`` "even" ends every step T // steps below its time, as diffusers does on every grid. Unless that is where
    the next begins (leading; trailing with steps that divide T), the network is then told a time that its input was not
    made for.
    """

    eta: Annotated[float, Field(ge=0, le=1, description="share of the ancestral noise, 0 (none) to 1 (DDPM)")] = 0.0
    clip: Annotated[float, Field(gt=0, le=1e6, description="clamp x_0 to [-clip, clip] here, and keep eps")] | None = (
        None
    )
    end: Annotated[int, Field(ge=0, le=1, description="the last time: 0 is clean data, 1 the first noisy level")] = 0

    stride: Annotated[
        Literal["grid", "even"], Field(description="a step ends where the next begins, or T // steps lower")
    ] = "grid"

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        grid = super().grid(schedule, steps)
        if self.stride == "even":
            return Strided(grid.levels, schedule, schedule.length // steps, self.end)
        # A grid that begins at level 1 takes its last step in place: only the clipping acts there.
        return grid.stopped() if self.end else grid

    def step(self, x: Tensor, x0: Tensor, here: Level, there: Level, noise: Noise) -> Tensor:
        std = self.eta * posterior_variance(here, there)[0] ** 0.5
        # eps = (x - alpha_t x_0) / sigma_t, folded into the two coefficients: one pass over memory less.
        direction = max(there.sigma**2 - std**2, 0.0) ** 0.5 / here.sigma
        if self.clip is None:
            out = x0.mul(there.alpha - direction * here.alpha)
        else:
            out = x0.clamp(-self.clip, self.clip).mul_(there.alpha).sub_(x0, alpha=direction * here.alpha)
        out = out.add_(x, alpha=direction)
        if std > 0:
            out = out.add_(noise.normal(*x.shape[1:]), alpha=std)
        return out
