"""Metrics against torchmetrics, prdc, scipy and distributions whose answer is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from genzoo.errors import OptionError
from genzoo.metric import Features
from genzoo.registry import default_zoo
from genzoo.uncertainty import jackknife, wilson


def metric(name: str):  # type: ignore[no-untyped-def]
    return default_zoo().make("metric", name)


def cloud(n: int, d: int = 6, shift: float = 0.0, scale: float = 1.0, seed: int = 0) -> Features:
    stream = torch.Generator().manual_seed(seed)
    return Features(torch.randn(n, d, generator=stream) * scale + shift)


def test_frechet_between_known_gaussians() -> None:
    """Means 2 apart and spreads 1 and 3 in each of d dimensions: d (4 + (3 - 1)^2)."""
    estimate = metric("frechet")(cloud(60_000, shift=2.0, scale=3.0), cloud(60_000, seed=1))
    assert estimate.value == pytest.approx(6 * (4 + 4), rel=0.02)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 60_000


def test_frechet_equals_scipy() -> None:
    from scipy.linalg import sqrtm

    a, b = cloud(300, seed=2).vectors.double(), (cloud(400, seed=3).vectors @ torch.randn(6, 6)).double()
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = np.real(sqrtm(ca @ cb))
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(ca + cb - 2 * root)
    assert metric("frechet").value(a, b) == pytest.approx(expected, rel=1e-6)


def test_kernel_equals_the_double_sum() -> None:
    a, b = cloud(60, seed=4).vectors.double(), cloud(60, shift=0.5, seed=5).vectors.double()

    def k(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    within = (k(a, a).sum() - k(a, a).trace() + k(b, b).sum() - k(b, b).trace()) / (n * (n - 1))
    assert metric("kernel").value(a, b) == pytest.approx(float(within - 2 * k(a, b).mean()), rel=1e-5)


def test_kernel_is_unbiased_and_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    values = [metric("kernel").value(cloud(100, seed=i).vectors, cloud(100, seed=100 + i).vectors) for i in range(30)]
    assert torch.equal(before, torch.get_rng_state())
    mean, error = np.mean(values), np.std(values) / math.sqrt(30)
    assert abs(mean) < 4 * error


@pytest.mark.parametrize(("n", "shift"), [(50, 0.0), (80, 0.4), (120, 1.0)])
def test_manifold_metrics_equal_prdc(n: int, shift: float) -> None:
    prdc = pytest.importorskip("prdc")
    fake, real = cloud(n, shift=shift, seed=6), cloud(n, seed=7)
    expected = prdc.compute_prdc(real.vectors.numpy(), fake.vectors.numpy(), nearest_k=5)
    for name in ("precision", "recall", "density", "coverage"):
        assert metric(name)(fake, real).value == pytest.approx(expected[name], abs=1e-9), name


def test_dropped_modes_cost_recall_and_coverage_but_not_precision() -> None:
    centres = torch.eye(6) * 50
    real = Features(torch.cat([cloud(40, seed=i).vectors + centres[i] for i in range(4)]))
    half = Features(torch.cat([cloud(80, seed=10 + i).vectors + centres[i] for i in range(2)]))
    assert metric("precision")(half, real).value > 0.9
    assert metric("recall")(half, real).value <= 0.5
    assert metric("coverage")(half, real).value <= 0.5


def test_equal_sets_are_at_distance_zero() -> None:
    same = cloud(200, seed=8)
    assert metric("frechet").value(same.vectors, same.vectors) == pytest.approx(0, abs=1e-6)
    for name in ("precision", "recall", "coverage"):
        assert metric(name)(same, same).value == 1


def test_label_accuracy_and_where_it_does_not_apply() -> None:
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 3] * 5)]
    labels = torch.tensor([0, 1, 2, 0] * 5)
    seen = Features(torch.zeros(20, 2), logits, labels)
    estimate = metric("label-accuracy")(seen, seen)
    assert estimate.value == 75
    assert estimate.low < 75 < estimate.high
    assert metric("label-accuracy")(Features(torch.zeros(20, 2), logits), seen) is None


def test_wilson_interval_is_sound_at_the_ends() -> None:
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20) == (pytest.approx(0.8389, abs=1e-4), 1.0)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = cloud(1000, d=1, seed=9).vectors[:, 0].double()
    low, high = jackknife(1000, lambda rows: float(values[rows].mean()), float(values.mean()), folds=1000 // 4)
    assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()) / math.sqrt(1000), rel=0.15)
    assert jackknife(10, lambda rows: 0.0, 0.0) is None


def test_too_few_images_say_what_to_do() -> None:
    with pytest.raises(OptionError, match="larger -n"):
        metric("precision")(cloud(8), cloud(100))
    with pytest.raises(OptionError, match="larger -n"):
        metric("frechet")(cloud(1), cloud(100))


def test_the_shipped_classifier_reaches_what_its_card_says() -> None:
    """At least 92 % of the test split, from the logits that ship; and the features are those of the shipped weights."""
    extractor = default_zoo().make("extractor", "fashion-classifier")
    reference = extractor.reference("fashion-mnist", "test")
    assert len(reference) == 10_000
    assert float((reference.logits.argmax(1) == reference.labels).float().mean()) >= 0.92
    assert len(extractor.reference("fashion-mnist", "train")) == 10_000
    assert extractor.reference("cats", "test") is None
    assert len(extractor.digest) == 64


def test_shipped_features_are_the_classifier_s() -> None:
    from genzoo.errors import DataError

    try:
        images = default_zoo().make("dataset", "fashion-mnist").load("test")
    except DataError:
        pytest.skip("Fashion-MNIST is not installed")
    extractor = default_zoo().make("extractor", "fashion-classifier")
    seen, shipped = extractor.over(images.floats(slice(0, 200))), extractor.reference("fashion-mnist", "test")
    assert torch.equal(images.labels, shipped.labels)
    assert torch.allclose(seen.vectors, shipped.vectors[:200], atol=2e-3, rtol=2e-3)
