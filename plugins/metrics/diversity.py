"""How varied are the pictures, whatever their quality?"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.metric import Estimate, Features, Metric
from genzoo.neighbours import distance_blocks
from genzoo.results import Theme
from genzoo.uncertainty import Z95, jackknife_error
from genzoo_plugins.metrics.classes import predicted


def mean_distance(vectors: Tensor) -> float:
    """Euclidean, over all pairs of different rows of (N, D), N > 1."""
    total = math.fsum(float(block.sum()) for block in distance_blocks(vectors, vectors))
    return total / (len(vectors) * (len(vectors) - 1))


class ClassDiversity(Metric):
    """Mean distance between two images of a class, over that of real images; then the mean over classes.

    Pairwise distances within a group are those of Ojha et al. 2021, in the extractor's features in place of LPIPS. The
    class is the one that was asked for, and a real image's true one; where none was asked for, it is the
    recognised one of both. A class counts with at least two images of both kinds. The interval is the jackknife's in
    each class, over the generated images; the real ones are taken as they are.
    """

    title: ClassVar[str] = "Diversity within a class"
    paper: ClassVar[str] = "https://arxiv.org/abs/2104.06820"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "higher"
    theme: ClassVar[Theme] = "diversity"
    about: ClassVar[str] = (
        "How much pictures of one class differ from each other; 100 % is as much as real ones do, and more means "
        "pictures that stray from their class."
    )

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        asked = fake.labels is not None
        mine, real = (fake.labels, reference.labels) if asked else (predicted(fake), predicted(reference))
        if mine is None or real is None:
            return None
        found = [spread(fake.vectors[mine == c], reference.vectors[real == c]) for c in range(int(real.max()) + 1)]
        known = [ratio for ratio, _ in found if ratio is not None]
        if not known:
            return None
        whole = math.fsum(known) / len(known)
        # Classes are sampled apart from each other, so the variances add up.
        errors = [error for _, error in found if error is not None]
        half = Z95 * math.hypot(*errors) / len(known) if len(errors) == len(known) else None
        return Estimate(
            value=whole,
            low=None if half is None else whole - half,
            high=None if half is None else whole + half,
            n=len(fake),
            by_class=tuple(ratio for ratio, _ in found),
        )


def spread(fake: Tensor, real: Tensor) -> tuple[float | None, float | None]:
    """The mean distance in (N, D) over that in (M, D), in %, and its standard error; None what cannot be known."""
    scale = mean_distance(real) / 100 if len(real) > 1 else 0.0
    if len(fake) < 2 or scale == 0:
        return None, None
    error = jackknife_error(len(fake), lambda rows: mean_distance(fake[rows]))
    return mean_distance(fake) / scale, None if error is None else error / scale


class Vendi(Metric):
    """exp of the entropy of the eigenvalues of K / n, K_ij = cos(x_i, x_j) (Friedman & Dieng 2022).

    The effective number of different images: 1 where all are alike, at most n, and at most D with this kernel, the
    paper's own for images. It takes no reference, grows with n towards its limit, and knows no quality: noise is varied
    too. So it is read against the real images' row, at the same n. The eigenvalues are those of the D by D or the n by
    n product, whichever is smaller; they are the same but for zeros.
    """

    title: ClassVar[str] = "Vendi score"
    paper: ClassVar[str] = "https://arxiv.org/abs/2210.02410"
    better: ClassVar[str] = "higher"
    theme: ClassVar[Theme] = "diversity"
    alone: ClassVar[bool] = True
    about: ClassVar[str] = "How many truly different pictures there are; the real images' row tells how many is many."

    def __call__(self, fake: Features, reference: Features) -> Estimate:
        directions = F.normalize(fake.vectors.double(), dim=1)

        def score(rows: Tensor) -> float:
            some = directions[rows]
            shape = (some.T @ some if len(some) > some.shape[1] else some @ some.T) / len(some)
            weights = torch.linalg.eigvalsh(shape).clamp(min=0)
            return math.exp(float(torch.special.entr(weights).sum()))

        return Estimate.jackknifed(len(fake), score)
