"""Intervals for numbers that come from a sample. Light: what deals out tensors imports torch only when called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: The two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054


def student95(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t, by Abramowitz & Stegun 26.7.5: within 0.1 % from 6 degrees on."""
    z, v = Z95, freedom
    return z + (
        (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def shuffled(count: int, seed: int = 0) -> Tensor:
    """The row numbers 0 .. count - 1 in a random order that is always the same; the global stream is left alone.

    Whatever takes a part of a set takes it from these: data may lie sorted by class, and balanced labels repeat.
    """
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def jackknife(
    count: int, value: Callable[[Tensor], float], whole: float, folds: int = 10, *, share: bool = False
) -> tuple[float, float] | None:
    """A 95 % interval around ``whole``, the statistic over all rows, by ``jackknife_error``; None where that is.

    The quantile is Student's, for one degree of freedom less than there are folds. With ``share``, the statistic is a
    mean of values in [0, 1], and the interval ``wilson_of_mean``.
    """
    error = jackknife_error(count, value, folds)
    if error is None:
        return None
    half = student95(folds - 1) * error
    return wilson_of_mean(whole, half / Z95, count) if share else (whole - half, whole + half)


def jackknife_error(count: int, value: Callable[[Tensor], float], folds: int = 10) -> float | None:
    """The standard error of a statistic by the delete-a-fold jackknife (Shao & Wu 1989).

    With g folds and theta_k the value without fold k: se^2 = (g - 1) / g * sum (theta_k - mean theta)^2. It speaks of
    the sampling of the generated images alone, and it assumes that they are independent.

    Args:
        count: how many samples there are.
        value: the statistic over a tensor of row numbers.
        folds: g.

    Returns None where there are too few samples to leave a fold out.
    """
    import torch

    if count < 2 * folds:
        return None
    # In an order of its own: rows that the caller shuffled would fall into folds of equal labels again.
    dealt = shuffled(count, seed=1) % folds
    rows = torch.arange(count)
    left_out = [value(rows[dealt != fold]) for fold in range(folds)]
    mean = math.fsum(left_out) / folds
    return math.sqrt((folds - 1) / folds * math.fsum((v - mean) ** 2 for v in left_out))


def wilson(hits: float, count: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927): sound near 0 and 1, where the plain one is not."""
    share, z2 = hits / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def wilson_of_mean(share: float, error: float, count: float) -> tuple[float, float]:
    """The 95 % Wilson interval of a mean of values in [0, 1], from its standard error.

    It is that of a share of as many draws as would have that error (Korn & Graubard 1998), so never beyond 0 or 1. At
    both of these no number of draws has an error, and it is that of ``count``.
    """
    variance = share * (1 - share)
    draws = variance / error**2 if variance and error else count
    return wilson(share * draws, draws)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median, free of the distribution: from order statistics (Conover 1999, section 3.2).

    Fewer than six values hold no such interval; theirs is their range.
    """
    ordered = sorted(values)
    low, high = median_ranks(len(values))
    return ordered[low], ordered[high]


def median_ranks(count: int, confidence: float = 0.95) -> tuple[int, int]:
    """Places in a sorted sample of the narrowest symmetric interval that holds the median with that confidence.

    The number of values below the median is binomial with a half, whatever the distribution.
    """
    below = 0.0
    place = 0
    while place < (count - 1) // 2:
        below += math.comb(count, place) / 2**count
        if 2 * below > 1 - confidence:
            break
        place += 1
    low = max(place - 1, 0)
    return low, count - 1 - low


def binomial_cdf(hits: int, count: int, share: float) -> float:
    """P(X <= hits) for X of ``count`` draws that each hit with probability ``share``, 0 < share < 1."""
    import torch

    k = torch.arange(hits + 1, dtype=torch.float64)
    n = torch.tensor(float(count), dtype=torch.float64)
    choices = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(1.0, float((choices + k * math.log(share) + (n - k) * math.log1p(-share)).exp().sum()))
