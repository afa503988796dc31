"""Nearest neighbours among feature vectors, by exhaustive search in blocks: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genzoo.errors import OptionError

#: Distances that are held at once: 32 MiB of float64.
BLOCK = 1 << 22


def distance_blocks(points: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Euclidean distances from (N, D) to (M, D): float64 (n, M), for n points after n points.

    They are worked out by a matrix product, so that vectors which are equal may seem about 1e-7 of their length apart.

    Raises OptionError where there is nobody to be near, or where the widths differ.
    """
    if points.ndim != 2 or others.ndim != 2 or points.shape[1] != others.shape[1]:
        raise OptionError(
            f"features of {tuple(points.shape)} and {tuple(others.shape)} do not compare; use one extractor for both"
        )
    if not len(others):
        raise OptionError("there are no images to search for neighbours; give some")
    # About their common centre: what the matrix product rounds off grows with the length of the vectors.
    centre = others.double().mean(0)
    others = others.double() - centre
    for block in torch.split(points, max(1, BLOCK // len(others))):
        yield torch.cdist(block.double() - centre, others, compute_mode="use_mm_for_euclid_dist")


def nearest(fake: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For each of (N, D) its nearest among (M, D): float64 (N,) Euclidean distances, int64 (N,) rows of ``train``.

    The distance to an equal vector is exactly 0. Both come back on the device of ``fake``.
    """
    if not len(fake):
        return fake.new_zeros(0, dtype=torch.float64), fake.new_zeros(0, dtype=torch.int64)
    rows = torch.cat([block.argmin(1) for block in distance_blocks(fake, train)])
    return (fake.double() - train[rows].double()).norm(dim=1), rows


def radii(vectors: Tensor, k: int) -> Tensor:
    """Distance from each of (N, D) to its k-th nearest other: float64 (N,). Raises OptionError where N <= k."""
    if len(vectors) <= k:
        raise OptionError(f"{len(vectors)} images have no {k}-th nearest other; give at least {k + 1}")
    # Itself is the nearest of all.
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in distance_blocks(vectors, vectors)])
