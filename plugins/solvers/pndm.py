"""Pseudo numerical methods (Liu et al. 2022): classical methods for eps, DDIM's step in place of the straight line.

The step is x' = (alpha' / alpha) x + (sigma' - sigma alpha' / alpha) e (eq. 9), where e is a mean of past eps as a
classical method takes it. The means assume times that are evenly spaced; whatever the classical method's order, the
result is of second order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Highest, Level, Spread
from genzoo_plugins.solvers.solver import SLOPES_HIGHEST, Stopping, slope, straight, transfer, weighted

#: Adams-Bashforth: the weights of the newest, the one before, ... (Liu et al. 2022, eq. 12).
ADAMS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def adams(past: list[Tensor]) -> Tensor:
    """The Adams-Bashforth mean of up to four slopes, the newest first."""
    first, *others = ADAMS[len(past) - 1]
    out = past[0].mul(first)
    for weight, eps in zip(others, past[1:], strict=True):
        out = out.add_(eps, alpha=weight)
    return out


class _Pseudo(Stopping):
    """DDIM's step with the Adams-Bashforth mean of past eps, and a mean of other points in the first steps.

    The default times are even, as the means assume, and bounded. The authors' own, leading and linspace, hold on a
    linear schedule, which begins at sigma / alpha = 157; a cosine schedule's last level magnifies eps beyond use.

    ``mean`` "v" takes the mean of past v = alpha eps - sigma x_0, and reads it as v at the last time, as diffusers does
    with networks that predict v. The method's order is lost, since v turns with the time.
    """

    mean: Annotated[Literal["eps", "v"], Field(description="what the mean of past evaluations is taken of")] = "eps"

    spacing: Spread = "uniform"
    sigma_max: Highest = SLOPES_HIGHEST

    @property
    def highest(self) -> int:
        """How many evaluations a step looks back on."""
        return 4

    @property
    def warm_up(self) -> int:
        """How many steps begin with ``first_mean``; a step into clean data never does."""
        return 0

    def first_mean(self, denoise: Denoise, x: Tensor, eps: Tensor, here: Level, there: Level, grid: Grid) -> Tensor:
        """The mean of a step of the warm-up, from x and its eps."""
        return eps

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[Tensor] = []
        for i, (here, there) in enumerate(grid.pairs()):
            x0 = denoise(x, here.t)
            past.insert(0, self.output(x, x0, here))
            del past[self.highest :]
            if here.alpha == 0:
                x = straight(x, x0, here, there)
            else:
                warm = i < self.warm_up and there.sigma > 0
                mean = self.first_mean(denoise, x, past[0], here, there, grid) if warm else adams(past)
                x = self.along(x, mean, here, there)
            yield x

    def output(self, x: Tensor, x0: Tensor, here: Level) -> Tensor:
        """What the mean is taken of."""
        eps = slope(x, x0, here)
        return eps if self.mean == "eps" else weighted(eps, here.alpha, (-here.sigma, x0))

    def along(self, x: Tensor, mean: Tensor, here: Level, there: Level) -> Tensor:
        """x at ``there`` from x at ``here`` and such a mean."""
        eps = mean if self.mean == "eps" else weighted(mean, here.alpha, (here.sigma, x))
        return transfer(x, eps, here, there)

    def seen(
        self, denoise: Denoise, x: Tensor, mean: Tensor, here: Level, there: Level, told: Level | None = None
    ) -> Tensor:
        """The output at the point ``there`` that a mean leads to from x, of a network that is ``told`` a level."""
        point, told = self.along(x, mean, here, there), told or there
        return self.output(point, denoise(point, told.t), told)


class IPNDM(_Pseudo):
    """Improved PNDM (Zhang & Chen 2023): the first steps have the orders 1, 2, 3.

    One evaluation a step. Beginning with the first order, it may begin at the schedule's own end.
    """

    spacing: Spread = "trailing"

    order: Annotated[int, Field(ge=1, le=4, description="evaluations that a step looks back on")] = 4

    @property
    def highest(self) -> int:
        return self.order


class PLMS(_Pseudo):
    """PNDM without Runge-Kutta (Liu et al. 2022: S-PNDM at first, then eq. 12; diffusers' ``skip_prk_steps``).

    The first step is taken twice: with eps here, and with the mean of eps here and at the point found. One evaluation a
    step and one more.
    """

    @property
    def warm_up(self) -> int:
        return 1

    def first_mean(self, denoise: Denoise, x: Tensor, eps: Tensor, here: Level, there: Level, grid: Grid) -> Tensor:
        return torch.lerp(eps, self.seen(denoise, x, eps, here, there), 0.5)

    def nfe(self, steps: int) -> int:
        return steps + 1 if steps > 1 else steps


class PNDM(_Pseudo):
    """F-PNDM (Liu et al. 2022, algorithm 2): three pseudo Runge-Kutta steps, then the linear multistep.

    Four evaluations in each of the first three steps (eq. 13), at the times here, twice halfway and there; one in the
    others, and in a step into clean data. ``middle`` "whole" has whole times halfway, as diffusers does: where the step
    is an odd number of times, the first point halfway lies one above the time that the network is told.
    """

    middle: Annotated[
        Literal["half", "whole"], Field(description="halfway through a step: exactly, or at the whole time below")
    ] = "half"

    @property
    def warm_up(self) -> int:
        return 3

    def first_mean(self, denoise: Denoise, x: Tensor, eps: Tensor, here: Level, there: Level, grid: Grid) -> Tensor:
        """(e_1 + 2 e_2 + 2 e_3 + e_4) / 6, each e_k at the point that the one before leads to from x."""
        half = (here.t - there.t) / 2 if self.middle == "half" else (here.t - there.t) // 2
        middle = grid.at(there.t + half)
        second = self.seen(denoise, x, eps, here, grid.at(here.t - half), middle)
        third = self.seen(denoise, x, second, here, middle)
        fourth = self.seen(denoise, x, third, here, there)
        return eps.add(fourth).add_(second, alpha=2).add_(third, alpha=2).div_(6)

    def nfe(self, steps: int) -> int:
        return steps + 3 * min(3, steps - 1)
