"""Fidelity and diversity apart: are the pictures like real ones, and are all real ones represented?

All four compare neighbourhoods: the ball around a point that reaches to its k-th nearest neighbour in its own set.
As many real images are used as generated ones, as the definitions assume.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.metric import Estimate, Features, Metric
from genzoo.uncertainty import jackknife


def radii(vectors: Tensor, k: int) -> Tensor:
    """Distance from each of (n, D) to its k-th nearest other, (n,)."""
    return torch.cdist(vectors, vectors).kthvalue(k + 1, dim=1).values


class Manifold(Metric):
    """What the four share."""

    better: ClassVar[str] = "higher"

    k: Annotated[int, Field(ge=1, le=100, description="which nearest neighbour bounds a neighbourhood")] = 5

    def __call__(self, fake: Features, reference: Features) -> Estimate:
        count = min(len(fake), len(reference))
        if count < 2 * (self.k + 1):
            raise OptionError(
                f"{self.title} with k={self.k} needs at least {2 * (self.k + 1)} images; give a larger -n"
            )
        real, mine = reference.vectors[:count], fake.vectors[:count]
        whole = self.value(mine, real)
        low, high = jackknife(count, lambda rows: self.value(mine[rows], real), whole) or (None, None)
        return Estimate(value=whole, low=low, high=high, n=count)

    def value(self, fake: Tensor, real: Tensor) -> float:
        """The share, from vectors (n, D), (m, D)."""
        raise OptionError(f"{type(self).__name__} defines no value")


class Precision(Manifold):
    """Share of generated images that lie in the neighbourhood of a real one (Kynkaanniemi et al. 2019, eq. 2)."""

    title: ClassVar[str] = "Precision"
    paper: ClassVar[str] = "https://arxiv.org/abs/1904.06991"
    about: ClassVar[str] = "The share of generated pictures that look like some real one."

    def value(self, fake: Tensor, real: Tensor) -> float:
        inside = torch.cdist(real, fake) < radii(real, self.k)[:, None]
        return float(inside.any(0).double().mean())


class Recall(Manifold):
    """Share of real images that lie in the neighbourhood of a generated one (Kynkaanniemi et al. 2019, eq. 2)."""

    title: ClassVar[str] = "Recall"
    paper: ClassVar[str] = "https://arxiv.org/abs/1904.06991"
    about: ClassVar[str] = "The share of real pictures whose like the model can make."

    def value(self, fake: Tensor, real: Tensor) -> float:
        inside = torch.cdist(real, fake) < radii(fake, self.k)[None, :]
        return float(inside.any(1).double().mean())


class Density(Manifold):
    """How many real neighbourhoods a generated image lies in, over k (Naeem et al. 2020, eq. 4); may exceed 1."""

    title: ClassVar[str] = "Density"
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.09797"
    about: ClassVar[str] = "Precision that counts how densely real pictures lie around; about 1 for real ones."

    def value(self, fake: Tensor, real: Tensor) -> float:
        inside = torch.cdist(real, fake) < radii(real, self.k)[:, None]
        return float(inside.double().sum(0).mean() / self.k)


class Coverage(Manifold):
    """Share of real images with a generated one in their neighbourhood (Naeem et al. 2020, eq. 5)."""

    title: ClassVar[str] = "Coverage"
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.09797"
    about: ClassVar[str] = "The share of real pictures that have a generated one near them."

    def value(self, fake: Tensor, real: Tensor) -> float:
        return float((torch.cdist(real, fake).min(1).values < radii(real, self.k)).double().mean())
