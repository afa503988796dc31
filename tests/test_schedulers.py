"""Grids, and DDPM and DDIM against diffusers step by step and against an exact oracle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import diffusers.schedulers.scheduling_ddpm as their_ddpm
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import PAIR, SINGLE, Mixture, gaussian_flow, oracle
from pydantic import ValidationError
from torch import Tensor

from genzoo.denoiser import Prediction, target, to_x0
from genzoo.errors import OptionError
from genzoo.noise import Noise
from genzoo.schedule import DiscreteSchedule, NoiseSchedule, ScheduleConfig
from genzoo.scheduler import Grid, Level, Scheduler, Spacing, spaced_times
from genzoo_plugins.diffusion.schedulers import DDIM, DDPM, posterior_variance

SPACINGS: list[Spacing] = ["leading", "trailing", "linspace", "quadratic"]
PREDICTIONS: list[Prediction] = ["eps", "v", "x0"]
THEIR_NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
LINEAR = ScheduleConfig().build()


def timesteps(steps: int, spacing: Spacing, offset: int = 0, length: int = 1000) -> list[int]:
    """The grid in the field's own counting, without the clean end."""
    *times, end = spaced_times(steps, length, spacing, offset)
    assert end == 0
    return [int(t) - 1 for t in times]


def their_timesteps(steps: int, spacing: str, offset: int = 0, length: int = 1000) -> list[int]:
    theirs = DDIMScheduler(length, timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(steps)
    return theirs.timesteps.tolist()


# -- grids -----------------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 2000), data=st.data(), spacing=st.sampled_from(SPACINGS), offset=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_grids_fall_strictly_to_clean_data(length: int, data: Any, spacing: Spacing, offset: int) -> None:
    steps = data.draw(st.integers(1, length))
    times = spaced_times(steps, length, spacing, offset)
    assert all(a > b for a, b in zip(times, times[1:], strict=False))
    assert times[-1] == 0
    assert times[-2] >= 1
    assert times[0] <= length
    assert all(t == int(t) for t in times)
    count = len(times) - 1
    if spacing == "trailing" or spacing == "linspace" or (spacing == "leading" and offset == 0):
        assert count == steps
    assert 1 <= count <= steps
    assert times[0] >= 0.8 * length if spacing == "quadratic" else times[0] > (length - 1) / 2
    if spacing in ("trailing", "linspace"):
        assert times[0] == length


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("length", [1, 7, 250, 1000])
def test_as_many_steps_as_the_schedule_has_visit_every_level(spacing: Spacing, length: int) -> None:
    assert spaced_times(length, length, spacing) == [float(t) for t in range(length, -1, -1)]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("length", [100, 256, 1000])
def test_grids_are_diffusers(spacing: Spacing, length: int) -> None:
    """All numbers of steps. Theirs are wrong in two ways, both shown here, and ours go on without them."""
    for steps in range(1, length + 1):
        ours, theirs = timesteps(steps, spacing, length=length), their_timesteps(steps, spacing, length=length)
        if spacing == "trailing" and len(theirs) > steps:
            # np.arange(T, 0, -T / steps) now and then stops one entry late: the extra timestep is -1.
            assert theirs[steps:] == [-1]
            theirs = theirs[:steps]
        if spacing in ("linspace", "leading") and steps == 1:
            # Theirs is the clean end: pure noise, read as an image with hardly any noise in it.
            assert theirs == [0]
            theirs = [length - 1]
        assert ours == theirs


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("steps", [2, 3, 20, 50, 999])
def test_leading_grids_with_an_offset_are_diffusers(offset: int, steps: int) -> None:
    theirs = [k for k in their_timesteps(steps, "leading", offset) if k < 1000]
    assert timesteps(steps, "leading", offset) == theirs


def test_an_offset_stays_on_the_schedule() -> None:
    """Where theirs would look beyond the table: 1,000 steps of offset 1 end at timestep 1000."""
    assert their_timesteps(1000, "leading", 1)[0] == 1000
    assert timesteps(1000, "leading", 1) == list(range(999, 0, -1))


def test_quadratic_grids_are_those_of_ddim() -> None:
    """tau_i = floor(c i^2) with tau_last at 0.8 T (DDIM, section D.3), as its authors' code works them out."""
    for steps in range(2, 1001):
        published = {int(root**2) for root in np.linspace(0, np.sqrt(1000 * 0.8), steps)}
        assert timesteps(steps, "quadratic") == sorted(published, reverse=True)
    ten = timesteps(10, "quadratic")
    assert ten == [800, 632, 483, 355, 246, 158, 88, 39, 9, 0]
    gaps = -np.diff(ten)
    assert (np.diff(gaps) < 0).all(), "denser towards the data"


def test_quadratic_grids_merge_what_rounding_made_equal() -> None:
    assert timesteps(5, "quadratic", length=5) == [4, 2, 1, 0]
    assert len(timesteps(100, "quadratic")) < 100


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "quadratic"])
def test_one_step_begins_in_the_noise(spacing: Spacing) -> None:
    (only,) = timesteps(1, spacing)
    assert only >= 799


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**9])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_steps_out_of_range_say_the_range(steps: int, spacing: Spacing) -> None:
    with pytest.raises(OptionError, match="give 1 to 1000"):
        spaced_times(steps, 1000, spacing)
    with pytest.raises(OptionError, match=f"steps={steps}"):
        DDIM(spacing=spacing).grid(LINEAR, steps)


def test_a_grid_holds_the_levels_of_its_times() -> None:
    grid = DDIM(spacing="trailing").grid(LINEAR, 7)
    assert grid.times == tuple(spaced_times(7, 1000, "trailing"))
    assert all((level.alpha, level.sigma) == LINEAR.level(level.t) for level in grid.levels)
    assert grid.levels[-1] == Level(0.0, 1.0, 0.0)
    pairs = list(grid.pairs())
    assert [here for here, _ in pairs] == list(grid.levels[:-1])
    assert [there for _, there in pairs] == list(grid.levels[1:])


@pytest.mark.parametrize("times", [[], [1.0], [1.0, 1.0], [1.0, 2.0], [3.0, 2.0, 2.0, 0.0]])
def test_times_that_do_not_fall_are_no_grid(times: list[float]) -> None:
    with pytest.raises(OptionError, match="fall strictly"):
        Grid.of(LINEAR, times)


@pytest.mark.parametrize(
    ("cls", "given_settings"),
    [
        (DDIM, {"eta": -0.1}),
        (DDIM, {"eta": 1.5}),
        (DDIM, {"eta": math.nan}),
        (DDIM, {"eta": "0.5"}),
        (DDIM, {"spacing": "leding"}),
        (DDIM, {"offset": -1}),
        (DDIM, {"variance": "small"}),
        (DDPM, {"variance": "medium"}),
        (DDPM, {"eta": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(cls: type[Scheduler], given_settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given_settings))):
        cls(**given_settings)


# -- diffusers, step by step -----------------------------------------------------------------------------------------


class Given:
    """Stands in for Noise: hands out one tensor, and counts how often it was asked."""

    def __init__(self, z: Tensor) -> None:
        self.z, self.asked = z, 0

    def normal(self, *shape: int) -> Tensor:
        assert shape == self.z.shape[1:]
        self.asked += 1
        return self.z


def network(x: Tensor, t: float) -> Tensor:
    """Some smooth function of x and t, of about the size of a prediction."""
    return torch.sin(1.7 * x.roll(1, -1) + 0.01 * t) + 0.5 * torch.cos(x - 0.003 * t)


def draw(seed: int) -> Tensor:
    return torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_theirs(
    cls: Any, config: ScheduleConfig, steps: int, prediction: Prediction, clip: float | None, **more: Any
) -> Any:
    """A scheduler of theirs over our float64 table (theirs are float32), so that what is compared is the step alone."""
    theirs = cls(
        config.steps,
        prediction_type=THEIR_NAMES[prediction],
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
        **more,
    )
    theirs.alphas_cumprod = config.table
    theirs.final_alpha_cumprod = theirs.one = torch.ones((), dtype=torch.float64)
    theirs.set_timesteps(steps)
    return theirs


def clean(x: Tensor, here: Level, prediction: Prediction, clip: float | None) -> Tensor:
    x0 = to_x0(network(x, here.t), x, here.alpha, here.sigma, prediction)
    return x0 if clip is None else x0.clamp(-clip, clip)


def pairs_to_compare(grid: Grid, theirs: Any) -> Iterator[tuple[int, Level, Level]]:
    """(their timestep, here, there) of every step, or of a few at both ends of a long walk."""
    pairs = list(grid.pairs())
    assert [int(here.t) - 1 for here, _ in pairs] == theirs.timesteps.tolist()
    for i, (here, there) in enumerate(pairs):
        if i < 6 or i >= len(pairs) - 6:
            yield int(theirs.timesteps[i]), here, there


#: (spacing, offset, steps) where their DDIM's previous timestep is the next of its own grid.
CONSISTENT = [
    ("leading", 0, 7),
    ("leading", 0, 50),
    ("leading", 0, 1000),
    ("leading", 1, 20),
    ("leading", 1, 3),
    ("trailing", 0, 1),
    ("trailing", 0, 10),
    ("trailing", 0, 50),
    ("linspace", 0, 1000),
]

#: Those where it is not: the gaps are not all T // steps.
INCONSISTENT = [("trailing", 0, 7), ("trailing", 0, 48), ("linspace", 0, 2), ("linspace", 0, 20)]


@pytest.mark.parametrize("clip", [None, 1.0, 0.3])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("spacing", "offset", "steps"), CONSISTENT + INCONSISTENT)
def test_ddim_is_diffusers(spacing: Any, offset: int, steps: int, prediction: Prediction, clip: float | None) -> None:
    config = ScheduleConfig()
    stride: Any = "even" if (spacing, offset, steps) in INCONSISTENT else "grid"
    theirs = make_theirs(DDIMScheduler, config, steps, prediction, clip, timestep_spacing=spacing, steps_offset=offset)
    for eta in (0.0, 0.5, 1.0):
        scheduler, x = DDIM(eta=eta, spacing=spacing, offset=offset, stride=stride), draw(0)
        for timestep, here, there in pairs_to_compare(scheduler.grid(config.build(), steps), theirs):
            z = Given(draw(timestep + 1))
            output = network(x, here.t)
            if clip is not None:
                # Their default, which keeps the network's own eps where x_0 is clipped.
                kept = theirs.step(output, timestep, x, eta=eta, variance_noise=z.z).prev_sample
                keeping, raw = scheduler.model_copy(update={"clip": clip}), clean(x, here, prediction, None)
                ours = keeping.step(x, raw, here, there, Given(z.z))  # type: ignore[arg-type]
                torch.testing.assert_close(ours, kept, rtol=1e-10, atol=1e-10)
            expected = theirs.step(
                output, timestep, x, eta=eta, variance_noise=z.z, use_clipped_model_output=clip is not None
            )
            x0 = clean(x, here, prediction, clip)
            torch.testing.assert_close(x0, expected.pred_original_sample, rtol=1e-10, atol=1e-10)
            x = scheduler.step(x, x0, here, there, z)  # type: ignore[arg-type]
            torch.testing.assert_close(x, expected.prev_sample, rtol=1e-10, atol=1e-10)
            assert z.asked == (1 if eta and there.t else 0)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("spacing", "offset", "steps"), CONSISTENT + INCONSISTENT)
def test_ddpm_is_diffusers(
    spacing: Any, offset: int, steps: int, prediction: Prediction, clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their DDPM looks the next timestep up in its grid, so all spacings agree."""
    config = ScheduleConfig()
    for variance in ("small", "large"):
        theirs = make_theirs(
            DDPMScheduler,
            config,
            steps,
            prediction,
            clip,
            timestep_spacing=spacing,
            steps_offset=offset,
            variance_type=f"fixed_{variance}",
        )
        scheduler, x = DDPM(variance=variance, spacing=spacing, offset=offset), draw(0)
        for timestep, here, there in pairs_to_compare(scheduler.grid(config.build(), steps), theirs):
            z = Given(draw(timestep + 1))
            # The step that ends in clean data adds nothing (Ho et al. 2020, algorithm 2). Theirs tests for timestep 0
            # instead, and where the grid's last timestep is above 0 leaves noise in the picture.
            fed = z.z if there.t else torch.zeros_like(z.z)
            monkeypatch.setattr(their_ddpm, "randn_tensor", lambda *_, fed=fed, **__: fed)
            expected = theirs.step(network(x, here.t), timestep, x)
            x0 = clean(x, here, prediction, clip)
            torch.testing.assert_close(x0, expected.pred_original_sample, rtol=1e-10, atol=1e-10)
            x = scheduler.step(x, x0, here, there, z)  # type: ignore[arg-type]
            torch.testing.assert_close(x, expected.prev_sample, rtol=1e-10, atol=1e-10)
            assert z.asked == (1 if there.t else 0)


@pytest.mark.parametrize(
    "config",
    [ScheduleConfig(kind="cosine"), ScheduleConfig(kind="cosine", zero_terminal_snr=True), ScheduleConfig(steps=100)],
    ids=str,
)
@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_other_schedules_are_diffusers(
    config: ScheduleConfig, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pure noise at the start included, where alpha is 0."""
    schedule, more = config.build(), {"timestep_spacing": "trailing"}
    ddim = make_theirs(DDIMScheduler, config, 20, prediction, None, **more)
    ddpm = make_theirs(DDPMScheduler, config, 20, prediction, None, **more)
    x = y = draw(0)
    for timestep, here, there in pairs_to_compare(DDIM(spacing="trailing").grid(schedule, 20), ddim):
        z = Given(draw(timestep + 1))
        expected = ddim.step(network(x, here.t), timestep, x, eta=0.7, variance_noise=z.z).prev_sample
        x = DDIM(eta=0.7).step(x, clean(x, here, prediction, None), here, there, z)  # type: ignore[arg-type]
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)
        fed = z.z if there.t else torch.zeros_like(z.z)
        monkeypatch.setattr(their_ddpm, "randn_tensor", lambda *_, fed=fed, **__: fed)
        expected = ddpm.step(network(y, here.t), timestep, y).prev_sample
        y = DDPM().step(y, clean(y, here, prediction, None), here, there, z)  # type: ignore[arg-type]
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


# -- where diffusers is not followed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "offset", "steps"), INCONSISTENT)
def test_ddim_steps_to_the_next_time_of_its_own_grid(spacing: Any, offset: int, steps: int) -> None:
    """Their DDIM walks over one grid and steps by another.

    The timesteps are those of the spacing, but "the previous timestep" is worked out as t - T // steps, which only in a
    leading grid is the next one. x is then read at a level it does not have. Ours goes to the next time of the grid.
    """
    config = ScheduleConfig()
    theirs = make_theirs(DDIMScheduler, config, steps, "eps", None, timestep_spacing=spacing)
    their_grid = theirs.timesteps.tolist()
    strays, x = [], draw(0)
    for timestep, here, there in pairs_to_compare(DDIM(spacing=spacing).grid(config.build(), steps), theirs):
        previous = timestep - 1000 // steps
        if there.t and previous not in their_grid:
            strays.append(previous)
        expected = theirs.step(network(x, here.t), timestep, x).prev_sample
        x0 = clean(x, here, "eps", None)
        landed = Level(float(max(previous + 1, 0)), *config.build().level(max(previous + 1, 0)))
        # That, and nothing else, is the difference: sent to the level they use, ours gives their result.
        torch.testing.assert_close(
            DDIM().step(x, x0, here, landed, Given(x)),
            expected,
            rtol=1e-10,
            atol=1e-10,  # type: ignore[arg-type]
        )
        x = DDIM().step(x, x0, here, there, Given(x))  # type: ignore[arg-type]
        if landed.t != there.t:
            assert not torch.allclose(x, expected, rtol=1e-5)
    assert strays, "some step of theirs lands beside its own grid"


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_the_grids_own_next_time_is_the_one_that_converges(spacing: Any) -> None:
    """Which of the two is right is no matter of taste: where the flow is known, more steps bring ours nearer to it.

    Theirs ends further away instead: with 600 steps the grid's gaps are 1 or 2 and every step is one of 1.
    """
    x, denoise = draw(0), oracle(SINGLE, LINEAR)
    exact = gaussian_flow(SINGLE, x, *LINEAR.level(1000))
    errors = {}
    for steps in (150, 600):
        theirs = make_theirs(DDIMScheduler, ScheduleConfig(), steps, "x0", None, timestep_spacing=spacing)
        y = x
        for timestep in theirs.timesteps.tolist():
            y = theirs.step(denoise(y, timestep + 1.0, {}), timestep, y).prev_sample
        scheduler = DDIM(spacing=spacing)
        z = last(scheduler, SINGLE, x, scheduler.grid(LINEAR, steps), [0, 1])
        errors[steps] = float((z - exact).abs().max()), float((y - exact).abs().max())
    assert errors[600][0] < 0.3 * errors[150][0] < 0.02
    assert errors[600][1] > 2 * errors[150][1] > 0.2


def test_ddpm_leaves_no_noise_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last step adds noise where the grid's last timestep is above 0, as with an offset or trailing times."""
    config = ScheduleConfig()
    theirs = make_theirs(
        DDPMScheduler, config, 20, "eps", None, timestep_spacing="trailing", variance_type="fixed_large"
    )
    *_, (here, there) = DDPM(spacing="trailing").grid(config.build(), 20).pairs()
    timestep, x, z = int(theirs.timesteps[-1]), draw(0), draw(1)
    assert timestep == here.t - 1 == 49
    monkeypatch.setattr(their_ddpm, "randn_tensor", lambda *_, **__: z)
    expected = theirs.step(network(x, here.t), timestep, x)
    ours = DDPM(variance="large").step(x, clean(x, here, "eps", None), here, there, Given(z))  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected.pred_original_sample, rtol=1e-10, atol=1e-10)
    left = (expected.prev_sample - expected.pred_original_sample) / z
    torch.testing.assert_close(left, torch.full_like(left, here.sigma), rtol=1e-6, atol=0)


def test_ddim_follows_the_clipped_x0_unless_told_otherwise() -> None:
    """By default eps is that which leads from the clipped x_0 to x_t, as in the code of Dhariwal & Nichol 2021.

    Their default takes it from the network's output, clipping or not; ours does with ``clip``.
    """
    config = ScheduleConfig()
    theirs, x = make_theirs(DDIMScheduler, config, 10, "eps", 0.3), draw(0)
    here, there = next(iter(DDIM().grid(config.build(), 10).pairs()))
    output, timestep = network(x, here.t), int(here.t) - 1
    x0 = clean(x, here, "eps", 0.3)
    ours = DDIM().step(x, x0, here, there, Given(x))  # type: ignore[arg-type]
    torch.testing.assert_close(
        ours, theirs.step(output, timestep, x, use_clipped_model_output=True).prev_sample, rtol=1e-10, atol=1e-10
    )
    raw = theirs.step(output, timestep, x).prev_sample
    torch.testing.assert_close(raw, there.alpha * x0 + there.sigma * output, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours, raw, atol=1e-2)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_that_ends_at_the_first_noisy_level_is_diffusers(offset: int, eta: float) -> None:
    """ "set_alpha_to_one": false, as files of Stable Diffusion have it."""
    config = ScheduleConfig(kind="scaled-linear", beta_start=0.00085, beta_end=0.012)
    theirs = make_theirs(DDIMScheduler, config, 20, "v", None, set_alpha_to_one=False, steps_offset=offset)
    theirs.final_alpha_cumprod = config.table[0]
    scheduler, x = DDIM(eta=eta, end=1, offset=offset), draw(0)
    grid = scheduler.grid(config.build(), 20)
    assert grid.times[-1] == 1
    for timestep, here, there in pairs_to_compare(grid, theirs):
        z = Given(draw(timestep + 1))
        expected = theirs.step(network(x, here.t), timestep, x, eta=eta, variance_noise=z.z).prev_sample
        x = scheduler.step(x, clean(x, here, "v", None), here, there, z)  # type: ignore[arg-type]
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)


# -- the formulas ----------------------------------------------------------------------------------------------------

TIMES = st.tuples(st.integers(1, 1000), st.integers(0, 999)).filter(lambda pair: pair[0] > pair[1])


def level_pair(times: tuple[int, int], schedule: NoiseSchedule = LINEAR) -> tuple[Level, Level]:
    return tuple(Grid.of(schedule, [float(t) for t in times]).levels)  # type: ignore[return-value]


@given(times=TIMES.filter(lambda pair: pair[1] > 0))
@settings(max_examples=100, deadline=None)
def test_ddpm_draws_from_the_posterior_of_bayes(times: tuple[int, int]) -> None:
    """q(x_s | x_t, x_0) from the prior N(alpha_s x_0, sigma_s^2) and the likelihood N(x_t; a x_s, var(t|s))."""
    here, there = level_pair(times)
    x, x0, z = draw(0), draw(1), draw(2)
    ratio = here.alpha / there.alpha
    forward = 1 - ratio**2  # the product of the (1 - beta)s is ratio^2
    precision = ratio**2 / forward + 1 / there.sigma**2
    mean = (ratio * x / forward + there.alpha * x0 / there.sigma**2) / precision
    torch.testing.assert_close(posterior_variance(here, there), (1 / precision, forward), rtol=1e-8, atol=0)
    small = DDPM().step(x, x0, here, there, Given(z))  # type: ignore[arg-type]
    torch.testing.assert_close(small, mean + precision**-0.5 * z, rtol=1e-8, atol=1e-8)
    large = DDPM(variance="large").step(x, x0, here, there, Given(z))  # type: ignore[arg-type]
    torch.testing.assert_close(large, mean + forward**0.5 * z, rtol=1e-8, atol=1e-8)


@given(times=TIMES, eta=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_ddim_keeps_the_level_it_goes_to(times: tuple[int, int], eta: float) -> None:
    """From a true x_t = alpha x_0 + sigma eps, x_s is alpha_s x_0 plus noise of variance sigma_s^2 in all."""
    here, there = level_pair(times)
    x0, eps, z = draw(0), draw(1), draw(2)
    out = DDIM(eta=eta).step(here.alpha * x0 + here.sigma * eps, x0, here, there, Given(z))  # type: ignore[arg-type]
    std = eta * posterior_variance(here, there)[0] ** 0.5
    expected = there.alpha * x0 + max(there.sigma**2 - std**2, 0) ** 0.5 * eps + std * z
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@given(times=TIMES, kind=st.sampled_from(["linear", "cosine"]), endless=st.booleans())
@settings(max_examples=100, deadline=None)
def test_ddim_of_eta_1_is_ddpm(times: tuple[int, int], kind: Any, endless: bool) -> None:
    here, there = level_pair(times, ScheduleConfig(kind=kind, zero_terminal_snr=endless).build())
    x, x0, z = draw(0), draw(1), draw(2)
    ddim = DDIM(eta=1.0).step(x, x0, here, there, Given(z))  # type: ignore[arg-type]
    torch.testing.assert_close(ddim, DDPM().step(x, x0, here, there, Given(z)), rtol=1e-7, atol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_whole_walks_of_ddim_with_eta_1_and_of_ddpm_are_one(spacing: Spacing) -> None:
    denoise = oracle(PAIR, LINEAR)
    grid = DDIM(spacing=spacing).grid(LINEAR, 25)
    walks = [
        list(scheduler.walk(lambda x, t: denoise(x, t, {}), draw(0), grid, Noise([1, 2], dtype=torch.float64)))
        for scheduler in (DDIM(eta=1.0), DDPM())
    ]
    for one, other in zip(*walks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scheduler", [DDIM(), DDIM(eta=0.5), DDPM(), DDPM(variance="large")], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_keeps_dtype_and_changes_nothing_it_is_given(scheduler: Scheduler, dtype: torch.dtype) -> None:
    x, x0 = draw(0).to(dtype), draw(1).to(dtype)
    before = x.clone(), x0.clone()
    for times in ((1000, 980), (20, 0)):
        out = scheduler.step(x, x0, *level_pair(times), Noise([0, 1], dtype=dtype))
        exact = scheduler.step(x.double(), x0.double(), *level_pair(times), Noise([0, 1], dtype=torch.float64))
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(x, before[0])
    assert torch.equal(x0, before[1])


def test_nothing_is_kept_between_two_walks() -> None:
    """One scheduler, two walks over different grids in turns: each goes as it would alone."""
    scheduler, denoise = DDIM(eta=0.5), oracle(PAIR, LINEAR)

    def walk(steps: int, seed: int) -> Iterator[Tensor]:
        grid = scheduler.grid(LINEAR, steps)
        return scheduler.walk(lambda x, t: denoise(x, t, {}), draw(seed), grid, Noise([seed, 9], dtype=torch.float64))

    alone = list(walk(5, 1)), list(walk(7, 2))
    together = list(zip(walk(5, 1), walk(7, 2), strict=False))
    assert len(alone[0]) == 5
    for (one, other), first, second in zip(together, *alone, strict=False):
        assert torch.equal(one, first)
        assert torch.equal(other, second)


# -- an exact oracle -------------------------------------------------------------------------------------------------


def last(scheduler: Scheduler, mixture: Mixture, x: Tensor, grid: Grid, seeds: list[int]) -> Tensor:
    denoise = oracle(mixture, LINEAR)
    *_, out = scheduler.walk(lambda x, t: denoise(x, t, {}), x, grid, Noise(seeds, dtype=torch.float64))
    return out


def order(errors: dict[int, float]) -> float:
    """The order fitted to error(steps): minus the slope of its logarithm against that of the steps."""
    return -float(np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0])


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("mixture", [SINGLE, PAIR], ids=["one Gaussian", "two Gaussians"])
def test_ddim_is_of_first_order(mixture: Mixture, spacing: Spacing) -> None:
    x, scheduler = draw(3), DDIM(spacing=spacing)
    if mixture is SINGLE:
        exact = gaussian_flow(mixture, x, *LINEAR.level(1000))
    else:
        # Three times as many steps as the schedule has, between whole times as well.
        exact = last(scheduler, mixture, x, Grid.of(LINEAR, np.linspace(1000, 0, 3001).tolist()), [0, 1])
    errors = {
        steps: float(
            (last(scheduler, mixture, x, scheduler.grid(LINEAR, steps), [0, 1]) - exact).square().mean().sqrt()
        )
        for steps in (20, 40, 80, 160)
    }
    assert order(errors) == pytest.approx(1, abs=0.3), errors
    assert errors[160] < 0.02, errors


def variance_after(scheduler: Scheduler, steps: int) -> float:
    """The exact variance of a walk's results for data of one Gaussian, where every step is affine in x and z."""
    denoise, here_and_there = oracle(SINGLE, LINEAR), scheduler.grid(LINEAR, steps).pairs()
    variance, zero = 1.0, torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    for here, there in here_and_there:

        def step(x: Tensor, z: Tensor, here: Level = here, there: Level = there) -> float:
            return float(scheduler.step(x, denoise(x, here.t, {}), here, there, Given(z))[0, 0])  # type: ignore[arg-type]

        offset = step(zero, zero)
        variance = (step(zero + 1, zero) - offset) ** 2 * variance + (step(zero, zero + 1) - offset) ** 2
    return variance


@pytest.mark.parametrize("scheduler", [DDPM(), DDPM(variance="large"), DDIM(eta=0.5), DDIM()], ids=repr)
def test_the_variance_of_samples_is_of_first_order(scheduler: Scheduler) -> None:
    """Ancestral sampling too: what either fixed variance gets wrong falls as 1 / steps."""
    errors = {steps: abs(variance_after(scheduler, steps) / 0.5**2 - 1) for steps in (50, 100, 200, 500)}
    assert order(errors) == pytest.approx(1, abs=0.3), errors
    assert list(errors.values())[-1] < 0.03


def assert_moments(samples: Tensor, mixture: Mixture) -> None:
    """Mean and covariance of (N, C, H, W) agree with the mixture's within four standard errors."""
    points = samples.movedim(1, -1).flatten(0, -2)
    count = len(points)
    off = points - mixture.mean
    assert bool((off.mean(0).abs() < 4 * points.std(0) / count**0.5).all())
    products = off[:, :, None] * off[:, None, :]
    difference = (products.mean(0) - mixture.covariance).abs()
    assert bool((difference < 4 * products.std(0) / count**0.5).all())


@pytest.mark.parametrize(
    "scheduler", [DDPM(), DDPM(variance="large"), DDIM(eta=0.5), DDIM(spacing="trailing")], ids=repr
)
def test_samples_have_the_moments_of_the_data(scheduler: Scheduler) -> None:
    """Two images of 60 x 60 pixels: 7,200 samples, over as many steps as the schedule has."""
    seeds = [1, 2]
    start = Noise(seeds, dtype=torch.float64).normal(2, 60, 60)
    steps = 1000 if isinstance(scheduler, DDPM) else 250
    assert_moments(last(scheduler, PAIR, start, scheduler.grid(LINEAR, steps), seeds), PAIR)


def test_the_check_of_the_moments_can_fail() -> None:
    """Data of the mixture pass, and data of a spread or a place wrong by 5 % do not."""
    samples = PAIR.sample(7_200, torch.Generator().manual_seed(0))
    assert_moments(samples, PAIR)
    mean = PAIR.mean[:, None, None]
    for wrong in (mean + 1.05 * (samples - mean), samples + 0.05):
        with pytest.raises(AssertionError):
            assert_moments(wrong, PAIR)


def test_a_target_is_what_the_oracle_predicts_for_a_point() -> None:
    """A mixture without spread is one image: its exact network answers with the training target itself."""
    point = Mixture.of([1.0], [[0.5, -0.5]], [0.0])
    x0 = point.means[0][None, :, None, None].expand(2, 2, 5, 5)
    for prediction in PREDICTIONS:
        denoiser = oracle(point, LINEAR, prediction)
        alpha, sigma = LINEAR.levels(torch.tensor(500))
        expected = target(x0, draw(0), alpha, sigma, prediction)
        torch.testing.assert_close(denoiser.predict(alpha * x0 + sigma * draw(0), 500.0, {}), expected)


def test_a_schedule_of_one_level_is_one_step() -> None:
    schedule = DiscreteSchedule([0.4])
    grid = DDPM().grid(schedule, 1)
    assert grid.times == (1.0, 0.0)
    x0 = draw(1)
    for scheduler in (DDPM(), DDPM(variance="large"), DDIM(), DDIM(eta=1.0)):
        (only,) = scheduler.walk(lambda x, t: x0, draw(0), grid, Noise([0, 1]))
        torch.testing.assert_close(only, x0, rtol=1e-15, atol=1e-15)
