"""Solvers: their order on an exact flow, diffusers' schedulers step by step, and what noise must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import diffusers
import diffusers.schedulers as zoo_of_theirs
import numpy as np
import pytest
import torch
from diffusers.schedulers import AysSchedules
from pydantic import ValidationError
from solver_oracle import (
    MEANS,
    SPREADS,
    WEIGHTS,
    Apart,
    Oracle,
    Smooth,
    clean,
    distribution,
    flow,
    order_of,
    walk,
    weak_order_of,
)
from tiny import squares
from torch import Tensor

from genzoo.denoiser import target, to_x0
from genzoo.errors import OptionError
from genzoo.noise import Noise
from genzoo.recipe import Batch
from genzoo.registry import default_zoo
from genzoo.schedule import FlowSchedule, NoiseSchedule, ScheduleConfig
from genzoo.scheduler import Grid, Level, Scheduler, Spacing
from genzoo_plugins.diffusion.model import DiffusionConfig
from genzoo_plugins.diffusion.recipe import DiffusionRecipe, DiffusionRecipeConfig
from genzoo_plugins.diffusion.schedulers import DDIM, DDPM
from genzoo_plugins.solvers.dpm_solver import DPM2, DPMpp1S, DPMpp2M, DPMpp2MSDE, DPMpp2S, DPMpp3M
from genzoo_plugins.solvers.euler import Churn, Euler, EulerAncestral, Heun
from genzoo_plugins.solvers.few_step import LCM, TCD, distilled_times
from genzoo_plugins.solvers.flow import FlowEuler, FlowHeun
from genzoo_plugins.solvers.multistep import DEIS, LMS
from genzoo_plugins.solvers.pndm import IPNDM, PLMS, PNDM
from genzoo_plugins.solvers.restart import Restart
from genzoo_plugins.solvers.unipc import UniPC

#: diffusers hands tensors to numpy in a way that numpy will not take for ever.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__) :DeprecationWarning")

LINEAR = ScheduleConfig().build()
NAMES = [
    "euler", "euler-ancestral", "heun", "churn", "dpm-2", "dpmpp-1s", "dpmpp-2s", "dpmpp-2m", "dpmpp-3m",
    "dpmpp-2m-sde", "unipc", "deis", "lms", "ipndm", "plms", "pndm", "lcm", "tcd", "flow-euler", "flow-heun", "restart",
]  # fmt: skip
NOISY = ("euler-ancestral", "churn", "dpmpp-2m-sde", "lcm", "tcd", "restart")
STEPS = [24, 36, 54, 80, 120]


def start(rows: int = 2, columns: int = 7, seed: int = 3) -> Tensor:
    return torch.randn(rows, 1, 1, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- order of convergence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        (DDIM(), 1),
        (Euler(), 1),
        (FlowEuler(), 1),
        (DPMpp1S(), 1),
        (TCD(eta=0.0), 1),
        (Heun(), 2),
        (FlowHeun(), 2),
        (Churn(churn=0.0), 2),
        (Restart(repeats=(0,)), 2),
        (Restart(repeats=(0,), order=1), 1),
        (DPM2(), 2),
        (DPMpp2S(), 2),
        (DPMpp2M(lower_order_final=False), 2),
        (DPMpp2M(lower_order_final=False, variant="heun"), 2),
    ],
    ids=repr,
)
def test_order(scheduler: Scheduler, order: int) -> None:
    """Between two noisy levels, in equal steps of log-SNR."""
    assert order_of(scheduler, STEPS) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        (DPMpp3M(lower_order_final=False), 3),
        *((UniPC(order=p, variant=b, lower_order_final=False), p + 1) for p in (1, 2, 3) for b in ("bh1", "bh2")),
        *((UniPC(order=p, corrector=False, lower_order_final=False), p) for p in (1, 2, 3)),
        *((DEIS(order=p, lower_order_final=False), p) for p in (1, 2, 3, 4)),
        *((LMS(order=p), p) for p in (1, 2, 3, 4)),
    ],
    ids=repr,
)
def test_order_from_a_run_up(scheduler: Scheduler, order: int) -> None:
    """A multistep method begins with a first-order step, whose error of h^2 would hide an order above two.

    So the first step is halved twelve times: steps that grow by twos, from h / 4096. This tests uneven steps as well.
    """
    assert order_of(scheduler, STEPS, run_up=True) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("scheduler", [IPNDM(order=2), IPNDM(order=3), IPNDM(order=4), PLMS(), PNDM()], ids=repr)
def test_pseudo_methods_are_of_second_order(scheduler: Scheduler) -> None:
    """In equal steps of t, as Liu et al. 2022 prove: DDIM's step weighs a mean over t as if it were one over sigma."""
    assert order_of(scheduler, STEPS, even=True) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("scheduler", "order"),
    [
        (EulerAncestral(), 1),
        (EulerAncestral(eta=0.5), 1),
        (DDIM(eta=1.0), 1),
        (DDPM(), 1),
        (DPMpp2MSDE(lower_order_final=False), 2),
        (DPMpp2MSDE(lower_order_final=False, variant="heun"), 2),
        (Churn(churn=5.0, inflate=1.0), 2),
    ],
    ids=repr,
)
def test_weak_order(scheduler: Scheduler, order: int) -> None:
    """Of methods that add noise: the error of the samples' variance, which is known exactly for one Gaussian."""
    assert weak_order_of(scheduler, STEPS) == pytest.approx(order, abs=0.3)


def test_the_published_third_order_is_of_second_order() -> None:
    """Why dpmpp-3m differs from the code that the field copies: its D_2 is half the second derivative."""
    published = order_of(DPMpp3M(lower_order_final=False, variant="published"), STEPS, run_up=True)
    assert published == pytest.approx(2, abs=0.3)
    assert order_of(DPMpp3M(lower_order_final=False), STEPS, run_up=True) > published + 0.7


# -- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [Euler(), DPMpp1S(), FlowEuler(), UniPC(order=1, corrector=False), DEIS(order=1)])
def test_first_order_is_ddim(scheduler: Scheduler) -> None:
    x, grid = start(), DDIM(spacing="trailing").grid(LINEAR, 9)
    for ours, ddim in zip(walk(scheduler, x, grid, Oracle(LINEAR)), walk(DDIM(), x, grid, Oracle(LINEAR)), strict=True):
        torch.testing.assert_close(ours, ddim, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ancestral_euler_is_stochastic_ddim(eta: float) -> None:
    x, grid = start(), DDIM(spacing="trailing").grid(LINEAR, 9)
    ours, ddim = (walk(kind(eta=eta), x, grid, Oracle(LINEAR)) for kind in (EulerAncestral, DDIM))
    for a, b in zip(ours, ddim, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_flow_euler_is_a_step_along_the_velocity() -> None:
    schedule, x = FlowSchedule(), start()
    for (here, there), after in zip(
        (grid := FlowEuler(shift=3.0).grid(schedule, 6)).pairs(),
        walk(FlowEuler(), x, grid, Oracle(schedule)),
        strict=True,
    ):
        velocity = (x - clean(x, here.alpha, here.sigma)) / here.sigma
        x = x + (there.t - here.t) / 1000 * velocity
        torch.testing.assert_close(after, x, rtol=0, atol=1e-12)


# -- diffusers -------------------------------------------------------------------------------------------------------

#: Settings of diffusers' schedulers; "steps" is ours.
SETTINGS: list[dict[str, Any]] = [
    {"steps": 10},
    {"steps": 7, "timestep_spacing": "trailing"},
    {"steps": 12, "timestep_spacing": "leading", "steps_offset": 1},
    {"steps": 20, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"steps": 11, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading"},
]
#: Those that also know other grids in sigma / alpha.
GRIDS: list[dict[str, Any]] = [
    {"steps": 8, "use_karras_sigmas": True},
    {"steps": 21, "use_exponential_sigmas": True},
    {"steps": 9, "use_beta_sigmas": True},
]


def vp(s: float) -> tuple[float, float]:
    """(alpha, sigma) with alpha^2 + sigma^2 = 1 of sigma / alpha = s."""
    return 1 / math.sqrt(1 + s * s), s / math.sqrt(1 + s * s)


def grid_of(ss: list[float]) -> Grid:
    """Our grid at given sigma / alpha, which are diffusers' own, rounded as they round them."""
    levels = [Level(float(len(ss) - 1 - i) * 10, *vp(s)) for i, s in enumerate(ss)]
    return Grid(tuple(levels), Ladder())


class Ladder(Smooth):
    """A schedule that is asked only for levels between two of a grid, by log-SNR."""

    def times_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return -log_snr - 100

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.exp(t + 100)
        return 1 / (1 + s * s).sqrt(), s / (1 + s * s).sqrt()


def close(ours: Tensor, theirs: Tensor) -> None:
    """To 1e-5 of the sample's scale: diffusers keeps levels and samples in float32."""
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-5 * max(1.0, float(ours.abs().max())))


def made(name: str, settings: dict[str, Any], **more: Any) -> Any:
    given = {key: value for key, value in settings.items() if key != "steps"}
    theirs = getattr(diffusers, name)(**given, **more)
    theirs.set_timesteps(settings["steps"])
    theirs.set_begin_index(0)
    return theirs


def their_walk(
    theirs: Any, x: Tensor, places: list[float], edm: bool, every: Callable[[int], bool], **more: Any
) -> list[Tensor]:
    """diffusers' x after the steps for which ``every`` holds; ``places`` are sigma / alpha of each evaluation."""
    sample, out = x, []
    if edm:
        sample = x / vp(places[0])[0]
    for i, (t, s) in enumerate(zip(theirs.timesteps, places, strict=True)):
        alpha, sigma = vp(s)
        given = theirs.scale_model_input(sample, t)
        eps = (given - alpha * clean(given, alpha, sigma)) / sigma
        sample = theirs.step(eps, t, sample, **more).prev_sample
        if every(i):
            out.append(sample)
    return out


def compare(ours: Scheduler, theirs: Any, *, edm: bool, **more: Any) -> None:
    """Walk both over diffusers' levels."""
    x, ss = start(), theirs.sigmas.tolist()
    grid = grid_of(ss)
    steps = their_walk(theirs, x, ss[:-1], edm, lambda i: True, **more)
    mine = walk(ours, x, grid, Oracle(grid.schedule, grid.levels))  # type: ignore[arg-type]
    assert len(mine) == len(steps)
    for a, b, level in zip(mine, steps, grid.levels[1:], strict=True):
        close(a, b * level.alpha if edm else b)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
def test_euler_is_diffusers(settings: dict[str, Any]) -> None:
    compare(Euler(), made("EulerDiscreteScheduler", settings), edm=True)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
def test_heun_is_diffusers(settings: dict[str, Any]) -> None:
    theirs = made("HeunDiscreteScheduler", settings)
    x, places = start(), theirs.sigmas.tolist()
    ss = [places[0], *places[1::2]]
    steps = their_walk(theirs, x, places[:-1], True, lambda i: i % 2 == 1 or i == len(places) - 2)
    grid = grid_of(ss)
    for a, b, level in zip(walk(Heun(), x, grid, Oracle(LINEAR, grid.levels)), steps, grid.levels[1:], strict=True):
        close(a, b * level.alpha)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
def test_dpm_2_is_diffusers(settings: dict[str, Any]) -> None:
    theirs = made("KDPM2DiscreteScheduler", settings)
    x, steps = start(), settings["steps"]
    places = [(theirs.sigmas_interpol if i % 2 else theirs.sigmas)[i].item() for i in range(2 * steps - 1)]
    grid = grid_of([theirs.sigmas[0].item(), *theirs.sigmas[1:-1:2].tolist()])
    assert len(grid.levels) == steps + 1
    seen = their_walk(theirs, x, places, True, lambda i: i % 2 == 1 or i == 2 * steps - 2)
    mine = walk(DPM2(), x, grid, Oracle(Ladder(), grid.levels))
    for a, b, level in zip(mine, seen, grid.levels[1:], strict=True):
        close(a, b * level.alpha)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_diffusers(settings: dict[str, Any], order: int) -> None:
    compare(LMS(order=order), made("LMSDiscreteScheduler", settings), edm=True, order=order)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
def test_dpmpp_1s_is_diffusers(settings: dict[str, Any]) -> None:
    compare(DPMpp1S(), made("DPMSolverMultistepScheduler", settings, solver_order=1), edm=False)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_dpmpp_2m_is_diffusers(settings: dict[str, Any], variant: Any) -> None:
    compare(DPMpp2M(variant=variant), made("DPMSolverMultistepScheduler", settings, solver_type=variant), edm=False)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
def test_dpmpp_3m_is_diffusers_as_published(settings: dict[str, Any]) -> None:
    compare(DPMpp3M(variant="published"), made("DPMSolverMultistepScheduler", settings, solver_order=3), edm=False)


@pytest.mark.parametrize("name", ["StableDiffusionTimesteps", "StableDiffusionXLTimesteps"])
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_align_your_steps_is_diffusers(name: str, variant: Any) -> None:
    """The lists of Sabour et al. 2024, named in words, from the grid to the picture; timestep k is time k + 1."""
    config = ScheduleConfig(kind="scaled-linear", beta_start=0.00085, beta_end=0.012)
    theirs = diffusers.DPMSolverMultistepScheduler(solver_type=variant)
    theirs.alphas_cumprod = config.table
    theirs.set_timesteps(timesteps=AysSchedules[name])
    listed = "/".join(str(k + 1) for k in AysSchedules[name])
    ours: Scheduler = default_zoo().make("scheduler", f"dpmpp-2m:times={listed},variant={variant}")
    schedule, x = config.build(), start()
    grid = ours.grid(schedule, len(AysSchedules[name]))
    steps = their_walk(theirs, x, theirs.sigmas[:-1].tolist(), False, lambda i: True)
    for a, b in zip(walk(ours, x, grid, Oracle(schedule)), steps, strict=True):
        close(a, b)


def test_dpmpp_3m_differs_from_diffusers_in_the_second_derivative() -> None:
    settings = {"steps": 20}
    with pytest.raises(AssertionError):
        compare(DPMpp3M(), made("DPMSolverMultistepScheduler", settings, solver_order=3), edm=False)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_dpmpp_2m_sde_is_diffusers(settings: dict[str, Any], variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last term of "heun" is (1 - e^-2h) / (-2h) + 1, and so is ours."""
    draw(monkeypatch, "dpmsolver_multistep")
    theirs = made("DPMSolverMultistepScheduler", settings, algorithm_type="sde-dpmsolver++", solver_type=variant)
    compare(DPMpp2MSDE(variant=variant), theirs, edm=False)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_euler_ancestral_is_diffusers(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, "euler_ancestral_discrete")
    compare(EulerAncestral(), made("EulerAncestralDiscreteScheduler", settings), edm=True)


def draw(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Give diffusers the numbers that our streams give."""
    noise = Noise(range(2), dtype=torch.float64)
    monkeypatch.setattr(
        getattr(zoo_of_theirs, f"scheduling_{module}"), "randn_tensor", lambda shape, **_: noise.normal(*shape[1:])
    )


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_is_diffusers(settings: dict[str, Any], order: Any, variant: Any) -> None:
    """bh1 over levels that end in noise: into clean data theirs gives NaN, as the next test shows."""
    end = "zero" if variant == "bh2" else "sigma_min"
    theirs = made("UniPCMultistepScheduler", settings, solver_order=order, solver_type=variant, final_sigmas_type=end)
    apart(theirs)
    compare(UniPC(order=order, variant=variant), theirs, edm=False)


def test_diffusers_unipc_bh1_ends_in_nan() -> None:
    """B(h) = -h is infinite at sigma = 0, and they multiply it by a sum of no terms. Ours ends where bh2 does."""
    theirs, x = made("UniPCMultistepScheduler", {"steps": 6}, solver_type="bh1"), start()
    assert their_walk(theirs, x, theirs.sigmas[:-1].tolist(), False, lambda i: i == 5)[0].isnan().all()
    grid = UniPC().grid(LINEAR, 40)
    ends = [walk(UniPC(variant=variant), x, grid, Oracle(LINEAR))[-1] for variant in ("bh1", "bh2")]
    torch.testing.assert_close(*ends, rtol=0, atol=0.1)


def apart(theirs: Any) -> None:
    """Move their last level away from the one before: a grid that ends there already would take a step of length 0."""
    if theirs.sigmas[-1] == theirs.sigmas[-2]:
        theirs.sigmas[-1] *= 0.9


def test_unipc_without_corrector_is_diffusers() -> None:
    theirs = made("UniPCMultistepScheduler", {"steps": 10}, disable_corrector=list(range(10)))
    compare(UniPC(corrector=False), theirs, edm=False)


@pytest.mark.parametrize("settings", SETTINGS + GRIDS, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_diffusers(settings: dict[str, Any], order: int) -> None:
    """Over their own levels, which end at the first noisy one; in float64, for in float32 their integrals cancel."""
    theirs = made("DEISMultistepScheduler", settings, solver_order=order)
    assert theirs.sigmas[-1] > 0
    apart(theirs)
    theirs.sigmas = theirs.sigmas.double()
    compare(DEIS(order=order), theirs, edm=False)


@pytest.mark.parametrize("steps", [3, 7, 9, 11, 15])
def test_dpmpp_2s_is_diffusers(steps: int) -> None:
    """Their single-step scheduler takes two levels of its grid for a step; ours takes the middle in log-SNR."""
    theirs = made("DPMSolverSinglestepScheduler", {"steps": steps}, solver_order=2)
    ends = np.exp(np.linspace(math.log(80), math.log(0.02), steps // 2 + 1)).tolist()
    middles = [math.sqrt(a * b) for a, b in zip(ends, ends[1:], strict=False)]
    places = [s for pair in zip(ends, middles, strict=False) for s in pair] + ends[-1:]
    theirs.sigmas = torch.tensor([*places, 0.0])
    x, grid = start(), grid_of([*ends, 0.0])
    seen = their_walk(theirs, x, theirs.sigmas[:-1].tolist(), False, lambda i: i % 2 == 1 or i == steps - 1)
    for a, b in zip(walk(DPMpp2S(), x, grid, Oracle(Ladder(), grid.levels)), seen, strict=True):
        close(a, b)


PNDM_SETTINGS = [
    {"steps": 10},
    {"steps": 20, "steps_offset": 1},
    {"steps": 25, "timestep_spacing": "trailing"},
    {"steps": 50, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"steps": 5, "beta_schedule": "squaredcos_cap_v2"},
]


@pytest.mark.parametrize("settings", PNDM_SETTINGS, ids=str)
@pytest.mark.parametrize("short", [True, False], ids=["plms", "pndm"])
def test_pndm_is_diffusers(settings: dict[str, Any], short: bool) -> None:
    theirs = diffusers.PNDMScheduler(
        **{key: value for key, value in settings.items() if key != "steps"}, skip_prk_steps=short, set_alpha_to_one=True
    )
    kind = settings.get("beta_schedule", "linear").replace("_", "-").replace("squaredcos-cap-v2", "cosine")
    given = {key: settings[key] for key in ("beta_start", "beta_end") if key in settings}
    config = ScheduleConfig(kind=kind, **given)
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = config.table, torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(settings["steps"])
    ours: Scheduler = (PLMS if short else PNDM)(
        spacing=settings.get("timestep_spacing", "leading"), offset=settings.get("steps_offset", 0)
    )
    schedule, x = config.build(), start()
    if not short:
        # Halfway between two whole times our schedule interpolates; theirs would round down.
        assert 1000 // settings["steps"] % 2 == 0 or settings["steps"] in (5, 25, 20, 10, 50)
    sample, seen = x, []
    warm = 2 if short else 12
    for i, t in enumerate(theirs.timesteps):
        alpha, sigma = schedule.level(float(t) + 1)
        eps = (sample - alpha * clean(sample, alpha, sigma)) / sigma
        sample = theirs.step(eps, t, sample).prev_sample
        if i >= warm - 1 or (not short and i % 4 == 3):
            seen.append(sample)
    mine = walk(ours, x, ours.grid(schedule, settings["steps"]), Oracle(schedule))
    assert len(mine) == len(seen)
    for a, b in zip(mine, seen, strict=True):
        close(a, b)


IPNDM_LEVELS = [
    np.sin(np.linspace(0.97, 0, 11) * math.pi / 2) ** 2,
    np.sin(np.linspace(0.9, 0, 8) * math.pi / 2),
    np.linspace(0.999, 0, 21),
    np.linspace(0.995, 0.0, 6) ** 2,
    np.cos(np.linspace(0.05, 1, 16) * math.pi / 2),
]


def their_ipndm(sigmas: Any, x: Tensor) -> list[Tensor]:
    theirs = diffusers.IPNDMScheduler(trained_betas=sigmas)
    theirs.set_timesteps(len(sigmas) - 1)
    theirs.set_begin_index(0)
    sample, seen = x, []
    for t, sigma in zip(theirs.timesteps, sigmas, strict=False):
        alpha, sigma = math.sqrt(1 - float(sigma) ** 2), float(sigma)
        x0 = clean(sample, alpha, sigma)
        v = alpha * (sample - alpha * x0) / sigma - sigma * x0
        sample = theirs.step(v, t, sample).prev_sample
        seen.append(sample)
    return seen


@pytest.mark.parametrize("sigmas", IPNDM_LEVELS, ids=len)
def test_ipndm_is_diffusers(sigmas: Any) -> None:
    sigmas = sigmas.clip(0, 1).astype(np.float32)
    x = start()
    levels = tuple(
        Level(10.0 * (len(sigmas) - 1 - i), math.sqrt(1 - float(s) ** 2), float(s)) for i, s in enumerate(sigmas)
    )
    for a, b in zip(walk(IPNDM(), x, Grid(levels), Oracle(LINEAR, levels)), their_ipndm(sigmas, x), strict=True):
        close(a, b)


def test_diffusers_ipndm_ignores_the_model_at_pure_noise() -> None:
    """Their own grid begins at alpha = 0, where they divide by 1e-8: the first step is the same whatever was predicted.

    Ours takes x_0 from the prediction.
    """
    x, results = start(), []
    for prediction in (torch.zeros_like(x), torch.ones_like(x)):
        theirs = diffusers.IPNDMScheduler()
        theirs.set_timesteps(10)
        results.append(theirs.step(prediction, theirs.timesteps[0], x).prev_sample)
    assert torch.equal(*results)
    grid = Grid((Level(1, 0.0, 1.0), Level(0.5, 0.6, 0.8)))
    ours = [walk(IPNDM(), x, grid, lambda x, t, c=c: torch.full_like(x, c))[-1] for c in (0.0, -1.0)]
    torch.testing.assert_close(ours[0] - ours[1], torch.full_like(x, 0.6))


FEW = [(4, 50, "linear"), (1, 50, "linear"), (8, 100, "scaled_linear"), (3, 40, "linear"), (6, 50, "squaredcos_cap_v2")]
KINDS = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}


@pytest.mark.parametrize(("steps", "distilled", "kind"), FEW)
@pytest.mark.parametrize("scaling", [10.0, 0.01])
def test_lcm_is_diffusers(
    steps: int, distilled: int, kind: str, scaling: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the usual boundary scaling, and with one so small that x itself counts."""
    draw(monkeypatch, "lcm")
    theirs = diffusers.LCMScheduler(
        beta_schedule=kind, original_inference_steps=distilled, clip_sample=False, timestep_scaling=scaling
    )
    config = ScheduleConfig(kind=KINDS[kind], beta_start=theirs.config.beta_start, beta_end=theirs.config.beta_end)  # type: ignore[arg-type]
    theirs.alphas_cumprod = config.table
    theirs.set_timesteps(steps)
    schedule, ours = config.build(), LCM(distilled=distilled, scaling=scaling)
    x = sample = start()
    grid, seen = ours.grid(schedule, steps), []
    assert [t - 1 for t in grid.times[:-1]] == theirs.timesteps.tolist()
    for t in theirs.timesteps:
        alpha, sigma = schedule.level(float(t) + 1)
        eps = (sample - alpha * clean(sample, alpha, sigma)) / sigma
        sample = theirs.step(eps, t, sample).prev_sample
        seen.append(sample)
    for a, b in zip(walk(ours, x, grid, Oracle(schedule)), seen, strict=True):
        close(a, b)


@pytest.mark.parametrize(("steps", "distilled", "kind"), FEW)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd_is_diffusers(steps: int, distilled: int, kind: str, eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stop at timestep 0, which is our time 1; our own grid goes on to clean data."""
    draw(monkeypatch, "tcd")
    theirs = diffusers.TCDScheduler(beta_schedule=kind, original_inference_steps=distilled, clip_sample=False)
    config = ScheduleConfig(kind=KINDS[kind], beta_start=theirs.config.beta_start, beta_end=theirs.config.beta_end)  # type: ignore[arg-type]
    theirs.alphas_cumprod = config.table
    theirs.set_timesteps(steps)
    schedule, ours = config.build(), TCD(distilled=distilled, eta=eta)
    x = sample = start()
    grid = Grid.of(schedule, [*ours.grid(schedule, steps).times[:-1], 1.0])
    assert [t - 1 for t in grid.times[:-1]] == theirs.timesteps.tolist()
    seen = []
    for t in theirs.timesteps:
        alpha, sigma = schedule.level(float(t) + 1)
        eps = (sample - alpha * clean(sample, alpha, sigma)) / sigma
        sample = theirs.step(eps, t, sample, eta=eta).prev_sample
        seen.append(sample)
    for a, b in zip(walk(ours, x, grid, Oracle(schedule)), seen, strict=True):
        close(a, b)


@pytest.mark.parametrize("distilled", [1, 25, 40, 50, 100, 1000])
def test_distilled_grids_are_diffusers(distilled: int) -> None:
    theirs = diffusers.LCMScheduler(original_inference_steps=distilled)
    for steps in range(1, min(distilled, 60) + 1):
        theirs.set_timesteps(steps)
        ours = [t - 1 for t in distilled_times(steps, 1000, distilled)[:-1]]
        for i, (a, b) in enumerate(zip(ours, theirs.timesteps.tolist(), strict=True)):
            # They round i * distilled / steps down in floating point, now and then from below a whole number.
            assert a == b or (i * distilled % steps == 0 and b == a + 1000 // distilled)
    with pytest.raises(OptionError, match="lower steps"):
        distilled_times(distilled + 1, 1001, distilled)


FLOWS = [(4, 1.0), (10, 1.0), (7, 3.0), (12, 0.5), (28, 6.0)]


def velocity(x: Tensor, s: float) -> Tensor:
    return (x - clean(x, 1 - s, s)) / s


@pytest.mark.parametrize(("steps", "shift"), FLOWS)
def test_flow_euler_is_diffusers(steps: int, shift: float) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist())
    schedule, ours = FlowSchedule(), FlowEuler(shift=shift)
    grid = ours.grid(schedule, steps)
    torch.testing.assert_close(torch.tensor(grid.times[:-1]), theirs.timesteps.double().float(), rtol=1e-6, atol=1e-4)
    x = sample = start()
    for a, t, s in zip(walk(ours, x, grid, Oracle(schedule)), theirs.timesteps, theirs.sigmas.tolist(), strict=False):
        sample = theirs.step(velocity(sample, s), t, sample).prev_sample
        close(a, sample)


@pytest.mark.parametrize(("steps", "shift"), FLOWS)
def test_flow_heun_is_diffusers(steps: int, shift: float) -> None:
    theirs = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    theirs.set_begin_index(0)
    places = theirs.sigmas.tolist()
    x = sample = start()
    seen = []
    for i, (t, s) in enumerate(zip(theirs.timesteps, places, strict=False)):
        sample = theirs.step(velocity(sample, s), t, sample).prev_sample
        if i % 2 or i == len(places) - 2:
            seen.append(sample)
    schedule = FlowSchedule()
    grid = Grid.of(schedule, [1000 * s for s in (places[0], *places[1::2])])
    for a, b in zip(walk(FlowHeun(), x, grid, Oracle(schedule)), seen, strict=True):
        close(a, b)


# -- EDM's stochastic sampler ----------------------------------------------------------------------------------------


def churned(x: Tensor, ss: list[float], noise: Noise, churn: float, low: float, high: float, inflate: float) -> Tensor:
    """Algorithm 2 of Karras et al. 2022 as it is printed, in x / alpha and sigma / alpha."""

    def denoised(y: Tensor, s: float) -> Tensor:
        alpha, sigma = vp(s)
        return clean(y * alpha, alpha, sigma)

    y, steps = x / vp(ss[0])[0], len(ss) - 1
    for s, after in zip(ss, ss[1:], strict=False):
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= s <= high else 0.0
        risen = s + gamma * s
        if gamma:
            y = y + math.sqrt(risen**2 - s**2) * inflate * noise.normal(*y.shape[1:])
        slope = (y - denoised(y, risen)) / risen
        y_next = y + (after - risen) * slope
        if after:
            y_next = y + (after - risen) * (slope + (y_next - denoised(y_next, after)) / after) / 2
        y = y_next
    return y


@pytest.mark.parametrize("churn", [0.0, 4.0, 40.0, 1000.0])
@pytest.mark.parametrize(("low", "high"), [(0.05, 5.0), (0.0, 60.0)])
def test_churn_is_edm(churn: float, low: float, high: float) -> None:
    x, ss = start(), [*np.geomspace(60, 0.02, 12).tolist(), 0.0]
    ours = Churn(churn=churn, low=low, high=high, inflate=1.007)
    expected = churned(x, ss, Noise(range(2), dtype=torch.float64), churn, low, high, 1.007)
    grid = grid_of(ss)
    # The ladder's times rise with sigma / alpha, as a schedule's do; the grid's own are replaced to fit.
    levels = tuple(
        Level(-level.log_snr - 100 if level.sigma else -1e9, level.alpha, level.sigma) for level in grid.levels
    )
    grid = Grid(levels, grid.schedule)
    torch.testing.assert_close(walk(ours, x, grid, Oracle(Ladder(), levels))[-1], expected, rtol=0, atol=1e-9)


def test_churn_never_leaves_the_schedule() -> None:
    grid, oracle = Churn(high=1e9).grid(LINEAR, 10), Oracle(LINEAR)
    walk(Churn(high=1e9, churn=1000.0), start(), grid, oracle)
    assert max(oracle.calls) <= 1000


def test_diffusers_churn_evaluates_the_model_below_the_risen_level() -> None:
    """Their Euler scheduler adds noise after the model was evaluated, at the level before; EDM evaluates after it."""
    theirs, x = made("EulerDiscreteScheduler", {"steps": 10}), start()
    y = x * 10
    given = theirs.scale_model_input(y, theirs.timesteps[0])
    s, after = theirs.sigmas[:2].tolist()
    stale = torch.full_like(given, 0.7)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stepped = theirs.step(
        stale, theirs.timesteps[0], y, s_churn=2.0, generator=torch.Generator().manual_seed(0)
    ).prev_sample
    risen = s * 1.2
    expected = y + noise * math.sqrt(risen**2 - s**2) + (after - risen) * stale
    torch.testing.assert_close(stepped, expected, rtol=1e-5, atol=1e-4)


# -- restart ---------------------------------------------------------------------------------------------------------


def restarted(x: Tensor, ss: list[float], noise: Noise, low: float, high: float, repeats: int, points: int) -> Tensor:
    """Algorithm 2 of Xu et al. 2023 with their Heun steps, in x / alpha and sigma / alpha; ``points`` is N_restart."""

    def denoised(y: Tensor, s: float) -> Tensor:
        alpha, sigma = vp(s)
        return clean(y * alpha, alpha, sigma)

    def heun(y: Tensor, s: float, after: float) -> Tensor:
        first = (y - denoised(y, s)) / s
        y_next = y + (after - s) * first
        return y + (after - s) * (first + (y_next - denoised(y_next, after)) / after) / 2 if after else y_next

    y = x / vp(ss[0])[0]
    nearest = min(range(1, len(ss) - 1), key=lambda i: abs(ss[i] - low))
    for i, (s, after) in enumerate(zip(ss, ss[1:], strict=False)):
        y = heun(y, s, after)
        if i + 1 == nearest:
            ramp = np.linspace(high ** (1 / 7), after ** (1 / 7), points) ** 7
            for _ in range(repeats):
                y = y + math.sqrt(high**2 - after**2) * noise.normal(*y.shape[1:])
                for a, b in zip(ramp, ramp[1:], strict=False):
                    y = heun(y, float(a), float(b))
    return y


@pytest.mark.parametrize(("low", "high"), [(0.06, 0.3), (0.5, 6.0)])
@pytest.mark.parametrize(("repeats", "descent"), [(0, 1), (1, 1), (2, 3)])
def test_restart_is_the_paper(low: float, high: float, repeats: int, descent: int) -> None:
    ours = Restart(low=(low,), high=(high,), repeats=(repeats,), descent=(descent,))
    x, grid = start(), ours.grid(LINEAR, 11)
    ss = [level.sigma / level.alpha for level in grid.levels]
    expected = restarted(x, ss, Noise(range(2), dtype=torch.float64), low, high, repeats, descent + 1)
    torch.testing.assert_close(walk(ours, x, grid, Oracle(LINEAR))[-1], expected, rtol=0, atol=1e-8)


def test_restart_goes_through_several_intervals() -> None:
    """Each from the level nearest to its low, the noisiest first, as table 3 of the paper lists them for ImageNet."""
    ours = default_zoo().make("scheduler", "restart:low=0.06/1.1,high=0.3/1.9,repeats=2/1,descent=3")
    assert ours == Restart(low=(0.06, 1.1), high=(0.3, 1.9), repeats=(2, 1), descent=(3,))
    grid, oracle = ours.grid(LINEAR, 14), Oracle(LINEAR)
    walk(ours, start(), grid, oracle)
    assert len(oracle.calls) == ours.nfe(14) == 2 * (13 + 2 * 3 + 1 * 3) + 1
    s = [LINEAR.level(t)[1] / LINEAR.level(t)[0] for t in oracle.calls]
    rises = [(a, b) for a, b in zip(s, s[1:], strict=False) if b > 1.05 * a]
    assert [b for _, b in rises] == pytest.approx([1.9, 0.3, 0.3], rel=1e-6)


def test_an_interval_alone_is_one_of_a_list_that_repeats_nothing_else() -> None:
    x, alone = start(), Restart(low=(0.5,), high=(2.0,))
    both = Restart(low=(0.5, 0.06), high=(2.0, 0.3), repeats=(2, 0), descent=(2, 5))
    ends = [walk(one, x, one.grid(LINEAR, 9), Oracle(LINEAR))[-1] for one in (alone, both)]
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [("low=0.1/0.2", "a value for each"), ("low=0.5", "below its high"), ("repeats=1/2", "a value for each"),
     ("low=a", "1000/851/737"), ("descent=1.5", "descent")],
)  # fmt: skip
def test_intervals_that_do_not_fit_are_refused(options: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        default_zoo().make("scheduler", f"restart:{options}")


@pytest.mark.parametrize("name", NAMES)
def test_own_grids_begin_where_something_can_be_told_from_noise(name: str) -> None:
    """A cosine schedule's last sigma / alpha is 20,000; a slope there, or a ramp from there, is of no use."""
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    cosine = ScheduleConfig(kind="cosine").build()
    first = scheduler.grid(cosine, 8).levels[0]
    if name not in ("lcm", "tcd", "flow-euler", "flow-heun", "lms", "ipndm"):
        assert first.sigma / first.alpha <= 80.0 * (1 + 1e-9)
    if name in ("heun", "churn", "restart", "dpm-2", "plms", "pndm"):
        assert first.sigma / first.alpha <= 20.0 * (1 + 1e-9)


def test_restart_contracts_the_error_of_a_coarse_walk() -> None:
    """What it is for: with the same steps, the samples' distribution is nearer to the data's."""
    x, distances = start(1, 20_000), []
    x = LINEAR.level(1000)[1] * x
    for scheduler in (Heun(), Restart(low=(0.3,), high=(4.0,), repeats=(6,), descent=(4,))):
        out = walk(scheduler, x, scheduler.grid(LINEAR, 4), Oracle(LINEAR))[-1]
        places, _ = distribution(out, Level(0.0, 1.0, 0.0)).flatten().sort()
        even = (torch.arange(len(places), dtype=torch.float64) + 0.5) / len(places)
        distances.append(float((places - even).abs().max()))
    assert distances[1] < 0.7 * distances[0]


# -- what noise must keep --------------------------------------------------------------------------------------------

#: Covariance of a two-channel Gaussian.
SIGMA = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
MU = torch.tensor([0.4, -0.2], dtype=torch.float64)


def correlated(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ N(MU, SIGMA), over the channels of x."""
    gain = alpha * SIGMA @ torch.linalg.inv(alpha**2 * SIGMA + sigma**2 * torch.eye(2, dtype=torch.float64))
    off = x - alpha * MU[:, None, None]
    return MU[:, None, None] + torch.einsum("ij,njhw->nihw", gain, off)


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerAncestral(), EulerAncestral(eta=0.5), DPMpp2MSDE(), DPMpp2MSDE(variant="heun"), Churn(inflate=1.0), Heun(),
        Restart(), Restart(low=(0.5,), high=(5.0,), repeats=(4,), descent=(12,)),
    ],
    ids=repr,
)  # fmt: skip
def test_mean_and_covariance_are_kept(scheduler: Scheduler) -> None:
    steps = 200 if isinstance(scheduler, EulerAncestral) else 60
    schedule, size = ScheduleConfig().build(), 150
    grid = scheduler.grid(schedule, steps)
    first = grid.levels[0]
    noise = Noise([11], dtype=torch.float64)
    scale = torch.linalg.cholesky(first.alpha**2 * SIGMA + first.sigma**2 * torch.eye(2, dtype=torch.float64))
    x = first.alpha * MU[:, None, None] + torch.einsum("ij,njhw->nihw", scale, noise.normal(2, size, size))
    *_, x = scheduler.walk(lambda x, t: correlated(x, *schedule.level(t)), x, grid, noise)
    points = x[0].reshape(2, -1)
    # Four standard errors, and what the steps' finite number leaves.
    count = size * size
    torch.testing.assert_close(points.mean(1), MU, rtol=0, atol=4 * math.sqrt(0.5 / count) + 0.003)
    torch.testing.assert_close(torch.cov(points), SIGMA, rtol=0, atol=4 * 0.5 * math.sqrt(2 / count) + 0.008)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDPM(), DDIM(eta=0.6), EulerAncestral(), EulerAncestral(eta=0.5), DPMpp2MSDE(), DPMpp2MSDE(variant="heun"),
        Churn(inflate=1.0), Churn(inflate=1.0, order=1), Restart(low=(0.5,), high=(3.0,)), LCM(scaling=1e6),
        TCD(eta=0.3), TCD(eta=1.0),
    ],
    ids=repr,
)  # fmt: skip
def test_every_level_is_kept_where_the_data_are_one_image(scheduler: Scheduler) -> None:
    """Mean alpha x_0 and variance sigma^2 after every step, exactly: every draw is a direction of its own."""
    grid, count, point = scheduler.grid(LINEAR, 9), 40, 0.7
    x = torch.zeros(1, 1, 1, count, dtype=torch.float64)
    first = grid.levels[0]
    # The last place holds what is no noise, the first the noise that the walk begins with.
    x[..., -1], x[..., 0] = first.alpha * point, first.sigma
    image = torch.zeros_like(x)
    image[..., -1] = point
    walked = scheduler.walk(lambda x, t: image, x, grid, Apart(1))
    for after, level in zip(walked, grid.levels[1:], strict=True):
        assert float(after[..., -1]) == pytest.approx(level.alpha * point, abs=1e-6)
        assert float(after[..., :-1].square().sum()) == pytest.approx(level.sigma**2, abs=1e-6)


@pytest.mark.parametrize("scheduler", [LCM(), TCD(eta=1.0)], ids=repr)
def test_noising_anew_keeps_the_distribution_of_a_consistent_model(scheduler: Scheduler) -> None:
    """With the exact consistency function x_t -> x_0, every step samples the data: Kolmogorov-Smirnov at 1e-4."""
    grid = scheduler.grid(LINEAR, 4)
    first, data = grid.levels[0], Level(0.0, 1.0, 0.0)
    noise = Noise([5], dtype=torch.float64)
    drawn, which = noise.normal(1, 60, 60), torch.rand(60, 60, generator=torch.Generator().manual_seed(1)) < WEIGHTS[1]
    x0 = MEANS[which.long()] + SPREADS[which.long()] * noise.normal(1, 60, 60)
    *_, x = scheduler.walk(
        lambda x, t: flow(x, Level(t, *LINEAR.level(t)), data), first.alpha * x0 + first.sigma * drawn, grid, noise
    )
    places, _ = distribution(x, data).flatten().sort()
    even = (torch.arange(len(places), dtype=torch.float64) + 0.5) / len(places)
    assert float((places - even).abs().max()) < 2.23 / math.sqrt(len(places))


# -- all of them -----------------------------------------------------------------------------------------------------


def test_all_are_registered() -> None:
    assert set(NAMES) <= set(default_zoo().names("scheduler"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 17])
def test_evaluations_are_counted(name: str, steps: int) -> None:
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    grid, oracle, x = scheduler.grid(LINEAR, steps), Oracle(LINEAR), start()
    out = walk(scheduler, x, grid, oracle)
    assert len(out) == steps
    assert len(oracle.calls) == scheduler.nfe(steps)
    assert scheduler.evaluated(grid) == oracle.calls
    assert all(step.isfinite().all() and step.shape == x.shape and step.dtype == x.dtype for step in out)


@pytest.mark.parametrize("name", [*NAMES, "ddpm", "ddim:eta=0.7"])
def test_any_split_of_a_batch_gives_the_same(name: str) -> None:
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    grid, x = scheduler.grid(LINEAR, 6), start(5)
    whole = scheduler.walk(Oracle(LINEAR), x, grid, Noise(range(5), dtype=torch.float64))
    rows = [
        scheduler.walk(Oracle(LINEAR), x[part.start : part.stop], grid, Noise(part, dtype=torch.float64))
        for part in (range(2), range(2, 3), range(3, 5))
    ]
    for together, *apart in zip(whole, *rows, strict=True):
        torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_two_walks_of_one_scheduler_do_not_meet(name: str) -> None:
    """Nothing is kept in the scheduler: two interleaved walks are two walks one after the other."""
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    grid, xs = scheduler.grid(LINEAR, 6), (start(seed=1), start(seed=2))
    alone = [walk(scheduler, x, grid, Oracle(LINEAR)) for x in xs]
    walks = [scheduler.walk(Oracle(LINEAR), x, grid, Noise(range(2), dtype=torch.float64)) for x in xs]
    for pair, *both in zip(zip(*walks, strict=True), *alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, both, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_walks_out_of_pure_noise(name: str, steps: int) -> None:
    """alpha = 0 at the first level, where sigma / alpha and the log-SNR have no value; x_0 predictions have one."""
    schedule = ScheduleConfig(zero_terminal_snr=True).build()
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    times = [1000 - 1000 * i / steps for i in range(steps)] + [0]
    grid = Grid.of(schedule, times)
    assert grid.levels[0].alpha == 0
    out = walk(scheduler, start(), grid, Oracle(schedule))
    assert all(step.isfinite().all() and float(step.abs().max()) < 10 for step in out)


@pytest.mark.parametrize(
    "schedule", [LINEAR, FlowSchedule(), ScheduleConfig(kind="edm").build()], ids=["linear", "flow", "edm"]
)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOISY])
def test_walks_end_near_the_exact_flow(name: str, schedule: NoiseSchedule) -> None:
    """From the noise to clean data on the default grid, 100 steps; on a flow schedule as well."""
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    grid = scheduler.grid(schedule, 100)
    x = start(1, 60)
    off = walk(scheduler, x, grid, Oracle(schedule))[-1] - flow(x, grid.levels[0], grid.levels[-1])
    assert float(off.abs().max()) < (0.09 if name in ("euler", "flow-euler", "dpmpp-1s") else 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_who_draws_noise_says_so(name: str) -> None:
    """Only those can be walked back."""
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    assert scheduler.draws(scheduler.grid(LINEAR, 8)) == (name in NOISY)
    assert not DDIM().draws(DDIM().grid(LINEAR, 8))
    assert DDIM(eta=0.1).draws(DDIM().grid(LINEAR, 8))


@pytest.mark.parametrize("name", NAMES)
def test_low_precision_stays_low(name: str) -> None:
    scheduler: Scheduler = default_zoo().make("scheduler", name)
    x = start().bfloat16()
    noise = Noise(range(2), dtype=torch.bfloat16)
    *_, out = scheduler.walk(lambda x, t: x / 2, x, scheduler.grid(LINEAR, 5), noise)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("lms", "order=5"), ("unipc", "variant=bh3"), ("euler", "spacing=odd"), ("heun", "order=2"), ("tcd", "eta=2"),
     ("dpmpp-2m", "times=1000/x")],
)  # fmt: skip
def test_refused_options_are_one_line(name: str, options: str) -> None:
    with pytest.raises(OptionError, match=name) as caught:
        default_zoo().make("scheduler", f"{name}:{options}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_every_grid_can_be_named(spacing: Spacing) -> None:
    made: Scheduler = default_zoo().make("scheduler", f"dpmpp-2m:spacing={spacing}")
    assert made.grid(LINEAR, 8) == DPMpp2M(spacing=spacing).grid(LINEAR, 8)
    assert len(walk(made, start(), made.grid(LINEAR, 8), Oracle(LINEAR))) == 8


@pytest.mark.parametrize("name", ["dpmpp-1s", "dpmpp-2m", "unipc", "deis", "ipndm", "plms", "pndm", "tcd"])
def test_a_walk_may_stop_at_the_first_noisy_level(name: str) -> None:
    full, stopped = (default_zoo().make("scheduler", f"{name}:end={end}").grid(LINEAR, 8) for end in (0, 1))
    assert full.levels[:-1] == stopped.levels[:-1]
    assert (full.levels[-1].t, stopped.levels[-1]) == (0, stopped.at(1.0))


@pytest.mark.parametrize(
    "name",
    ["dpmpp-1s", "dpmpp-2m", "dpmpp-2m:variant=heun", "dpmpp-3m", "dpmpp-3m:variant=published", "dpmpp-2m-sde",
     "dpmpp-2s", "unipc:corrector=false", "unipc:order=3,variant=bh1,corrector=false,lower_order_final=false", "deis",
     "deis:order=4,lower_order_final=false", "ipndm", "plms", "pndm"],
)  # fmt: skip
@pytest.mark.parametrize("steps", [6, 20, 500])
def test_a_step_in_place_changes_nothing(name: str, steps: int) -> None:
    """Grids that begin at the first noisy level and stop there: the last step is of length 0, whatever the order."""
    options = "spacing=leading,end=1"
    scheduler: Scheduler = default_zoo().make("scheduler", f"{name}{',' if ':' in name else ':'}{options}")
    grid = scheduler.grid(LINEAR, steps)
    assert grid.levels[-1].sigma == grid.levels[-2].sigma
    *_, before, last = walk(scheduler, start(), grid, Oracle(LINEAR))
    torch.testing.assert_close(last, before, rtol=0, atol=1e-9)


def test_the_noise_that_a_walk_begins_with() -> None:
    eps = start()
    grid = Euler(spacing="trailing").grid(ScheduleConfig(beta_end=0.012).build(), 5)
    assert Euler().begin(eps, grid) is eps
    torch.testing.assert_close(Euler(start="level").begin(eps, grid), eps * grid.levels[0].sigma)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 9])
def test_a_level_between_may_be_of_the_grid(steps: int) -> None:
    """One evaluation a step, at the grid's own times; at the end a step or two of first order."""
    scheduler = DPMpp2S(middle="grid")
    grid = scheduler.grid(LINEAR, steps)
    assert scheduler.evaluated(grid) == list(grid.times[:-1])
    assert scheduler.nfe(steps) == steps == len(walk(scheduler, start(), grid, Oracle(LINEAR)))


def test_whole_times_halfway_are_halfway_through_an_even_step() -> None:
    half, whole = PNDM(spacing="leading"), PNDM(spacing="leading", middle="whole")
    assert half.evaluated(half.grid(LINEAR, 50)) == whole.evaluated(whole.grid(LINEAR, 50))
    odd = whole.evaluated(whole.grid(LINEAR, 40))
    assert odd[:4] == [976.0, 963.0, 963.0, 951.0]
    assert all(t == int(t) for t in odd)


@pytest.mark.parametrize("kind", [IPNDM, PLMS, PNDM])
def test_a_mean_of_one_evaluation_is_the_same_of_v_and_of_eps(kind: type[Scheduler]) -> None:
    x, grid = start(), kind(spacing="leading").grid(LINEAR, 1)
    first, second = (walk(kind(spacing="leading", mean=mean), x, grid, Oracle(LINEAR)) for mean in ("eps", "v"))
    torch.testing.assert_close(first, second)


def test_options_reach_the_method() -> None:
    made = default_zoo().make("scheduler", "unipc:order=3,variant=bh1,spacing=karras,rho=5")
    assert made == UniPC(order=3, variant="bh1", spacing="karras", rho=5.0)
    with pytest.raises(ValidationError):
        made.order = 2


def test_flow_velocities_are_predictions() -> None:
    x0, eps = start(), start(seed=9)
    for alpha, sigma in ((0.3, 0.7), (0.0, 1.0), (0.6, 0.8)):
        a, s = torch.tensor(alpha), torch.tensor(sigma)
        u = target(x0, eps, a, s, "flow")
        torch.testing.assert_close(to_x0(u, alpha * x0 + sigma * eps, alpha, sigma, "flow"), x0)


# -- a model of flow matching ----------------------------------------------------------------------------------------


def flow_recipe() -> DiffusionRecipe:
    """Two bright and dark halves, a straight line between noise and data, and a network that learns the velocity."""
    network = {
        "kind": "unet", "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [16, 16],
        "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "layers_per_block": 1, "norm_num_groups": 8, "add_attention": False, "num_class_embeds": 3,
    }  # fmt: skip
    model = {"network": network, "num_classes": 2, "schedule": {"kind": "flow"}, "prediction": "flow", "clip": None}
    config = DiffusionRecipeConfig.model_validate({"model": model, "rate": {"peak": 3e-3, "warmup": 5}, "average": 0.9})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionRecipe(config, squares(64, 8), steps=80, device=torch.device("cpu"))


def test_a_model_of_flow_matching_from_recipe_to_picture() -> None:
    recipe, images = flow_recipe(), squares(64, 8)
    data, losses = images.floats(), []
    for step in range(80):
        rows = torch.randint(64, (16,), generator=torch.Generator().manual_seed(step))
        batch = Batch(data[rows], images.labels[rows], step)
        losses.append(recipe.step(batch, torch.Generator().manual_seed(step))["loss"])
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    model = recipe.average.eval()
    labels = [0, 1, 0, 1]
    made = model.generate(range(4), labels=labels, scheduler="flow-euler", steps=8)
    x, told = Noise(range(4)).start(1, 8, 8), {"class_labels": torch.tensor(labels)}
    for i in range(8):
        t = 1 - i / 8
        with torch.inference_mode():
            x = x - model.denoiser.network(x, torch.tensor(1000 * t), **told) / 8
    torch.testing.assert_close(made, x.clamp(-1, 1), rtol=0, atol=1e-4)
    for name, evaluations in (("flow-heun", 15), ("dpmpp-2m", 8), ("unipc", 8), ("restart", 23)):
        call: dict[str, Any] = {"labels": labels, "scheduler": name, "steps": 8}
        drawn = model.generate(range(4), **call)
        left, right = drawn[..., :4].mean((1, 2, 3)), drawn[..., 4:].mean((1, 2, 3))
        assert (left > right).tolist() == [True, False, True, False], name
        assert model.nfe(model.options(**call)) == evaluations


def test_learned_times_and_flows_do_not_meet() -> None:
    config = flow_recipe().config.model.model_dump()
    network = {**config["network"], "time_embedding_type": "learned", "num_train_timesteps": 1000}
    with pytest.raises(ValidationError, match="whole times"):
        DiffusionConfig.model_validate({**config, "network": network})
