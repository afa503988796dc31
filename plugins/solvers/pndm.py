"""Pseudo numerical methods (Liu et al. 2022): classical methods for eps, DDIM's step in place of the straight line.

The step is x' = (alpha' / alpha) x + (sigma' - sigma alpha' / alpha) e (eq. 9), where e is a mean of past eps as a
classical method takes it. The means assume times that are evenly spaced; whatever the classical method's order, the
result is of second order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Level, Spread
from genzoo_plugins.solvers.solver import Solver, slope, straight, transfer

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


class IPNDM(Solver):
    """Improved PNDM (Zhang & Chen 2023): the first steps have the orders 1, 2, 3.

    One evaluation a step.
    """

    spacing: Spread = "linspace"
    order: Annotated[int, Field(ge=1, le=4, description="evaluations that a step looks back on")] = 4

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[Tensor] = []
        for here, there in grid.pairs():
            x0 = denoise(x, here.t)
            past.insert(0, slope(x, x0, here))
            del past[self.order :]
            x = transfer(x, adams(past), here, there) if here.alpha > 0 else straight(x, x0, here, there)
            yield x


class PLMS(Solver):
    """PNDM without Runge-Kutta ("S-PNDM" at first, then the linear multistep; diffusers' ``skip_prk_steps``).

    The first step is taken twice: with eps here, and with the mean of eps here and at the point found. One evaluation a
    step and one more.
    """

    spacing: Spread = "linspace"

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[Tensor] = []
        for i, (here, there) in enumerate(grid.pairs()):
            x0 = denoise(x, here.t)
            eps = slope(x, x0, here)
            past.insert(0, eps)
            del past[4:]
            if here.alpha == 0:
                x = straight(x, x0, here, there)
            elif i == 0 and there.sigma > 0:
                guess = transfer(x, eps, here, there)
                again = slope(guess, denoise(guess, there.t), there)
                x = transfer(x, torch.lerp(eps, again, 0.5), here, there)
            else:
                x = transfer(x, adams(past), here, there)
            yield x

    def nfe(self, steps: int) -> int:
        return steps + 1 if steps > 1 else steps


class PNDM(Solver):
    """F-PNDM (Liu et al. 2022, algorithm 2): three pseudo Runge-Kutta steps, then the linear multistep.

    Four evaluations in each of the first three steps (eq. 13), at the times here, twice halfway and there; one in the
    others, and in a step into clean data.
    """

    spacing: Spread = "linspace"

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[Tensor] = []
        for i, (here, there) in enumerate(grid.pairs()):
            x0 = denoise(x, here.t)
            eps = slope(x, x0, here)
            past.insert(0, eps)
            del past[4:]
            if here.alpha == 0:
                x = straight(x, x0, here, there)
            elif i < 3 and there.sigma > 0:
                x = transfer(
                    x, _runge_kutta(denoise, x, eps, here, grid.at((here.t + there.t) / 2), there), here, there
                )
            else:
                x = transfer(x, adams(past), here, there)
            yield x

    def nfe(self, steps: int) -> int:
        return steps + 3 * min(3, steps - 1)


def _runge_kutta(denoise: Denoise, x: Tensor, first: Tensor, here: Level, middle: Level, there: Level) -> Tensor:
    """(e_1 + 2 e_2 + 2 e_3 + e_4) / 6, each e_k at the point that the one before leads to from x."""

    def seen(eps: Tensor, level: Level) -> Tensor:
        point = transfer(x, eps, here, level)
        return slope(point, denoise(point, level.t), level)

    second = seen(first, middle)
    third = seen(second, middle)
    fourth = seen(third, there)
    return first.add(fourth).add_(second, alpha=2).add_(third, alpha=2).div_(6)
