"""The kernel distance: lower is better, and 0 on average for images from the data's own distribution, at any n."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.uncertainty import shuffled
from genzoo_plugins.metrics.two_sample import TwoSample


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / D + 1)^3 of float64 (N, D) and (M, D): (N, M)."""
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


class Kernel(TwoSample):
    """Unbiased MMD^2 with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4): fair at small n.

    The mean of the kernel over pairs within each set (Gretton et al. 2012, eq. 3), less twice the mean over all pairs
    across. Every image counts, where the paper's code averages over random subsets of 1,000: the mean of that over all
    subsets is this, and the spread over overlapping subsets is no standard error. Pairs within a set are formed in
    blocks, which leaves it unbiased and costs next to nothing in variance; with one block of generated and as many real
    images it is torchmetrics' value of one subset. The interval is the jackknife's, over the generated images.
    """

    title: ClassVar[str] = "Kernel distance"
    paper: ClassVar[str] = "https://arxiv.org/abs/1801.01401"
    better: ClassVar[str] = "lower"
    about: ClassVar[str] = "The same question as the Frechet distance, without its bias at few pictures."

    block: Annotated[int, Field(ge=2, le=20_000, description="images among which pairs are formed")] = 1000

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        # Blocks of a set that lies sorted by class would hold pairs of one class only.
        fake, data = fake.double(), real[shuffled(len(real))].double()
        order = shuffled(len(fake))
        among_real = self.within(data)
        across = torch.cat([cubic(part, data).mean(1) for part in torch.split(fake, self.block)])

        def distance(rows: Tensor) -> float:
            kept = order[torch.isin(order, rows)]
            return self.within(fake[kept]) + among_real - 2 * float(across[rows].mean())

        return distance

    def within(self, vectors: Tensor) -> float:
        """The kernel's mean over pairs of different rows of (N, D) in one block."""
        total, pairs = 0.0, 0
        for part in torch.split(vectors, self.block):
            table = cubic(part, part)
            total += float(table.sum() - table.trace())
            pairs += len(part) * (len(part) - 1)
        return total / pairs
