"""Fidelity and diversity apart: are the pictures like real ones, and are all real ones represented?

All four compare neighbourhoods: the ball around a point that reaches to its k-th nearest neighbour in its own set.
As many real images are used as generated ones, drawn at random, as the definitions assume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.metric import Estimate, Features
from genzoo.neighbours import distance_blocks, nearest, radii
from genzoo.results import Theme
from genzoo.uncertainty import shuffled
from genzoo_plugins.metrics.two_sample import TwoSample


def neighbourhoods(points: Tensor, others: Tensor, reach: Tensor) -> Tensor:
    """In how many balls around (M, D), of radii (M,), each of (N, D) lies: int64 (N,)."""
    return torch.cat([(block < reach).sum(1) for block in distance_blocks(points, others)])


class Manifold(TwoSample):
    """What the four share."""

    better: ClassVar[str] = "higher"

    k: Annotated[int, Field(ge=1, le=100, description="which nearest neighbour bounds a neighbourhood")] = 5

    @property
    def least(self) -> int:
        # A fold of the jackknife must leave k others to each.
        return 2 * (self.k + 1)

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        count = min(len(fake), len(reference))
        return super().__call__(*(which[shuffled(len(which))[:count]] for which in (fake, reference)))


class Precision(Manifold):
    """Share of generated images that lie in the neighbourhood of a real one (Kynkaanniemi et al. 2019, eq. 2)."""

    title: ClassVar[str] = "Precision"
    share: ClassVar[bool] = True
    paper: ClassVar[str] = "https://arxiv.org/abs/1904.06991"
    about: ClassVar[str] = "The share of generated pictures that look like some real one."

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        inside = (neighbourhoods(fake, real, radii(real, self.k)) > 0).double()
        return lambda rows: float(inside[rows].mean())


class Recall(Manifold):
    """Share of real images that lie in the neighbourhood of a generated one (Kynkaanniemi et al. 2019, eq. 2)."""

    title: ClassVar[str] = "Recall"
    share: ClassVar[bool] = True
    paper: ClassVar[str] = "https://arxiv.org/abs/1904.06991"
    theme: ClassVar[Theme] = "diversity"
    about: ClassVar[str] = "The share of real pictures whose like the model can make."

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        def share(rows: Tensor) -> float:
            kept = fake[rows]
            return float((neighbourhoods(real, kept, radii(kept, self.k)) > 0).double().mean())

        return share


class Density(Manifold):
    """How many real neighbourhoods a generated image lies in, over k (Naeem et al. 2020, eq. 4); may exceed 1."""

    title: ClassVar[str] = "Density"
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.09797"
    about: ClassVar[str] = "Precision that counts how densely real pictures lie around; about 1 for real ones."

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        depth = neighbourhoods(fake, real, radii(real, self.k)).double() / self.k
        return lambda rows: float(depth[rows].mean())


class Coverage(Manifold):
    """Share of real images with a generated one in their neighbourhood (Naeem et al. 2020, eq. 5)."""

    title: ClassVar[str] = "Coverage"
    share: ClassVar[bool] = True
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.09797"
    theme: ClassVar[Theme] = "diversity"
    about: ClassVar[str] = "The share of real pictures that have a generated one near them."

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        reach = radii(real, self.k)
        return lambda rows: float((nearest(real, fake[rows])[0] < reach).double().mean())
