"""Intervals against scipy, and against how often they hold the truth."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from genzoo.uncertainty import (
    binomial_cdf,
    jackknife,
    median_interval,
    median_ranks,
    shuffled,
    student95,
    wilson,
    wilson_of_mean,
)


def draws(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("freedom", [6, 9, 30, 1000])
def test_student_equals_scipy(freedom: int) -> None:
    assert student95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize(("hits", "count", "share"), [(0, 1000, 0.01), (3, 1000, 0.01), (40, 50, 0.7), (50, 50, 0.2)])
def test_binomial_equals_scipy(hits: int, count: int, share: float) -> None:
    assert binomial_cdf(hits, count, share) == pytest.approx(stats.binom.cdf(hits, count, share), rel=1e-9)


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_wilson_equals_scipy(hits: int) -> None:
    theirs = stats.binomtest(hits, 20).proportion_ci(0.95, method="wilson")
    assert wilson(hits, 20) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_of_a_mean() -> None:
    """Of a share it is the share's own; of values that spread less it is narrower; of equal ones it stays open."""
    share = 0.3
    assert wilson_of_mean(share, math.sqrt(share * 0.7 / 50), 50) == pytest.approx(wilson(15, 50))
    low, high = wilson_of_mean(share, 0.5 * math.sqrt(share * 0.7 / 50), 50)
    assert wilson(15, 50)[0] < low < share < high < wilson(15, 50)[1]
    assert wilson_of_mean(1.0, 0.0, 50) == wilson(50, 50)
    assert wilson_of_mean(0.0, 0.0, 50) == wilson(0, 50)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = draws(1000, 9)
    low, high = jackknife(1000, lambda rows: float(values[rows].mean()), float(values.mean()), folds=250)
    assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()) / math.sqrt(1000), rel=0.15)
    assert jackknife(10, lambda rows: 0.0, 0.0) is None


def test_jackknife_holds_the_truth() -> None:
    held = 0
    for seed in range(300):
        values = draws(100, seed)
        low, high = jackknife(100, lambda rows, v=values: float(v[rows].mean()), float(values.mean()))
        held += low <= 0.5 <= high
    assert 0.92 <= held / 300 <= 0.98


def test_shuffled_is_a_permutation_that_repeats() -> None:
    before = torch.get_rng_state()
    rows = shuffled(100)
    assert torch.equal(rows.sort().values, torch.arange(100))
    assert torch.equal(rows, shuffled(100))
    assert not torch.equal(rows, torch.arange(100))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("count", [10, 17, 60])
def test_the_interval_of_a_median_holds_it(count: int) -> None:
    """In 95 % of the samples of a skewed distribution, whatever it is: here the median is log 2."""
    stream = torch.Generator().manual_seed(count)
    samples = torch.empty(2000, count).exponential_(generator=stream).tolist()
    held = sum(low <= math.log(2) <= high for low, high in map(median_interval, samples)) / 2000
    assert held >= 0.94
    assert median_interval([3.0, 1.0]) == (1.0, 3.0)


def test_the_interval_of_a_median_is_the_binomials() -> None:
    # The textbook's: for n = 10 the second and the ninth value hold the median with 97.9 %; for 5 no pair with 95 %.
    assert median_ranks(10) == (1, 8)
    assert median_ranks(20) == (5, 14)
    assert median_ranks(5) == (0, 4)
    assert median_ranks(3) == (0, 2)
