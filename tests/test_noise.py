"""One random stream per seed, and the numbers that torch gives for that seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.errors import OptionError
from genzoo.noise import Noise, check_seeds

SEEDS = st.integers(0, 2**32 - 1)


def torch_stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Fewer than 16 numbers take another path through torch's generator than more do, and odd counts another again.
@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (1, 3, 5), (1, 4, 4), (3, 8, 8), (3, 7, 5), (100,)])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_draws_are_those_of_torch(shape: tuple[int, ...], seed: int) -> None:
    noise, stream = Noise([7, seed, seed]), torch_stream(seed)
    for _ in range(3):
        expected = torch.randn(1, *shape, generator=stream)
        drawn = noise.normal(*shape)
        assert torch.equal(drawn[1:2], expected)
        assert torch.equal(drawn[2:3], expected)


@given(seeds=st.lists(SEEDS, min_size=1, max_size=6), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_row_depends_on_its_seed_alone(seeds: list[int], data: Any) -> None:
    batch = Noise(seeds)
    first, second = batch.normal(2, 3, 3), batch.normal(5)
    row = data.draw(st.integers(0, len(seeds) - 1))
    alone = Noise([seeds[row]])
    assert torch.equal(alone.normal(2, 3, 3)[0], first[row])
    assert torch.equal(alone.normal(5)[0], second[row])


def test_the_global_stream_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise = Noise([3, 4])
    first = noise.start(1, 4, 4), noise.normal(6), noise.choose(10, "labels")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = Noise([3, 4])
    second = again.start(1, 4, 4), again.normal(6), again.choose(10, "labels")
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2]


def test_numbers_are_drawn_in_float32_whatever_is_asked_for() -> None:
    plain = Noise([5]).normal(3, 4, 4)
    assert plain.dtype == torch.float32
    assert torch.equal(Noise([5], dtype=torch.float64).normal(3, 4, 4), plain.double())
    assert torch.equal(Noise([5], dtype=torch.bfloat16).normal(3, 4, 4), plain.bfloat16())
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Noise([5], dtype=torch.float32).normal(3, 4, 4), plain)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "seed",
    [
        -1,
        2**32,
        2**64,
        True,
        False,
        1.0,
        1.5,
        float("nan"),
        "1",
        None,
        torch.tensor(1.5),
        np.float32(1),
        np.bool_(True),
    ],
)
def test_refused_seeds(seed: Any) -> None:
    with pytest.raises(OptionError, match="seed") as caught:
        Noise([0, seed])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_integers_of_other_libraries_are_seeds(seed: Any) -> None:
    assert check_seeds([seed]) == (int(seed),)
    assert type(check_seeds([seed])[0]) is int


def test_why_larger_seeds_are_refused() -> None:
    assert torch.equal(torch.randn(4, generator=torch_stream(9)), torch.randn(4, generator=torch_stream(9 + 2**32)))


def test_initial_noise_replaces_the_first_draw_and_the_streams_advance() -> None:
    given_noise = torch.full((2, 1, 4, 4), 0.25)
    plain, replaced = Noise([1, 2]), Noise([1, 2], initial=given_noise)
    assert torch.equal(plain.start(1, 4, 4), Noise([1, 2]).normal(1, 4, 4))
    assert torch.equal(replaced.start(1, 4, 4), given_noise)
    assert torch.equal(replaced.normal(1, 4, 4), plain.normal(1, 4, 4))
    assert Noise([1, 2], initial=given_noise, dtype=torch.float64).start(1, 4, 4).dtype == torch.float64


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 1, 4, 5), (2, 16), (1, 4, 4)])
def test_initial_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"needs \(2, 1, 4, 4\)"):
        Noise([1, 2], initial=torch.zeros(shape)).start(1, 4, 4)


def test_choices_have_streams_of_their_own() -> None:
    noise, plain = Noise([1, 2]), Noise([1, 2])
    chosen = noise.choose(10, "labels")
    assert noise.choose(10, "labels") == chosen, "asking twice gives the same"
    assert torch.equal(noise.normal(8), plain.normal(8)), "the pixels' streams did not move"
    assert Noise([2]).choose(10, "labels") == chosen[1:], "a choice depends on its own seed"
    many = Noise(range(300))
    assert many.choose(10, "labels") != many.choose(10, "something else")


def test_choices_are_even() -> None:
    chosen = Noise(range(2000)).choose(10, "labels")
    counts = np.bincount(chosen, minlength=10)
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


def test_no_seeds_is_no_noise() -> None:
    assert Noise([]).normal(1, 4, 4).shape == (0, 1, 4, 4)
