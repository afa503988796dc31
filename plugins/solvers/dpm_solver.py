"""DPM-Solver and DPM-Solver++ (Lu et al. 2022a, 2022b): the linear part of the flow solved exactly in the log-SNR.

With lambda = log(alpha / sigma) and h = lambda' - lambda > 0, x' = (sigma' / sigma) x + alpha' times the integral of
e^(l - lambda') D(l) over l in [lambda, lambda'], and D is expanded in lambda. A step into clean data, where h is
infinite, is first-order; so is one out of pure noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Highest, Level, Spread
from genzoo_plugins.solvers.solver import FEW_STEPS, SLOPES_HIGHEST, Solver, Stopping, straight, weighted

#: Denoised estimates with their levels, the newest first.
History = list[tuple[Level, Tensor]]


def halfway(here: Level, there: Level, grid: Grid) -> Level | None:
    """The level in the middle in log-SNR; None where one end has none."""
    middle = (here.log_snr + there.log_snr) / 2
    return grid.at_log_snr(middle) if math.isfinite(middle) else None


class DPM2(Solver):
    """DPM-Solver-2 (Lu et al. 2022a, algorithm 1 with r_1 = 1/2), k-diffusion's ``sample_dpm_2``.

    u = the first-order solution halfway in log-SNR; x' = (alpha' / alpha) x - sigma' (e^h - 1) eps(u), which is the
    explicit midpoint rule y + (s' - s) eps(u) in EDM's coordinates. Two evaluations a step; the last step
    is first-order, with one.
    """

    spacing: Spread = "karras"
    sigma_max: Highest = SLOPES_HIGHEST

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, there in grid.pairs():
            x0 = denoise(x, here.t)
            middle = halfway(here, there, grid)
            if middle is None:
                x = straight(x, x0, here, there)
            else:
                again = denoise(straight(x, x0, here, middle), middle.t)
                s, s_middle, s_there = (level.sigma / level.alpha for level in (here, middle, there))
                reach = there.alpha * (s_there - s)
                of_x0, of_again = reach * (1 / s_middle - 1 / s), -reach / s_middle
                x = weighted(x, there.sigma / here.sigma, (of_x0, x0), (of_again, again))
            yield x

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1


class DPMpp1S(Stopping):
    """DPM-Solver++ of order 1 (Lu et al. 2022b, algorithm 2's first step), which is DDIM with eta 0.

    x' = (sigma' / sigma) x + alpha' (1 - e^-h) D.
    """

    spacing: Spread = "log-snr"


class _Expansion(Stopping):
    """A step through estimates at several levels: D expanded in lambda by divided differences."""

    spacing: Spread = "log-snr"

    def advance(self, x: Tensor, past: History, there: Level, noise: Noise) -> Tensor:
        """x at ``there`` through all of ``past``."""
        here, _ = past[0]
        h = there.log_snr - here.log_snr
        weight = -there.alpha * math.expm1(-h)  # what a constant D is multiplied by
        return weighted(x, there.sigma / here.sigma, *self.terms(past, h, weight, there.alpha))

    def terms(self, past: History, h: float, weight: float, alpha: float) -> list[tuple[float, Tensor]]:
        """The estimates with their coefficients."""
        if len(past) == 1:
            return [(weight, past[0][1])]
        ratio = (past[0][0].log_snr - past[1][0].log_snr) / h
        return spread(past, (weight, self.first_derivative(h, weight, alpha) / ratio))

    def first_derivative(self, h: float, weight: float, alpha: float) -> float:
        """The coefficient of h D'."""
        return weight / 2


def spread(past: History, weights: tuple[float, float]) -> list[tuple[float, Tensor]]:
    """w_0 D_0 + w_1 (D_0 - D_1), gathered by estimate."""
    return [(weights[0] + weights[1], past[0][1]), (-weights[1], past[1][1])]


class DPMpp2S(_Expansion):
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1). Two evaluations a step, one in the last.

    u = the first-order solution at a level between, r of the way in log-SNR, and x' = (sigma' / sigma) x +
    alpha' (1 - e^-h) ((1 - 1 / 2r) D(x) + (1 / 2r) D(u)). At r = 1/2 ("log-snr") that is D(u) alone. ``middle`` "grid"
    takes the level between from the grid, so that two of its steps make one of the method's, and each has one
    evaluation, as in diffusers; what is left at the end, one step or two, is first-order.
    """

    middle: Annotated[Literal["log-snr", "grid"], Field(description="the level between: halfway, or of the grid")] = (
        "log-snr"
    )

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, between, there in self._spans(grid):
            first = denoise(x, here.t)
            point = straight(x, first, here, between or there)
            if between is None:
                x = point
            elif self.middle == "grid":
                yield point
                x = self.advance(x, [(here, first), (between, denoise(point, between.t))], there, noise)
            else:
                x = straight(x, denoise(point, between.t), here, there)
            yield x

    def _spans(self, grid: Grid) -> Iterator[tuple[Level, Level | None, Level]]:
        """(here, between, there) of every step; without a level between, a first-order one."""
        pairs = grid.pairs()
        if self.middle == "log-snr":
            yield from ((here, halfway(here, there, grid), there) for here, there in pairs)
            return
        left = len(grid.levels) - 1
        for here, there in pairs:
            paired = left > 2 and here.alpha > 0
            yield (here, there, next(pairs)[1]) if paired else (here, None, there)
            left -= 2 if paired else 1

    def nfe(self, steps: int) -> int:
        return steps if self.middle == "grid" else 2 * steps - 1


class _Multistep(_Expansion):
    """Expansions of D in lambda through past estimates: one evaluation a step, first-order in the first."""

    lower_order_final: Annotated[
        bool, Field(description="walks of fewer than 15 steps lower their order towards the end")
    ] = True

    @property
    def highest(self) -> int:
        """How many estimates a full step uses."""
        return 2

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: History = []
        steps = len(grid.levels) - 1
        for i, (here, there) in enumerate(grid.pairs()):
            past.insert(0, (here, denoise(x, here.t)))
            left = steps - i if self.lower_order_final and steps < FEW_STEPS else steps
            # Into clean data, where h is infinite, and in place, where it is 0, nothing is expanded.
            order = 1 if there.sigma in (0, here.sigma) else min(self.highest, len(past), left)
            del past[self.highest :]
            x = self.advance(x, past[:order], there, noise)
            if here.alpha == 0:
                # Pure noise is infinitely far away in log-SNR: nothing can be expanded through it.
                past.clear()
            yield x


class DPMpp2M(_Multistep):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2). One evaluation a step, order 2.

    x' = (sigma' / sigma) x + alpha' (1 - e^-h) (D_0 + D_1 / 2) with D_1 = (D_0 - D_-1) / r, r = h_-1 / h ("midpoint");
    "heun" weighs D_1 by alpha' (1 - (1 - e^-h) / h), the exact integral of the expansion.
    """

    variant: Annotated[Literal["midpoint", "heun"], Field(description="weight of the first derivative")] = "midpoint"

    def first_derivative(self, h: float, weight: float, alpha: float) -> float:
        return weight / 2 if self.variant == "midpoint" else alpha * (math.expm1(-h) / h + 1)


class DPMpp3M(_Multistep):
    """DPM-Solver++(3M) (Lu et al. 2022b, as their code has it): the expansion to second order. One evaluation a step.

    x' = (sigma' / sigma) x + alpha' ((1 - e^-h) D_0 + phi_2 D_1 - phi_3 D_2), phi_2 = (e^-h - 1) / h + 1,
    phi_3 = (e^-h - 1 + h) / h^2 - 1/2, where D_1 = h D' and D_2 = h^2 D'' by divided differences in lambda through
    three estimates. Order 3 in the long run; the first step is first-order, which alone leaves a second-order error.

    The authors' code, and others after it, take half of that D_2, as if the second divided difference were the second
    derivative: "published" does so too, and is of order 2.
    """

    variant: Annotated[Literal["exact", "published"], Field(description="weight of the second derivative")] = "exact"

    @property
    def highest(self) -> int:
        return 3

    def terms(self, past: History, h: float, weight: float, alpha: float) -> list[tuple[float, Tensor]]:
        if len(past) < 3:
            return super().terms(past, h, weight, alpha)
        (l0, d0), (l1, d1), (l2, d2) = ((level.log_snr, estimate) for level, estimate in past)
        r0, r1 = (l0 - l1) / h, (l1 - l2) / h
        phi2 = alpha * (math.expm1(-h) / h + 1)
        phi3 = alpha * ((math.expm1(-h) + h) / h**2 - 0.5)
        # D_1 = a + r0 / (r0 + r1) (a - b), D_2 = 2 (a - b) / (r0 + r1), a = (D_0 - D_-1) / r0, b = (D_-1 - D_-2) / r1.
        mixed = (phi2 * r0 - (2 if self.variant == "exact" else 1) * phi3) / (r0 + r1)
        of_a, of_b = (phi2 + mixed) / r0, -mixed / r1
        return [(weight + of_a, d0), (of_b - of_a, d1), (-of_b, d2)]


class DPMpp2MSDE(_Multistep):
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b): the reverse SDE in place of the flow.

    x' = (sigma' / sigma) e^-h x + alpha' (1 - e^-2h) (D_0 + D_1 / 2) + sigma' sqrt(1 - e^-2h) z; "heun" weighs D_1 by
    alpha' (1 - (1 - e^-2h) / 2h). One evaluation a step.
    """

    variant: Annotated[Literal["midpoint", "heun"], Field(description="weight of the first derivative")] = "midpoint"

    def first_derivative(self, h: float, weight: float, alpha: float) -> float:
        return weight / 2 if self.variant == "midpoint" else alpha * (math.expm1(-2 * h) / (2 * h) + 1)

    def advance(self, x: Tensor, past: History, there: Level, noise: Noise) -> Tensor:
        here, _ = past[0]
        h = there.log_snr - here.log_snr
        share = -math.expm1(-2 * h)
        terms = self.terms(past, h, there.alpha * share, there.alpha)
        out = weighted(x, there.sigma / here.sigma * math.exp(-h), *terms)
        if there.sigma == 0:
            return out
        return out.add_(noise.normal(*x.shape[1:]), alpha=there.sigma * share**0.5)
