"""Intervals for numbers that come from a sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: The two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054


def jackknife(
    count: int, value: Callable[[Tensor], float], whole: float, folds: int = 10
) -> tuple[float, float] | None:
    """A 95 % interval around ``whole`` by the delete-a-fold jackknife (Shao & Wu 1989).

    With g folds and theta_k the value without fold k: se^2 = (g - 1) / g * sum (theta_k - mean theta)^2. It speaks of
    the sampling of the generated images alone, and it assumes that they are independent.

    Args:
        count: how many samples there are.
        value: the statistic over a tensor of row numbers.
        whole: the statistic over all rows.
        folds: g.

    Returns None where there are too few samples to leave a fold out.
    """
    if count < 2 * folds:
        return None
    # Dealt out at random, by a stream of its own: every tenth image of balanced labels would be one class.
    dealt = torch.randperm(count, generator=torch.Generator().manual_seed(0)) % folds
    rows = torch.arange(count)
    left_out = [value(rows[dealt != fold]) for fold in range(folds)]
    mean = math.fsum(left_out) / folds
    error = math.sqrt((folds - 1) / folds * math.fsum((v - mean) ** 2 for v in left_out))
    return whole - Z95 * error, whole + Z95 * error


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927): sound near 0 and 1, where the plain one is not."""
    share, z2 = hits / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)
