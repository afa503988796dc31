"""Frechet distances between Gaussians fitted to features: as it is, and extrapolated to infinitely many images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.metric import Estimate, Features
from genzoo.uncertainty import shuffled
from genzoo_plugins.metrics.two_sample import TwoSample


@dataclass(frozen=True)
class Gaussian:
    """Mean, float64 (D,), and covariance, float64 (D, D)."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def fitted(cls, vectors: Tensor) -> Gaussian:
        """To (N, D) with N > 1: the sample mean and the unbiased sample covariance."""
        wide = vectors.double()
        return cls(wide.mean(0), torch.cov(wide.T).reshape(wide.shape[1], wide.shape[1]))

    @functools.cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, axes = torch.linalg.eigh(self.covariance)
        root: Tensor = (axes * values.clamp(min=0).sqrt()) @ axes.T
        return root

    def frechet(self, other: Gaussian) -> float:
        """||mu - mu'||^2 + tr(S + S' - 2 (S S')^(1/2)) (Dowson & Landau 1982).

        S'^(1/2) S S'^(1/2) has the eigenvalues of S S', and is symmetric: no complex roots to be cut off.
        """
        between = torch.linalg.eigvalsh(other.root @ self.covariance @ other.root).clamp(min=0).sqrt().sum()
        apart = (self.mean - other.mean).square().sum()
        return float(apart + self.covariance.trace() + other.covariance.trace() - 2 * between)


class Frechet(TwoSample):
    """The squared Frechet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    It is biased upwards by about D / n, so values at different n may not be compared.
    """

    title: ClassVar[str] = "Frechet distance"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.08500"
    better: ClassVar[str] = "lower"
    about: ClassVar[str] = "How far the generated pictures' features lie from real ones, in mean and spread together."

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        data = Gaussian.fitted(real)
        return lambda rows: Gaussian.fitted(fake[rows]).frechet(data)


class FrechetInfinity(TwoSample):
    """The Frechet distance extrapolated to infinitely many images (Chong & Forsyth 2020, FID_infinity).

    The distance at n images is d + c / n + O(1 / n^2); a line through it at several n, over 1 / n, meets the axis at
    d. Here the n are N, N/2, ... N/J, and at N/j the distance is the mean over j parts that together are all N images,
    so that every point uses all of them. The reference is parted alike: its own bias, c' / M, goes the same way, where
    the paper leaves it in. Images drawn from the data's own distribution are therefore at 0 on average, and a good
    model's estimate may fall below 0 by chance.

    None where there are fewer than 5 D generated or real images: the line is not straight below 2.5 D a part, as below
    the paper's 5,000 for Inception's 2,048 features.
    """

    title: ClassVar[str] = "Frechet distance at infinite n"
    paper: ClassVar[str] = "https://arxiv.org/abs/1911.07023"
    better: ClassVar[str] = "lower"
    about: ClassVar[str] = "The Frechet distance without what few pictures add to it: 0 would be real pictures."
    pooled: ClassVar[bool] = True

    sizes: Annotated[int, Field(ge=2, le=64, description="points on the line, J, where the images are enough")] = 4

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        if self.parts(fake.vectors, reference.vectors) < 2:
            return None
        return super().__call__(fake, reference)

    def parts(self, fake: Tensor, real: Tensor) -> int:
        """J: as many as wished for, with at least 2.5 D images in the smallest part."""
        least = 2.5 * fake.shape[1]
        return min(self.sizes, int(min(len(fake), len(real)) / least))

    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        numbers = range(1, max(2, self.parts(fake, real)) + 1)
        mixed = real[shuffled(len(real))]
        data = {j: [Gaussian.fitted(part) for part in mixed.tensor_split(j)] for j in numbers}
        order = shuffled(len(fake))

        def intercept(rows: Tensor) -> float:
            mine = fake[order[torch.isin(order, rows)]]
            points = [
                sum(Gaussian.fitted(a).frechet(b) for a, b in zip(mine.tensor_split(j), data[j], strict=True)) / j
                for j in numbers
            ]
            # Least squares of the points on j, which is 1 / n in units of 1 / N.
            line = torch.tensor([[1.0, j] for j in numbers], dtype=torch.float64)
            return float(torch.linalg.lstsq(line, torch.tensor(points, dtype=torch.float64)[:, None]).solution[0])

        return intercept
