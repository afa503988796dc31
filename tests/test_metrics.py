"""Metrics against torchmetrics, prdc, scipy and distributions whose answer is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from genzoo.errors import OptionError
from genzoo.metric import Features, Reference
from genzoo.registry import default_zoo


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


class AsIs(torch.nn.Module):
    """Vectors in place of images: torchmetrics asks a network for features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors


@pytest.mark.parametrize("width", [3, 40])
def test_distances_equal_torchmetrics(width: int) -> None:
    """Also with fewer images than dimensions, where the covariance is singular."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    fake, real = cloud(30, width, shift=0.3, seed=20).vectors.double(), cloud(30, width, seed=21).vectors.double()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*extracted features in buffer", category=UserWarning)
        kernel = KernelInceptionDistance(feature=AsIs(width), subsets=1, subset_size=30)
    frechet = FrechetInceptionDistance(feature=AsIs(width))
    for theirs in (kernel, frechet):
        theirs.update(real, real=True)
        theirs.update(fake, real=False)
    assert metric("kernel").value(fake, real) == pytest.approx(float(kernel.compute()[0]), rel=1e-9)
    # Theirs takes square roots of the eigenvalues of a product that is not symmetric: those near 0 are off by 1e-8.
    assert metric("frechet").value(fake, real) == pytest.approx(float(frechet.compute()), rel=1e-5)


def test_kernel_equals_the_double_sum() -> None:
    a, b = cloud(60, seed=4).vectors.double(), cloud(60, shift=0.5, seed=5).vectors.double()

    def k(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    within = (k(a, a).sum() - k(a, a).trace() + k(b, b).sum() - k(b, b).trace()) / (n * (n - 1))
    assert metric("kernel").value(a, b) == pytest.approx(float(within - 2 * k(a, b).mean()), rel=1e-5)


def test_kernel_takes_all_images_of_either_kind() -> None:
    """Blocks leave the value where it was, within its own error, and the mean of small blocks is exact."""
    fake, real = cloud(90, shift=0.5, seed=4), cloud(600, seed=5)
    whole, parts = metric("kernel")(fake, real), metric("kernel:block=30")(fake, real)
    assert parts.low < whole.value < parts.high
    assert parts.value != whole.value
    # Reordering changes the pairs, but a set that lies sorted is no set of its own.
    order = real.vectors[:, 0].argsort()
    assert metric("kernel:block=30")(fake, real[order]).value == pytest.approx(parts.value, abs=parts.high - parts.low)


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


def gaussians(fakes: int, reals: int, seed: int) -> tuple[Features, Features, float]:
    """Draws of two normal distributions, 6 wide, and the squared Frechet distance between them."""
    return cloud(fakes, shift=0.5, scale=1.3, seed=2 * seed), cloud(reals, seed=2 * seed + 1), 6 * (0.25 + 0.09)


def test_frechet_at_infinity_is_unbiased_where_frechet_is_not() -> None:
    plain, extended = [], []
    for seed in range(60):
        fake, real, truth = gaussians(60, 90, seed)
        plain.append(metric("frechet").value(fake.vectors, real.vectors) - truth)
        extended.append(metric("frechet-infinity")(fake, real).value - truth)
    error = np.std(extended) / math.sqrt(60)
    assert np.mean(plain) > 4 * error
    assert abs(np.mean(extended)) < 3 * error


def test_frechet_at_infinity_of_the_data_s_own_distribution_is_zero() -> None:
    values = [metric("frechet-infinity")(cloud(200, seed=i), cloud(400, seed=900 + i)).value for i in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(30)
    assert min(values) < 0


def test_frechet_at_infinity_wants_enough_images() -> None:
    assert metric("frechet-infinity")(cloud(29), cloud(400)) is None
    assert metric("frechet-infinity")(cloud(400), cloud(29)) is None
    assert metric("frechet-infinity")(cloud(30), cloud(400)) is not None


def test_data_that_lies_sorted_changes_nothing() -> None:
    """A reference sorted by class, and labels in turn, must not make parts of one class each."""
    centres = torch.arange(4.0)[:, None] * 20
    real = Features(torch.cat([cloud(300, seed=i).vectors + centre for i, centre in enumerate(centres)]))
    fake = Features(torch.stack([cloud(100, seed=9 + i).vectors + c for i, c in enumerate(centres)], 1).flatten(0, 1))
    # The spread of the features is 3,000; parts of one class would be that far apart.
    assert abs(metric("frechet-infinity")(fake, real).value) < 60
    assert metric("coverage")(fake, real).value > 0.9


def moments(shift: float, scale: float, width: int) -> list[torch.Tensor]:
    """E x_i, E x_i x_j and E x_i x_j x_k of a normal distribution, each coordinate alike."""
    mean, eye = torch.full((width,), shift), torch.eye(width) * scale**2
    mixed = torch.einsum("i,jk->ijk", mean, eye)
    square = torch.outer(mean, mean) + eye
    return [
        mean,
        square,
        torch.einsum("i,j,k->ijk", mean, mean, mean) + mixed + mixed.permute(1, 0, 2) + mixed.permute(2, 1, 0),
    ]


def kernel_truth(shift: float, scale: float, width: int) -> float:
    """MMD^2 of N(0, I) and N(m, s^2 I) with (x.y / D + 1)^3: sum_i C(3, i) |E x^i - E y^i|^2 / D^i."""
    pairs = zip(moments(shift, scale, width), moments(0, 1, width), strict=True)
    return sum(math.comb(3, i) * float((x - y).square().sum()) / width**i for i, (x, y) in enumerate(pairs, start=1))


@pytest.mark.parametrize("name", ["frechet-infinity", "kernel"])
def test_intervals_hold_the_truth(name: str) -> None:
    """Of 60 that are meant to in 95 % of all cases, 85 to 100 % do: fewer would be one chance in 1,000."""
    held = 0
    for seed in range(60):
        fake, real, truth = gaussians(150, 2000, seed)
        estimate = metric(name)(fake, real)
        held += estimate.low <= (kernel_truth(0.5, 1.3, 6) if name == "kernel" else truth) <= estimate.high
    assert held >= 51


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
    assert estimate.by_class == (50.0, 100.0, 100.0, None)
    assert estimate.low < 75 < estimate.high
    assert metric("label-accuracy")(Features(torch.zeros(20, 2), logits), seen) is None


def test_too_few_images_say_what_to_do() -> None:
    with pytest.raises(OptionError, match="larger -n"):
        metric("precision")(cloud(8), cloud(100))
    with pytest.raises(OptionError, match="larger -n"):
        metric("frechet")(cloud(1), cloud(100))


def fashion(n: int) -> tuple[Features, Reference]:
    """Shipped features: training images, and the reference with those training images that are not among them."""
    extractor = default_zoo().make("extractor", "fashion-classifier")
    test, train = (extractor.reference("fashion-mnist", split) for split in ("test", "train"))
    return train[:n], Reference(test.vectors, test.logits, test.labels, train=train[n:])


def test_every_metric_of_real_images() -> None:
    """The value lies in its interval, which real images reach; the global stream is left alone."""
    fake, reference = fashion(1000)
    before = torch.get_rng_state()
    estimates = {}
    for kind, name in default_zoo().entries:
        if kind == "metric":
            estimate = estimates[name] = metric(name)(fake, reference)
            assert estimate.low <= estimate.value <= estimate.high, name
            assert estimate.n == 1000
            assert len(estimate.by_class) in (0, 10), name
    assert torch.equal(before, torch.get_rng_state())
    perfect = {"class-entropy": 100, "copying": 0, "dropped-classes": 0, "frechet-infinity": 0, "kernel": 0}
    for name, value in perfect.items():
        assert estimates[name].low <= value <= estimates[name].high, name


def test_twenty_images_and_a_plain_reference_break_no_metric() -> None:
    fake, reference = fashion(20)
    plain = Features(reference.vectors, reference.logits, reference.labels)
    found = {name: metric(name)(fake, plain) for kind, name in default_zoo().entries if kind == "metric"}
    assert {name for name, estimate in found.items() if estimate is None} == {
        "frechet-infinity",
        "dropped-classes",
        "copying",
    }


def test_the_shipped_classifier_reaches_what_its_card_says() -> None:
    """At least 92 % of the test split, from the logits that ship; and the features are those of the shipped weights."""
    extractor = default_zoo().make("extractor", "fashion-classifier")
    reference = extractor.reference("fashion-mnist", "test")
    assert len(reference) == 10_000
    assert float((reference.logits.argmax(1) == reference.labels).float().mean()) >= 0.92
    assert len(extractor.reference("fashion-mnist", "train")) == 10_000
    assert extractor.reference("cats", "test") is None
    assert len(extractor.digest) == 64


def test_the_shipped_classifier_says_that_it_takes_grey_images() -> None:
    extractor = default_zoo().make("extractor", "fashion-classifier")
    with pytest.raises(OptionError, match="grey images, not at 3 channels"):
        extractor.over(torch.zeros(2, 3, 32, 32))


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
