"""Distances between the features of generated and of real images: lower is better, and neither is 0 at finite n."""

from __future__ import annotations

import warnings
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.errors import OptionError
from genzoo.metric import Estimate, Features, Metric
from genzoo.uncertainty import jackknife


class _AsIs(nn.Module):
    """Feature vectors in place of images: torchmetrics asks a network for features, and they are here already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors


class Distance(Metric):
    """What the distances share: an interval by jackknife over the generated images."""

    better: ClassVar[str] = "lower"
    least: ClassVar[int] = 2

    def __call__(self, fake: Features, reference: Features) -> Estimate:
        if len(fake) < self.least:
            raise OptionError(f"{self.title} needs at least {self.least} images; give a larger -n")
        whole = self.value(fake.vectors, reference.vectors)
        interval = jackknife(len(fake), lambda rows: self.value(fake.vectors[rows], reference.vectors), whole)
        low, high = interval or (None, None)
        return Estimate(value=whole, low=low, high=high, n=len(fake))

    def value(self, fake: Tensor, real: Tensor) -> float:
        """The distance between two sets of vectors (n, D), (m, D)."""
        raise OptionError(f"{type(self).__name__} defines no distance")


class Frechet(Distance):
    """||mu - mu'||^2 + tr(S + S' - 2 (S S')^(1/2)): between Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    Computed by torchmetrics. It is biased upwards by about D / n, so values at different n may not be compared.
    """

    title: ClassVar[str] = "Frechet distance"
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.08500"
    about: ClassVar[str] = "How far the generated pictures' features lie from real ones, in mean and spread together."

    def value(self, fake: Tensor, real: Tensor) -> float:
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=_AsIs(fake.shape[1]))
        # float64 throughout: the metric returns its input's type, and its last steps subtract nearly equal numbers.
        metric.update(real.double(), real=True)
        metric.update(fake.double(), real=False)
        return float(metric.compute())


class Kernel(Distance):
    """Unbiased MMD^2 with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4): fair at small n.

    Computed by torchmetrics over blocks of at most ``block`` generated and as many real images, then averaged.
    """

    title: ClassVar[str] = "Kernel distance"
    paper: ClassVar[str] = "https://arxiv.org/abs/1801.01401"
    about: ClassVar[str] = "The same question as the Frechet distance, without its bias at few pictures."

    block: Annotated[int, Field(ge=2, le=20_000, description="images a block")] = 1000

    def value(self, fake: Tensor, real: Tensor) -> float:
        from torchmetrics.image.kid import KernelInceptionDistance

        count = min(len(fake), len(real))
        blocks = max(1, count // self.block)
        size = count // blocks
        total = 0.0
        for i in range(blocks):
            rows = slice(i * size, (i + 1) * size)
            with warnings.catch_warnings():
                # "Will save all features in a buffer": a block of them, and for a moment.
                warnings.filterwarnings("ignore", message=".*extracted features in buffer", category=UserWarning)
                metric = KernelInceptionDistance(feature=_AsIs(fake.shape[1]), subsets=1, subset_size=size)
            metric.update(real[rows].double(), real=True)
            metric.update(fake[rows].double(), real=False)
            # It shuffles the whole block before using all of it: no effect on the value, but on the global stream.
            with torch.random.fork_rng(devices=[]):
                total += float(metric.compute()[0])
        return total / blocks
