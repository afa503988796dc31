"""Nearest neighbours against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from genzoo import neighbours
from genzoo.errors import OptionError
from genzoo.neighbours import distance_blocks, nearest, radii


def cloud(n: int, d: int = 8, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 100)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_nearest_equals_scikit_learn(shift: float) -> None:
    """In blocks of one row or two; far from the origin as well, where a matrix product alone loses its digits."""
    fake, train = cloud(70, shift=shift), cloud(60, shift=shift, seed=1)
    theirs = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train.double().numpy() - shift)
    distances, rows = theirs.kneighbors(fake.double().numpy() - shift)
    mine = nearest(fake, train)
    assert mine[1].tolist() == rows[:, 0].tolist()
    assert torch.allclose(mine[0], torch.from_numpy(distances[:, 0]), rtol=1e-9)
    assert (mine[0].dtype, mine[1].dtype) == (torch.float64, torch.int64)


def test_radii_equal_scikit_learn() -> None:
    points = cloud(50)
    distances, _ = NearestNeighbors(n_neighbors=4).fit(points.double().numpy()).kneighbors(points.double().numpy())
    assert torch.allclose(radii(points, 3), torch.from_numpy(distances[:, 3]), rtol=1e-9)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), st.integers(0, 99))
def test_a_copy_is_at_distance_zero_and_nobody_is_nearer(n: int, m: int, width: int, seed: int) -> None:
    train = cloud(m, width, shift=50.0, seed=seed)
    copies = train[torch.randint(m, (n,), generator=torch.Generator().manual_seed(seed))]
    distances, rows = nearest(copies, train)
    assert torch.equal(distances, torch.zeros(n, dtype=torch.float64))
    assert torch.equal(train[rows], copies)
    others = cloud(n, width, shift=50.0, seed=seed + 100)
    distances, _ = nearest(others, train)
    assert bool((distances[:, None] <= torch.cdist(others.double(), train.double()) + 1e-6).all())


def test_memory_is_bounded_by_blocks() -> None:
    fake, train = cloud(50), cloud(1 << 17, seed=2)
    assert [block.shape[0] for block in distance_blocks(fake, train)] == [32, 18]


def test_nobody_to_be_near() -> None:
    assert [len(part) for part in nearest(cloud(0), cloud(3))] == [0, 0]
    with pytest.raises(OptionError, match="no images to search"):
        nearest(cloud(3), cloud(0))
    with pytest.raises(OptionError, match="one extractor for both"):
        nearest(cloud(3), cloud(3, d=9))
    with pytest.raises(OptionError, match="at least 6"):
        radii(cloud(5), 5)
