"""Grids against diffusers and SciPy, and the schedule's inverse that they rest on."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genzoo.errors import OptionError
from genzoo.grids import Spacing, beta_distribution, beta_quantiles, spaced_times, times
from genzoo.registry import default_zoo
from genzoo.schedule import FlowSchedule, NoiseSchedule, ScheduleConfig
from genzoo.scheduler import Grid, Level
from genzoo_plugins.solvers.euler import Euler
from genzoo_plugins.solvers.multistep import LMS

#: diffusers hands tensors to numpy in a way that numpy will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__) :DeprecationWarning")

SPACINGS: list[Spacing] = ["uniform", "even", "karras", "exponential", "log-snr", "beta", "beta-sigma"]
SCHEDULES: dict[str, NoiseSchedule] = {
    "linear": ScheduleConfig().build(),
    "cosine": ScheduleConfig(kind="cosine").build(),
    "endless": ScheduleConfig(zero_terminal_snr=True).build(),
    "short": ScheduleConfig(steps=20, beta_start=0.01, beta_end=0.5).build(),
    "flow": FlowSchedule(),
    "edm": ScheduleConfig(kind="edm").build(),
    "ratio": ScheduleConfig(between="ratio").build(),
    "log-ratio": ScheduleConfig(kind="cosine", between="log-ratio").build(),
    "nearly endless": ScheduleConfig(
        kind="scaled-linear", zero_terminal_snr=True, terminal=1e-9, between="ratio"
    ).build(),
}
LINEAR = SCHEDULES["linear"]


@given(data=st.data(), name=st.sampled_from(sorted(SCHEDULES)), spacing=st.sampled_from(SPACINGS))
@settings(max_examples=150, deadline=None)
def test_grids_fall_strictly_from_the_noise_to_clean_data(data: Any, name: str, spacing: Spacing) -> None:
    schedule = SCHEDULES[name]
    steps = data.draw(st.integers(1, min(schedule.length, 100)))
    found = times(schedule, steps, spacing, rho=data.draw(st.floats(1, 20)), shift=data.draw(st.floats(0.2, 8)))
    assert len(found) == steps + 1
    assert found[0] == schedule.length
    assert found[-1] == 0
    Grid.of(schedule, found)  # refuses what does not fall strictly
    if steps > 1 and spacing != "uniform":
        assert found[-2] == 1


@pytest.mark.parametrize("name", [*SCHEDULES])
def test_times_of_log_snr_is_the_inverse(name: str) -> None:
    schedule = SCHEDULES[name]
    at = torch.linspace(0.01, schedule.length - 0.01, 500, dtype=torch.float64)
    alpha, sigma = schedule.levels(at)
    for inverse in (schedule.times_of_log_snr, lambda x: NoiseSchedule.times_of_log_snr(schedule, x)):
        torch.testing.assert_close(inverse(torch.log(alpha / sigma)), at, rtol=1e-9, atol=1e-7)
    ends = schedule.times_of_log_snr(torch.tensor([1e3, -1e3], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, schedule.length], abs=1e-9)


def their_sigmas(name: str, steps: int, **given: Any) -> Any:
    theirs = getattr(diffusers, name)(**given)
    theirs.alphas_cumprod = ScheduleConfig().table  # theirs is float32, whose first entry is off by 5e-4
    theirs.set_timesteps(steps)
    return theirs.sigmas[:-1].double()


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
@pytest.mark.parametrize(
    ("spacing", "key"),
    [
        ("karras", "use_karras_sigmas"),
        ("exponential", "use_exponential_sigmas"),
        ("log-snr", "use_lu_lambdas"),
        ("beta-sigma", "use_beta_sigmas"),
    ],
)
def test_ramps_are_diffusers(steps: int, spacing: Spacing, key: str) -> None:
    """From one float64 table; they keep what they make of it in float32."""
    theirs = their_sigmas("DPMSolverMultistepScheduler", steps, **{key: True})
    alpha, sigma = LINEAR.levels(torch.tensor(times(LINEAR, steps, spacing)[:-1], dtype=torch.float64))
    torch.testing.assert_close(sigma / alpha, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_is_the_papers_formula(rho: float) -> None:
    """Karras et al. 2022, eq. 5, to rounding."""
    alpha, sigma = LINEAR.levels(torch.tensor([1000.0, 1.0], dtype=torch.float64))
    high, low = (sigma / alpha).tolist()
    expected = [(high ** (1 / rho) + i / 11 * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(12)]
    alpha, sigma = LINEAR.levels(torch.tensor(times(LINEAR, 12, "karras", rho=rho)[:-1], dtype=torch.float64))
    assert (sigma / alpha).tolist() == pytest.approx(expected, rel=1e-9)


def test_exponential_and_log_snr_are_one_grid_even_in_log_snr() -> None:
    found = times(LINEAR, 9, "log-snr")
    assert found == times(LINEAR, 9, "exponential")
    rises = np.diff([Level(t, *LINEAR.level(t)).log_snr for t in found[:-1]])
    assert rises == pytest.approx(np.full(8, rises[0]), rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (1.0, 1.0), (0.5, 2.0), (3.0, 1.5)])
def test_beta_is_scipy(a: float, b: float) -> None:
    x = np.linspace(0, 1, 201)
    expected = scipy.stats.beta(a, b)
    assert beta_distribution(torch.tensor(x), a, b).numpy() == pytest.approx(expected.cdf(x), abs=1e-12)
    assert beta_quantiles(x.tolist(), a, b) == pytest.approx(expected.ppf(x), abs=1e-9)


def test_beta_is_even_under_the_distribution_of_times() -> None:
    """In time, as in the paper; diffusers spreads sigma / alpha itself, half of it above half the largest."""
    found = np.array(times(LINEAR, 11, "beta")[:-1])
    assert scipy.stats.beta(0.6, 0.6).cdf((found - 1) / 999) == pytest.approx(np.linspace(1, 0, 11), abs=1e-9)
    theirs = their_sigmas("EulerDiscreteScheduler", 11, use_beta_sigmas=True)
    assert int((theirs > theirs.max() / 2).sum()) == 6
    alpha, sigma = LINEAR.levels(torch.tensor(times(LINEAR, 11, "beta-sigma")[:-1], dtype=torch.float64))
    torch.testing.assert_close(sigma / alpha, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_even_is_linspace_without_rounding(steps: int) -> None:
    theirs = diffusers.EulerDiscreteScheduler()
    theirs.set_timesteps(steps)
    assert [t - 1 for t in times(LINEAR, steps, "even")[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=1e-3)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    ("ramp", "key"),
    [
        ("karras", "use_karras_sigmas"),
        ("exponential", "use_exponential_sigmas"),
        ("beta-sigma", "use_beta_sigmas"),
    ],
)
def test_ramps_between_the_ends_of_another_spacing_are_diffusers(ramp: Spacing, key: str, spacing: Any) -> None:
    found = times(LINEAR, 9, ramp, offset=3, ends=spacing)
    whole = spaced_times(9, 1000, spacing, 3)
    assert (found[0], found[-2]) == (whole[0], whole[-2])
    theirs = their_sigmas("EulerDiscreteScheduler", 9, timestep_spacing=spacing, steps_offset=3, **{key: True})
    alpha, sigma = LINEAR.levels(torch.tensor(found[:-1], dtype=torch.float64))
    torch.testing.assert_close(sigma / alpha, theirs, rtol=1e-6, atol=0)


def test_a_ramp_bounded_by_a_sigma_does_not_ask_another_spacing_for_that_end() -> None:
    found = times(LINEAR, 9, "karras", sigma_max=5.0, ends="trailing")
    alpha, sigma = LINEAR.level(found[0])
    assert sigma / alpha == pytest.approx(5.0)
    assert found[-2] == spaced_times(9, 1000, "trailing")[-2]


@pytest.mark.parametrize("between", ["angle", "ratio", "log-ratio"])
def test_what_is_linear_between_whole_times(between: Any) -> None:
    schedule = ScheduleConfig(between=between).build()
    at = torch.tensor([1.0, 1.25, 2.0, 437.0, 437.75, 438.0, 999.0, 999.5, 1000.0], dtype=torch.float64)
    (alpha, sigma), (a, s) = schedule.levels(at), LINEAR.levels(at.round())
    whole = at == at.round()
    torch.testing.assert_close(alpha[whole], a[whole], rtol=0, atol=1e-15)
    torch.testing.assert_close(sigma[whole], s[whole], rtol=0, atol=1e-15)
    kept = {"angle": torch.atan2(sigma, alpha), "ratio": sigma / alpha, "log-ratio": (sigma / alpha).log()}[between]
    for low, middle, high, share in ((0, 1, 2, 0.25), (3, 4, 5, 0.75), (6, 7, 8, 0.5)):
        assert float(kept[middle]) == pytest.approx(float(torch.lerp(kept[low], kept[high], share)), rel=1e-12)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_a_network_may_be_told_whole_times() -> None:
    exact, nearest = (ScheduleConfig(told=told).build() for told in ("exact", "nearest"))  # type: ignore[arg-type]
    assert (exact.timestep(437.75), nearest.timestep(437.75)) == (436.75, 437.0)
    many = torch.tensor([437.25, 1000.0], dtype=torch.float64)
    assert nearest.timestep(many).tolist() == [436.0, 999.0]  # type: ignore[union-attr]
    assert nearest.level(437.75) == exact.level(437.75)


def test_a_schedule_without_end_may_keep_a_last_level() -> None:
    kept = ScheduleConfig(kind="scaled-linear", beta_end=0.012, zero_terminal_snr=True, terminal=2.0**-24)
    assert float(kept.table[-1]) == 2.0**-24
    assert kept.build().level(1000)[0] == pytest.approx(2.0**-12)


def test_uniform_is_shifted_as_in_flow_matching() -> None:
    assert times(FlowSchedule(), 4, "uniform") == [1000, 750, 500, 250, 0]
    shifted = times(FlowSchedule(), 4, "uniform", shift=3.0)
    assert shifted == pytest.approx([1000, 900, 750, 500, 0])


def test_pure_noise_is_the_first_time_and_no_end_of_a_ramp() -> None:
    found = times(SCHEDULES["endless"], 6, "karras")
    assert found[0] == 1000
    assert found[1] < 999
    assert times(SCHEDULES["endless"], 1, "karras") == [1000, 0]


@pytest.mark.parametrize("spacing", ["karras", "exponential", "log-snr", "uniform", "beta", "beta-sigma", "even"])
@pytest.mark.parametrize("name", ["cosine", "endless", "flow", "linear"])
def test_times_between_keep_their_bounds(spacing: Spacing, name: str) -> None:
    schedule = SCHEDULES[name]
    found = times(schedule, 8, spacing, sigma_min=0.1, sigma_max=20.0)
    first, last = (Level(t, *schedule.level(t)) for t in (found[0], found[-2]))
    assert first.sigma / first.alpha == pytest.approx(20.0, rel=1e-9)
    if spacing == "uniform":
        assert found == pytest.approx([found[0] * (8 - i) / 8 for i in range(9)])
    else:
        assert last.sigma / last.alpha == pytest.approx(0.1, rel=1e-9)
    assert times(schedule, 1, spacing, sigma_min=0.1, sigma_max=20.0) == [found[0], 0.0]


def test_bounded_karras_is_edms_grid() -> None:
    """Karras et al. 2022, eq. 5 with the bounds of table 1, the lower one as the schedule allows."""
    schedule = SCHEDULES["cosine"]
    found = times(schedule, 18, "karras", sigma_min=0.02, sigma_max=80.0)
    ends = 80.0 ** (1 / 7), 0.02 ** (1 / 7)
    levels = [Level(t, *schedule.level(t)) for t in found[:-1]]
    expected = [(ends[0] + i / 17 * (ends[1] - ends[0])) ** 7 for i in range(18)]
    assert [level.sigma / level.alpha for level in levels] == pytest.approx(expected, rel=1e-9)


def test_bounds_beyond_the_schedule_change_nothing() -> None:
    for spacing in SPACINGS:
        assert times(LINEAR, 7, spacing, sigma_min=1e-6, sigma_max=1e6) == times(LINEAR, 7, spacing)
    for spacing in ("leading", "trailing", "linspace", "quadratic"):
        assert times(LINEAR, 7, spacing, sigma_min=0.1, sigma_max=2.0) == times(LINEAR, 7, spacing)
    with pytest.raises(OptionError, match="leaves nothing below"):
        times(LINEAR, 7, "karras", sigma_min=3.0, sigma_max=2.0)


def test_listed_times_are_used_as_they_are() -> None:
    listed = (1000.0, 851.0, 737.5, 25.0)
    assert Euler(times=listed).grid(LINEAR, 4).times == (*listed, 0.0)
    assert Euler(times=(*listed, 0.0)).grid(LINEAR, 4).times == (*listed, 0.0)
    assert default_zoo().make("scheduler", "euler:times=1000/851/737.5/25") == Euler(times=listed)
    assert default_zoo().make("scheduler", "euler:times=900").grid(LINEAR, 1).times == (900.0, 0.0)
    for bad, steps, words in (
        (listed, 5, "say steps=4"), ((1001.0,), 1, "1000"), ((5.0, 7.0), 2, "strictly"), ((0.0,), 1, "noisiest"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=words):
            Euler(times=bad).grid(LINEAR, steps)
    with pytest.raises(OptionError, match="1000/851/737"):
        default_zoo().make("scheduler", "euler:times=9;8")


@pytest.mark.parametrize("steps", [0, 1001])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_steps_out_of_range_say_the_range(steps: int, spacing: Spacing) -> None:
    with pytest.raises(OptionError, match="give 1 to 1000"):
        times(LINEAR, steps, spacing)


def test_whole_times_are_whole() -> None:
    assert times(LINEAR, 10, "trailing") == spaced_times(10, 1000, "trailing")
    with pytest.raises(OptionError, match="no whole times"):
        spaced_times(10, 1000, "karras")
    with pytest.raises(ValidationError):
        LMS(spacing="odd")  # type: ignore[arg-type]


def test_levels_between() -> None:
    grid = Euler().grid(LINEAR, 5)
    assert grid.at(437.25) == Level(437.25, *LINEAR.level(437.25))
    level = grid.at_log_snr(0.3)
    assert level.log_snr == pytest.approx(0.3, abs=1e-12)
    assert grid.timestep(5.0) == 4.0
    assert (Level(0, 1.0, 0.0).log_snr, Level(1, 0.0, 1.0).log_snr) == (math.inf, -math.inf)
    with pytest.raises(OptionError, match="no schedule"):
        Grid(grid.levels).at(3.0)


@pytest.mark.parametrize("t", [0.0, 1.0, 250.0, 999.9, 1000.0])
def test_flow_schedule_is_a_straight_line(t: float) -> None:
    schedule = FlowSchedule()
    assert schedule.level(t) == pytest.approx((1 - t / 1000, t / 1000))
    assert schedule.timestep(t) == t
    assert math.tan(float(schedule.angle(torch.tensor(250.0)))) == pytest.approx(1 / 3)
    with pytest.raises(OptionError, match="outside"):
        schedule.level(1000.5)


def test_a_grid_is_worked_out_once_for_equal_settings_of_one_schedule() -> None:
    schedule, other = ScheduleConfig().build(), ScheduleConfig().build()
    grid = Euler(spacing="karras").grid(schedule, 10)
    assert Euler(spacing="karras").grid(schedule, 10) is grid
    assert Euler(spacing="karras", rho=5.0).grid(schedule, 10) != grid
    assert Euler(spacing="karras").grid(schedule, 11) != grid
    same = Euler(spacing="karras").grid(other, 10)
    assert same == grid
    assert same.schedule is other
    for _ in range(2):
        with pytest.raises(OptionError, match="out of range"):
            Euler().grid(schedule, 1001)
