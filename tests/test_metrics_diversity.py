"""Metrics of diversity, classes and copying, on samples whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genzoo.metric import Estimate, Features, Reference
from genzoo.registry import default_zoo


def metric(name: str):  # type: ignore[no-untyped-def]
    return default_zoo().make("metric", name)


def normal(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def shown(classes: torch.Tensor, count: int) -> Features:
    """Images that are recognised as these classes."""
    return Features(torch.zeros(len(classes), 2), torch.nn.functional.one_hot(classes, count).float())


def drawn(shares: list[float], n: int, seed: int = 0) -> Features:
    """n images of classes drawn with these shares."""
    stream = torch.Generator().manual_seed(seed)
    return shown(torch.multinomial(torch.tensor(shares), n, replacement=True, generator=stream), len(shares))


def held(estimates: list[Estimate], truth: float) -> float:
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates) / len(estimates)


EVEN = shown(torch.arange(10_000) % 10, 10)


# -- classes -----------------------------------------------------------------------------------------------------------


def test_effective_classes_of_known_shares() -> None:
    """Half of the classes, alike: 50 %; scipy's entropy where they are uneven."""
    assert metric("class-entropy")(shown(torch.arange(5000) % 5, 10), EVEN).value == pytest.approx(50, rel=1e-3)
    assert metric("class-entropy")(EVEN, EVEN).value == pytest.approx(100)
    shares = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0, 0, 0, 0]
    uneven = shown(torch.repeat_interleave(torch.arange(10), (torch.tensor(shares) * 20_000).round().long()), 10)
    estimate = metric("class-entropy")(uneven, EVEN)
    assert estimate.value == pytest.approx(100 * math.exp(stats.entropy(shares)) / 10, rel=1e-3)
    assert estimate.by_class == pytest.approx([100 * share for share in shares])


def test_effective_classes_are_hardly_biased_and_the_interval_holds_them() -> None:
    shares = [0.2] * 3 + [0.1] * 2 + [0.04] * 5
    truth = 10 * math.exp(stats.entropy(shares))
    estimates = [metric("class-entropy")(drawn(shares, 150, seed), EVEN) for seed in range(60)]
    values = [estimate.value for estimate in estimates]
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / math.sqrt(60) + 0.3)
    assert held(estimates, truth) >= 0.85


def test_dropped_classes_are_counted() -> None:
    estimate = metric("dropped-classes")(shown(torch.arange(1000) % 7, 10), EVEN)
    assert (estimate.value, estimate.low, estimate.high) == (3, 3, 3)
    assert estimate.by_class == (0,) * 7 + (1,) * 3
    assert metric("dropped-classes")(EVEN, EVEN).value == 0


def test_a_class_at_the_bound_is_not_called_dropped() -> None:
    """At 10 % of its share it is called so in at most 2.5 % of all cases; but the interval says that it might be."""
    shares = [0.11] * 9 + [0.01]
    estimates = [metric("dropped-classes")(drawn(shares, 1000, seed), EVEN) for seed in range(200)]
    assert sum(estimate.value for estimate in estimates) <= 10
    assert sum(estimate.high for estimate in estimates) >= 190


def test_too_few_images_cannot_tell_what_was_dropped() -> None:
    assert metric("dropped-classes")(shown(torch.arange(100) % 5, 10), EVEN) is None
    # What the data hardly has cannot be missed.
    rare = shown(torch.cat([torch.arange(9000) % 9, torch.tensor([9])]), 10)
    estimate = metric("dropped-classes")(shown(torch.arange(1000) % 9, 10), rare)
    assert (estimate.value, estimate.high) == (0, 1)


def test_without_logits_there_are_no_classes() -> None:
    blind = Features(normal(100))
    for name in ("class-entropy", "dropped-classes", "class-diversity"):
        assert metric(name)(blind, EVEN) is None
        assert metric(name)(EVEN, blind) is None


# -- diversity ---------------------------------------------------------------------------------------------------------


def classed(n: int, spreads: list[float], seed: int) -> Features:
    """Images of each class around a centre of its own, in turn, with these spreads."""
    labels = torch.arange(n) % len(spreads)
    vectors = normal(n, 6, seed) * torch.tensor(spreads)[labels, None] + 100 * torch.eye(6)[labels]
    return Features(vectors, torch.nn.functional.one_hot(labels, len(spreads)).float(), labels)


def test_diversity_within_a_class_is_the_ratio_of_spreads() -> None:
    real = classed(3000, [1.0, 2.0, 3.0], seed=1)
    estimate = metric("class-diversity")(classed(3000, [0.5, 2.0, 0.0], seed=2), real)
    assert estimate.by_class == pytest.approx([50, 100, 0], abs=3)
    assert estimate.value == pytest.approx(50, abs=2)
    assert metric("class-diversity")(real, real).value == pytest.approx(100)


def test_diversity_within_a_class_equals_scipy() -> None:
    from scipy.spatial.distance import pdist

    fake, real = classed(30, [1.0, 1.0], seed=3), classed(40, [1.0, 1.0], seed=4)
    ratios = [
        100 * pdist(fake.vectors[c::2].double()).mean() / pdist(real.vectors[c::2].double()).mean() for c in range(2)
    ]
    assert metric("class-diversity")(fake, real).by_class == pytest.approx(ratios, rel=1e-6)


def test_the_recognised_class_stands_in_where_none_was_asked() -> None:
    fake, real = classed(300, [0.5, 1.0], seed=5), classed(3000, [1.0, 1.0], seed=6)
    unasked = Features(fake.vectors, fake.logits)
    assert metric("class-diversity")(unasked, real) == metric("class-diversity")(fake, real)
    # A class with fewer than two images has no distance.
    lonely = metric("class-diversity")(unasked[::2], real)
    assert lonely.by_class[1] is None
    assert lonely.value == lonely.by_class[0]


def test_the_interval_of_diversity_holds_the_truth() -> None:
    real = classed(3000, [1.0, 1.0, 1.0], seed=7)
    estimates = [metric("class-diversity")(classed(90, [0.8, 1.0, 1.2], seed), real) for seed in range(100, 160)]
    assert held(estimates, 100) >= 0.85


@pytest.mark.parametrize(("n", "d"), [(40, 7), (7, 40)])
def test_vendi_is_its_definition(n: int, d: int) -> None:
    """exp of the von Neumann entropy of the n x n matrix of cosines, by numpy and scipy, however it is computed."""
    vectors = normal(n, d, seed=8).double()
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    expected = math.exp(stats.entropy(np.clip(np.linalg.eigvalsh(unit @ unit.T / n), 0, None)))
    assert metric("vendi")(Features(vectors), EVEN).value == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 12), st.integers(1, 5))
def test_vendi_counts_different_images(kinds: int, each: int) -> None:
    vectors = torch.eye(12)[torch.arange(kinds).repeat_interleave(each)] * 3
    assert metric("vendi")(Features(vectors), EVEN).value == pytest.approx(kinds)


# -- copying -----------------------------------------------------------------------------------------------------------


def searched(seed: int, n: int = 500) -> Reference:
    """Training and held-out images of one distribution."""
    return Reference(normal(n, seed=seed), train=Features(normal(n, seed=seed + 1)))


def test_new_images_are_no_copies() -> None:
    """Neither good ones, nor ones that keep to the middle, nor collapsed ones: the interval holds 0."""
    for spread, centre in ((1.0, 0.0), (0.3, 0.0), (0.05, 2.0)):
        found = [
            metric("copying")(Features(normal(100, seed=10 * seed) * spread + centre), searched(10 * seed + 1))
            for seed in range(60)
        ]
        assert held(found, 0) >= 0.85, spread


def test_copies_are_found() -> None:
    reference = searched(3)
    copies = reference.train.vectors[:200]  # type: ignore[union-attr]
    estimate = metric("copying")(Features(copies), reference)
    assert (estimate.value, estimate.high) == (100, 100)
    assert 90 < estimate.low < 100
    # With a little noise as well; and of new images with a fifth of copies.
    assert metric("copying")(Features(copies + 1e-3 * normal(200, seed=1)), reference).value > 98
    mixed = torch.cat([copies[:100], normal(400, seed=9)])
    assert metric("copying")(Features(mixed), reference).value == pytest.approx(20, abs=12)


def test_held_out_images_are_the_opposite_of_copies() -> None:
    reference = searched(4)
    assert metric("copying")(reference, reference).value == 0
    # In both: neither.
    both = Reference(reference.vectors, train=Features(reference.vectors))
    assert metric("copying")(reference, both).value == 0


def test_without_training_images_nothing_is_said() -> None:
    assert metric("copying")(Features(normal(50)), Features(normal(50))) is None
    assert metric("copying")(Features(normal(50)), Reference(normal(50))) is None
