"""Solvers for flow matching: the coordinates x / (alpha + sigma) and sigma / (alpha + sigma), slope eps - x_0.

On a flow schedule alpha + sigma is 1 and these are x and t themselves. Any other model can be walked in them too.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from genzoo.noise import Noise
from genzoo.scheduler import Denoise, Grid, Highest, Level, Spread
from genzoo_plugins.solvers.euler import heun_step
from genzoo_plugins.solvers.solver import Solver


def flow(level: Level) -> float:
    """s = sigma / (alpha + sigma), 1 for pure noise."""
    return level.sigma / (level.alpha + level.sigma)


class FlowEuler(Solver):
    """x' = x + (t' - t) u with u = eps - x_0 (Lipman et al. 2023). One evaluation a step, order 1.

    It is the same step as Euler's in sigma / alpha; only the grid differs, even in t, with ``shift`` as in Esser et al.
    2024, eq. 23.
    """

    spacing: Spread = "uniform"
    sigma_max: Highest = None


class FlowHeun(Solver):
    """Heun's method in t: x' = x + (t' - t) (u + u') / 2 (Karras et al. 2022, alg. 1, with Lipman et al. 2023's u).

    Two evaluations a step, one in the last, order 2.
    """

    spacing: Spread = "uniform"
    sigma_max: Highest = None

    def walk(self, denoise: Denoise, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        for here, there in grid.pairs():
            x = heun_step(x, denoise(x, here.t), here, there, denoise, flow)
            yield x

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1
