"""Noise schedules: the forward process, and the tables against diffusers'."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar, rescale_zero_terminal_snr
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genzoo.errors import OptionError
from genzoo.schedule import DiscreteSchedule, FlowSchedule, ScheduleConfig, zero_terminal_snr

NAMES = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}

CONFIGS = [
    ScheduleConfig(),
    ScheduleConfig(kind="linear", steps=50, beta_start=1e-3, beta_end=0.3),
    ScheduleConfig(kind="scaled-linear", beta_start=0.00085, beta_end=0.012),
    ScheduleConfig(kind="cosine"),
    ScheduleConfig(kind="cosine", steps=17),
    ScheduleConfig(kind="cosine", zero_terminal_snr=True),
    ScheduleConfig(zero_terminal_snr=True),
    ScheduleConfig(kind="scaled-linear", beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True),
]


def theirs(config: ScheduleConfig) -> DDPMScheduler:
    return DDPMScheduler(
        config.steps,
        config.beta_start,
        config.beta_end,
        NAMES[config.kind],
        rescale_betas_zero_snr=config.zero_terminal_snr,
    )


def betas_of(abar: torch.Tensor) -> torch.Tensor:
    """beta_t = 1 - abar_t / abar_(t-1), with abar_0 = 1."""
    return 1 - abar / torch.cat([torch.ones(1, dtype=abar.dtype), abar[:-1]])


# -- the forward process ---------------------------------------------------------------------------------------------


def test_forward_process_of_a_worked_example() -> None:
    one = torch.ones(1, 1, 1, 1)
    noisy = DiscreteSchedule([0.4]).add_noise(one, 0.5 * one, 1)
    assert float(noisy) == pytest.approx(math.sqrt(0.4) + 0.5 * math.sqrt(0.6), abs=1e-7)
    assert float(noisy) == pytest.approx(1.0198, abs=5e-5)


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_forward_process_is_diffusers(config: ScheduleConfig) -> None:
    stream = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 8, 3, 4, 4, generator=stream)
    timesteps = torch.randint(config.steps, (8,), generator=stream)
    timesteps[:2] = torch.tensor([0, config.steps - 1])
    expected = theirs(config).add_noise(x0, eps, timesteps)
    torch.testing.assert_close(config.build().add_noise(x0, eps, timesteps + 1), expected, rtol=0, atol=2e-5)


def test_forward_process_at_one_time_or_many() -> None:
    schedule = ScheduleConfig().build()
    x0, eps = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = schedule.add_noise(x0, eps, torch.tensor([1.0, 400.5, 1000.0]))
    for i, t in enumerate((1.0, 400.5, 1000.0)):
        assert torch.equal(schedule.add_noise(x0, eps, t)[i], together[i])
        alpha, sigma = schedule.level(t)
        torch.testing.assert_close(together[i], alpha * x0[i] + sigma * eps[i], rtol=1e-15, atol=1e-15)
    assert torch.equal(schedule.add_noise(x0, eps, 0), x0)
    assert schedule.add_noise(x0.bfloat16(), eps.bfloat16(), 3).dtype == torch.bfloat16


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_forward_process_has_the_moments_it_says(t: int) -> None:
    schedule, count = ScheduleConfig().build(), 200_000
    eps = torch.randn(count, 1, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    noisy = schedule.add_noise(torch.full_like(eps, 0.8), eps, t)
    alpha, sigma = schedule.level(t)
    assert float(noisy.mean()) == pytest.approx(0.8 * alpha, abs=4 * sigma / count**0.5)
    assert float(noisy.std()) == pytest.approx(sigma, rel=4 / (2 * count) ** 0.5)


# -- the tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_tables_are_diffusers(config: ScheduleConfig) -> None:
    expected = theirs(config)
    assert config.table.dtype == torch.float64
    assert len(config.table) == config.steps
    # Theirs are float32: a beta near 1e-4 is 1 minus a number rounded to 6e-8, and abar is a product of many.
    torch.testing.assert_close(config.table, expected.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(betas_of(config.table), expected.betas.double(), rtol=1e-3, atol=2e-7)


def test_linear_betas_are_even() -> None:
    betas = betas_of(ScheduleConfig(beta_start=1e-4, beta_end=0.02, steps=1000).table)
    expected = torch.tensor([1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)], dtype=torch.float64)
    torch.testing.assert_close(betas, expected, rtol=1e-10, atol=0)


def test_scaled_linear_betas_have_even_roots() -> None:
    betas = betas_of(ScheduleConfig(kind="scaled-linear", beta_start=0.00085, beta_end=0.012, steps=1000).table)
    steps = betas.sqrt().diff()
    torch.testing.assert_close(steps, steps.mean().expand(999), rtol=1e-7, atol=0)
    assert float(betas[0]) == pytest.approx(0.00085, rel=1e-10)
    assert float(betas[-1]) == pytest.approx(0.012, rel=1e-10)


@pytest.mark.parametrize("steps", [1, 4, 17, 1000])
def test_cosine_betas_are_those_of_the_formula(steps: int) -> None:
    betas = betas_of(ScheduleConfig(kind="cosine", steps=steps).table)
    expected = betas_for_alpha_bar(steps).double()
    # float32 keeps 24 bits of each.
    torch.testing.assert_close(betas, expected, rtol=2**-23, atol=1e-12)
    assert float(betas[-1]) == pytest.approx(0.999, rel=1e-12), "the last is capped"


@pytest.mark.parametrize("kind", ["linear", "scaled-linear", "cosine"])
def test_zero_terminal_snr_is_diffusers_in_float64(kind: Any) -> None:
    plain = ScheduleConfig(kind=kind).table
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(betas_of(plain)), 0)
    table = ScheduleConfig(kind=kind, zero_terminal_snr=True).table
    torch.testing.assert_close(table, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(table, zero_terminal_snr(plain), rtol=0, atol=0)
    assert float(table[-1]) == 0
    assert float(table[0]) == pytest.approx(float(plain[0]), rel=1e-14)


def test_listed_betas_are_diffusers() -> None:
    betas = [0.01, 0.3, 0.02, 0.9]
    config = ScheduleConfig(kind="listed", steps=4, betas=betas)
    expected = DDPMScheduler(4, trained_betas=betas).alphas_cumprod.double()
    torch.testing.assert_close(config.table, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(betas_of(config.table), torch.tensor(betas, dtype=torch.float64), rtol=1e-12, atol=0)


# -- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_ends_are_exact(config: ScheduleConfig) -> None:
    schedule = config.build()
    assert schedule.level(0) == (1.0, 0.0)
    alpha, sigma = schedule.level(config.steps)
    if config.zero_terminal_snr:
        assert (alpha, sigma) == (0.0, 1.0), "exactly: 1e-17 would let x_0 = (x - sigma eps) / alpha through"
    else:
        assert alpha**2 == pytest.approx(float(config.table[-1]), rel=1e-9)
        assert 0 < alpha < sigma < 1


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_whole_times_are_the_table(config: ScheduleConfig) -> None:
    alpha, sigma = config.build().levels(torch.arange(1, config.steps + 1))
    assert alpha.dtype == sigma.dtype == torch.float64
    torch.testing.assert_close(alpha, config.table.sqrt(), rtol=0, atol=3e-16)
    torch.testing.assert_close(sigma, (1 - config.table).sqrt(), rtol=0, atol=3e-16)


@given(
    config=st.sampled_from(CONFIGS),
    share=st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_levels_between_whole_times(config: ScheduleConfig, share: list[float]) -> None:
    schedule = config.build()
    times = torch.tensor(sorted(share), dtype=torch.float64) * config.steps
    alpha, sigma = schedule.levels(times)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-15)
    # Times may lie closer together than float64 can tell their levels apart.
    assert bool((alpha.diff() <= 1e-15).all())
    assert bool((sigma.diff() >= -1e-15).all())
    apart = times.diff() > 1e-6
    assert bool((schedule.angle(times).diff()[apart] > 0).all())
    low, high = schedule.levels(times.floor()), schedule.levels(times.ceil())
    assert bool(((high[0] - 1e-15 <= alpha) & (alpha <= low[0] + 1e-15)).all())
    assert bool(((low[1] - 1e-15 <= sigma) & (sigma <= high[1] + 1e-15)).all())


@given(config=st.sampled_from(CONFIGS), share=st.floats(0.001, 0.999))
@settings(max_examples=100, deadline=None)
def test_a_time_is_found_again_by_its_log_snr(config: ScheduleConfig, share: float) -> None:
    schedule = config.build()
    alpha, sigma = schedule.levels(torch.tensor([share * config.steps], dtype=torch.float64))
    (found,) = schedule.times_of_log_snr((alpha / sigma).log())
    assert float(found) == pytest.approx(share * config.steps, rel=1e-9, abs=1e-9)


def test_the_straight_line_of_flow_matching() -> None:
    schedule = FlowSchedule(1000)
    assert schedule.level(0) == (1.0, 0.0)
    assert schedule.level(250) == (0.75, 0.25)
    assert schedule.level(1000) == (0.0, 1.0)
    assert schedule.timestep(250.0) == 250
    with pytest.raises(OptionError, match="outside"):
        schedule.level(1001)


def test_a_flow_schedule_can_be_described() -> None:
    built = ScheduleConfig(kind="flow", steps=500).build()
    assert isinstance(built, FlowSchedule)
    assert built.length == 500
    with pytest.raises(OptionError, match="no table"):
        ScheduleConfig(kind="flow").table  # noqa: B018


def test_levels_keep_the_shape_of_the_times() -> None:
    schedule = ScheduleConfig().build()
    for shape in ((), (0,), (3,), (2, 3)):
        alpha, sigma = schedule.levels(torch.ones(shape, dtype=torch.int64))
        assert alpha.shape == sigma.shape == shape


def test_a_time_is_one_more_than_the_timestep_of_the_network() -> None:
    schedule, expected = ScheduleConfig().build(), DDPMScheduler()
    for timestep in (0, 500, 999):
        alpha, _ = schedule.level(timestep + 1)
        assert alpha**2 == pytest.approx(float(expected.alphas_cumprod[timestep]), rel=1e-4)
        assert schedule.timestep(timestep + 1.0) == timestep
    assert torch.equal(schedule.timestep(torch.tensor([1.0, 7.0])), torch.tensor([0.0, 6.0]))


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [-1, -1e-9, 1000.001, 1e9])
def test_times_outside_are_refused(t: float) -> None:
    with pytest.raises(OptionError, match=r"outside \[0, 1000\]"):
        ScheduleConfig().build().level(t)


@pytest.mark.parametrize(
    "abar",
    [[], [0.5, 0.5], [0.5, 0.6], [1.0], [1.5, 0.5], [0.5, -0.1], [0.5, math.nan], [math.inf], [[0.5], [0.4]], 0.5],
    ids=str,
)
def test_tables_that_do_not_fall_are_refused(abar: Any) -> None:
    with pytest.raises(OptionError, match="falls strictly"):
        DiscreteSchedule(abar)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"kind": "cosin"}, "kind"),
        ({"steps": 0}, "steps"),
        ({"steps": -5}, "steps"),
        ({"steps": 10**9}, "steps"),
        ({"steps": "1000"}, "steps"),
        ({"steps": True}, "steps"),
        ({"beta_start": 0.0}, "beta_start"),
        ({"beta_end": 1.0}, "beta_end"),
        ({"beta_start": math.nan}, "beta_start"),
        ({"beta_start": 0.03}, "beta_start 0.03 is above beta_end 0.02"),
        ({"steps": 1, "zero_terminal_snr": True}, "at least 2 steps"),
        ({"betas": [0.1]}, "betas has 1 numbers"),
        ({"kind": "flow", "zero_terminal_snr": True}, "leave zero_terminal_snr out"),
        ({"kind": "edm", "zero_terminal_snr": True}, "no zero_terminal_snr"),
        ({"kind": "edm", "steps": 1}, "needs 2 steps"),
        ({"kind": "edm", "sigma_min": 80.0}, "sigma_min below sigma_max"),
        ({"kind": "listed", "steps": 2, "betas": [0.1]}, "betas has 1 numbers; kind 'listed' needs 2"),
        ({"kind": "listed", "steps": 1, "betas": [1.0]}, "betas"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        ScheduleConfig(**settings)


# -- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*CONFIGS[:5], ScheduleConfig(kind="flow")], ids=str)
def test_one_time_has_the_levels_that_it_has_among_many_at_every_call(config: ScheduleConfig) -> None:
    schedule = config.build()
    times = torch.cat([torch.arange(config.steps + 1.0), torch.rand(50) * config.steps]).double()
    alphas, sigmas = schedule.levels(times)
    for _ in range(2):
        assert [schedule.level(t) for t in times.tolist()] == [*zip(alphas.tolist(), sigmas.tolist(), strict=True)]
        for log_snr in (-3.0, 0.25):
            wanted = schedule.times_of_log_snr(torch.tensor([log_snr], dtype=torch.float64))
            assert schedule.time_of_log_snr(log_snr) == wanted.item()


def test_schedules_do_not_share_what_is_remembered() -> None:
    one, other = DiscreteSchedule([0.5]), DiscreteSchedule([0.4])
    assert one.level(1.0) != other.level(1.0)
    assert one.level(1.0) == DiscreteSchedule([0.5]).level(1)
    for _ in range(2):
        with pytest.raises(OptionError, match="outside"):
            one.level(2.0)
