"""Linear multistep methods on any grid: eps is interpolated through past evaluations, and the polynomial integrated.

In EDM's coordinates y = x / alpha, s = sigma / alpha the flow is dy/ds = eps, so y' = y + sum_j c_j eps_j with
c_j = integral over [s, s'] of the j-th Lagrange polynomial, in s itself (LMS) or in log s (DEIS).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Level, Spread
from genzoo_plugins.solvers.solver import FEW_STEPS, REMEMBERED, Solver, Stopping, slope, straight, weighted


@lru_cache(REMEMBERED)
def lagrange_integrals(
    nodes: tuple[float, ...], start: float, end: float, density: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, ...]:
    """For each node, the integral over [start, end] of its Lagrange polynomial times ``density``.

    By Gauss-Legendre with 24 points: exact for a polynomial, to rounding for the exponential over any step in use.
    """
    points, weights = _gauss(24)
    at = start + (end - start) * (points + 1) / 2
    scaled = weights * (end - start) / 2 * density(at)
    integrals: list[float] = []
    for j, node in enumerate(nodes):
        others = nodes[:j] + nodes[j + 1 :]
        basis = np.prod([(at - other) / (node - other) for other in others], axis=0) if others else np.ones_like(at)
        integrals.append(float((scaled * basis).sum()))
    return tuple(integrals)


@cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights on [-1, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


class _Linear(Solver):
    spacing: Spread = "karras"

    order: Annotated[int, Field(ge=1, le=4, description="evaluations that a step looks back on")] = 4

    def highest(self, steps: int, i: int, there: Level) -> int:
        """The order of step i of ``steps``, to ``there``, if there are that many evaluations to look back on."""
        return self.order

    @abstractmethod
    def coefficients(self, nodes: tuple[float, ...], there: float) -> tuple[float, ...]:
        """c_j for nodes s_j, the newest first, and the step to s' = ``there``."""

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        past: list[tuple[float, Tensor]] = []  # s and eps, the newest first
        steps = len(grid.levels) - 1
        for i, (here, there) in enumerate(grid.pairs()):
            x0 = denoise(x, here.t)
            if here.alpha == 0:
                # Out of pure noise, where s is infinite; nothing can be interpolated through it later either.
                x = straight(x, x0, here, there)
                yield x
                continue
            past.insert(0, (here.sigma / here.alpha, slope(x, x0, here)))
            del past[self.order :]
            used = past[: self.highest(steps, i, there)]
            scale = there.alpha
            factors = self.coefficients(tuple([s for s, _ in used]), there.sigma / there.alpha)
            terms = ((scale * factor, eps) for factor, (_, eps) in zip(factors, used, strict=True))
            x = weighted(x, scale / here.alpha, *terms)
            yield x


class LMS(_Linear):
    """The linear multistep method in sigma / alpha (k-diffusion's ``sample_lms``): Adams-Bashforth on an uneven grid.

    y' = y + sum_j c_j eps_j over the ``order`` newest eps, along the flow of Karras et al. 2022 (algorithm 1, line 4).
    One evaluation a step; the first steps have the orders 1, 2, 3. It keeps its order into sigma = 0. The default grid
    is even in time: on the shipped model that is nearer to the data than Karras's, from 5 evaluations to 15.
    """

    spacing: Spread = "trailing"

    def coefficients(self, nodes: tuple[float, ...], there: float) -> tuple[float, ...]:
        return lagrange_integrals(nodes, nodes[0], there, np.ones_like)


class DEIS(_Linear, Stopping):
    """The diffusion exponential integrator, log-rho form (Zhang & Chen 2023; rho = sigma / alpha).

    eps is a polynomial in log rho. One evaluation a step. The last step into clean data is first-order: log rho ends at
    minus infinity there. (diffusers' scheduler always stops at the first noisy level instead: ``end`` 1.)
    """

    order: Annotated[int, Field(ge=1, le=4, description="evaluations that a step looks back on")] = 3
    lower_order_final: Annotated[
        bool, Field(description="walks of fewer than 15 steps lower their order towards the end")
    ] = True

    def highest(self, steps: int, i: int, there: Level) -> int:
        if there.sigma == 0:
            return 1
        return min(self.order, steps - i) if self.lower_order_final and steps < FEW_STEPS else self.order

    def coefficients(self, nodes: tuple[float, ...], there: float) -> tuple[float, ...]:
        if len(nodes) == 1:
            return (there - nodes[0],)
        logs = tuple([math.log(node) for node in nodes])
        return lagrange_integrals(logs, logs[0], math.log(there), np.exp)
