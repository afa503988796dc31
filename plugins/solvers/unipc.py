"""UniPC (Zhao et al. 2023): a predictor and a corrector of any order that share their evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Level, Spread
from genzoo_plugins.solvers.solver import REMEMBERED, Stopping, weighted


class UniPC(Stopping):
    """UniPC-p in x_0 (Zhao et al. 2023, algorithms 1 and 2, in their data-prediction form). One evaluation a step.

    Both parts are x' = (sigma' / sigma) x + alpha' (1 - e^-h) D_0 - alpha' B(h) sum_k a_k (D_k - D_0) / r_k, where
    r_k = (lambda_k - lambda) / h and a solves sum_k a_k r_k^(m - 1) = m! phi_(m + 1)(-h) / B(h), m = 1, 2, ...
    The predictor looks back on p - 1 estimates; the corrector repeats the step with the estimate there as well, r = 1,
    which costs nothing, for it is the next step's own. B(h) is -h ("bh1") or e^-h - 1 ("bh2"). The order is p + 1 from
    starting values of that order; the first steps have lower ones. As in the authors' code, one unknown alone is 1/2.
    """

    spacing: Spread = "log-snr"
    order: Annotated[Literal[1, 2, 3], Field(description="p; the order of accuracy is one more")] = 2
    variant: Annotated[Literal["bh1", "bh2"], Field(description="B(h): -h, or e^-h - 1")] = "bh2"
    corrector: Annotated[bool, Field(description="correct every step with the next estimate")] = True
    lower_order_final: Annotated[bool, Field(description="the order falls to 1 towards the last step")] = True

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[tuple[Level, Tensor]] = []  # the newest first
        start, order, steps = x, 1, len(grid.levels) - 1
        for i, (here, there) in enumerate(grid.pairs()):
            estimate = denoise(x, here.t)
            if self.corrector and past:
                x = self._step(start, past[:order], here, estimate)
            past.insert(0, (here, estimate))
            del past[self.order :]
            left = steps - i if self.lower_order_final else steps
            # Into clean data, where h is infinite, and in place, where it is 0, nothing is expanded.
            order = 1 if there.sigma in (0, here.sigma) else min(self.order, len(past), left)
            start = x
            x = self._step(start, past[:order], there, None)
            if here.alpha == 0:
                # Pure noise is infinitely far away in log-SNR: no step can look back on it, or be corrected from it.
                past.clear()
            yield x

    def _step(self, x: Tensor, past: list[tuple[Level, Tensor]], there: Level, ahead: Tensor | None) -> Tensor:
        """The predictor from past[0] to ``there``; the corrector, where ``ahead`` is the estimate there."""
        (here, newest), *older = past
        h = there.log_snr - here.log_snr
        places = [(level.log_snr - here.log_snr) / h for level, _ in older]
        others = [estimate for _, estimate in older]
        if ahead is not None:
            places, others = [*places, 1.0], [*others, ahead]
        weight = -there.alpha * math.expm1(-h)
        terms: list[tuple[float, Tensor]] = []
        if others:
            bound = -h if self.variant == "bh1" else math.expm1(-h)
            for a, r, other in zip(solution(tuple(places), h, bound), places, others, strict=True):
                factor = -there.alpha * bound * a / r
                weight -= factor
                terms.append((factor, other))
        return weighted(x, there.sigma / here.sigma, (weight, newest), *terms)


@lru_cache(REMEMBERED)
def solution(places: tuple[float, ...], h: float, bound: float) -> tuple[float, ...]:
    """a of ``UniPC``, for the places r_k and B(h) = ``bound``: as many numbers as there are places."""
    if len(places) == 1:
        return (0.5,)
    rows, right = [], []
    phi = math.expm1(-h) / -h - 1
    for m in range(1, len(places) + 1):
        rows.append([r ** (m - 1) for r in places])
        right.append(phi * math.factorial(m) / bound)
        phi = phi / -h - 1 / math.factorial(m + 1)
    return tuple(np.linalg.solve(np.array(rows), np.array(right)).tolist())
