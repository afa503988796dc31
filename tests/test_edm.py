"""Models in EDM's form, whose time is sigma: diffusers' preconditioning and solvers; a model from recipe to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo.cards import Card
from genzoo.denoiser import Denoiser
from genzoo.errors import GenzooError, OptionError
from genzoo.noise import Noise
from genzoo.recipe import Batch
from genzoo.registry import default_zoo
from genzoo.schedule import ScheduleConfig, SigmaSchedule
from genzoo.scheduler import Scheduler
from genzoo_plugins.diffusion.model import DiffusionConfig
from genzoo_plugins.diffusion.recipe import DiffusionRecipe, DiffusionRecipeConfig

#: diffusers' settings; "steps" is ours.
SETTINGS: list[dict[str, Any]] = [
    {"steps": 18},
    {"steps": 7, "sigma_data": 1.0},
    {"steps": 10, "sigma_min": 0.02, "sigma_max": 20.0},
    {"steps": 12, "rho": 4.0, "sigma_data": 0.7},
    {"steps": 9, "sigma_schedule": "exponential"},
    {"steps": 16, "sigma_schedule": "exponential", "sigma_max": 120.0},
]


class Network(nn.Module):
    """Some smooth function of what it is given and told."""

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return torch.sin(1.7 * x.roll(1, -1) + timestep) + 0.3 * torch.cos(x - 2 * timestep)


def draw() -> Tensor:
    return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(settings: dict[str, Any]) -> tuple[SigmaSchedule, Denoiser, str]:
    """Our schedule, denoiser and grid's options for diffusers' settings."""
    low, high = settings.get("sigma_min", 0.002), settings.get("sigma_max", 80.0)
    schedule = ScheduleConfig(kind="edm", sigma_min=low, sigma_max=high).build()
    assert isinstance(schedule, SigmaSchedule)
    options = f"spacing={settings.get('sigma_schedule', 'karras')},rho={settings.get('rho', 7.0)}"
    denoiser = Denoiser(Network(), schedule, "edm", spread=settings.get("sigma_data", 0.5))
    return schedule, denoiser, options + ",sigma_min=null,sigma_max=null"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("euler:{}", ("EDMEulerScheduler", {})),
        ("dpmpp-1s:{}", ("EDMDPMSolverMultistepScheduler", {"solver_order": 1})),
        ("dpmpp-2m:{}", ("EDMDPMSolverMultistepScheduler", {})),
        ("dpmpp-2m:{},variant=heun", ("EDMDPMSolverMultistepScheduler", {"solver_type": "heun"})),
        ("dpmpp-3m:{},variant=published", ("EDMDPMSolverMultistepScheduler", {"solver_order": 3})),
    ],
    ids=str,
)
def test_walks_are_diffusers(ours: str, theirs: tuple[str, dict[str, Any]], settings: dict[str, Any]) -> None:
    """Preconditioning, grid and step, each from the settings: theirs in x / alpha, which begins at sigma_max."""
    schedule, denoiser, options = made(settings)
    name, more = theirs
    their = getattr(diffusers, name)(**{key: value for key, value in settings.items() if key != "steps"}, **more)
    their.set_timesteps(settings["steps"])
    scheduler: Scheduler = default_zoo().make("scheduler", ours.format(options))
    grid = scheduler.grid(schedule, settings["steps"])
    levels = torch.tensor([level.sigma / level.alpha for level in grid.levels], dtype=torch.float64)
    torch.testing.assert_close(levels, their.sigmas.double(), rtol=1e-5, atol=0)
    x = draw()
    sample = x / grid.levels[0].alpha
    mine = scheduler.walk(lambda x, t: denoiser(x, t, {}), x, grid, Noise(range(2), dtype=torch.float64))
    for x, t, there in zip(mine, their.timesteps, grid.levels[1:], strict=True):
        given = their.scale_model_input(sample, t)
        sample = their.step(denoiser.network(given, t), t, sample).prev_sample
        torch.testing.assert_close(x, sample * there.alpha, rtol=0, atol=1e-5 * max(1.0, float(x.abs().max())))


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_a_network_is_told_what_diffusers_tells_it(spread: float) -> None:
    """One time for all and one for each: c_noise, and an input of the deviation 1."""
    their = diffusers.EDMEulerScheduler(sigma_data=spread)
    schedule = ScheduleConfig(kind="edm").build()
    seen: list[tuple[Tensor, Tensor]] = []

    class Listener(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            seen.append((x, timestep))
            return x

    denoiser = Denoiser(Listener(), schedule, "edm", spread=spread)
    for t in (1.0, 0.4, 300.5, 1000.0):
        alpha, sigma = schedule.level(t)
        expected = their.precondition_outputs(draw() / alpha, their.precondition_inputs(draw() / alpha, sigma / alpha),
                                              sigma / alpha)  # fmt: skip
        for given in (t, torch.full((2,), t, dtype=torch.float64)):
            torch.testing.assert_close(denoiser(draw(), given, {}), expected, rtol=1e-6, atol=1e-9)
            x, told = seen[-1]
            torch.testing.assert_close(x, their.precondition_inputs(draw() / alpha, sigma / alpha))
            assert told.flatten()[0].item() == pytest.approx(float(their.precondition_noise(sigma / alpha)), abs=1e-6)


def test_even_times_are_the_papers_grid() -> None:
    """Karras et al. 2022, eq. 5 with the bounds of table 1; below them sigma goes straight to 0."""
    schedule = ScheduleConfig(kind="edm", steps=18).build()
    alpha, sigma = schedule.levels(torch.arange(18, 0, -1.0, dtype=torch.float64))
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    assert (sigma / alpha).tolist() == pytest.approx([(ends[0] + i / 17 * (ends[1] - ends[0])) ** 7 for i in range(18)])
    assert schedule.level(0.0) == (1.0, 0.0)
    below, above = schedule.level(0.25)
    assert above / below == pytest.approx(0.0005)
    assert [schedule.counted(t) for t in (1.0, 7.5)] == [0.0, 6.5]
    with pytest.raises(OptionError, match="its times are sigmas"):
        _ = ScheduleConfig(kind="edm").table


def recipe() -> DiffusionRecipe:
    """Two bright and dark halves, and a network that learns F."""
    network = {
        "kind": "unet", "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [16, 16],
        "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "layers_per_block": 1, "norm_num_groups": 8, "add_attention": False, "num_class_embeds": 3,
    }  # fmt: skip
    model = {"network": network, "num_classes": 2, "schedule": {"kind": "edm"}, "prediction": "edm", "spread": 0.7}
    config = DiffusionRecipeConfig.model_validate({"model": model, "rate": {"peak": 3e-3, "warmup": 5}, "average": 0.9})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionRecipe(config, tiny.squares(64, 8), steps=80, device=torch.device("cpu"))


def test_a_sigma_model_from_recipe_to_edit(tmp_path: Path) -> None:
    trained, images = recipe(), tiny.squares(64, 8)
    data, losses = images.floats(), []
    for step in range(80):
        rows = torch.randint(64, (16,), generator=torch.Generator().manual_seed(step))
        batch = Batch(data[rows], images.labels[rows], step)
        losses.append(trained.step(batch, torch.Generator().manual_seed(step))["loss"])
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    model, labels = trained.average.eval(), [0, 1, 0, 1]

    def bright(drawn: Tensor) -> list[bool]:
        return (drawn[..., :4].mean((1, 2, 3)) > drawn[..., 4:].mean((1, 2, 3))).tolist()

    for scheduler in ("euler", "heun", "ddim", "dpmpp-2m", "churn", "unipc", "lms"):
        call: dict[str, Any] = {"scheduler": scheduler, "steps": 10, "labels": labels, "guidance": 2.0}
        drawn = model.generate(range(4), **call)
        assert bright(drawn) == [True, False, True, False], scheduler
        torch.testing.assert_close(model.generate([2], **{**call, "labels": 0})[0], drawn[2], rtol=0, atol=1e-4)
    walk: dict[str, Any] = {"scheduler": "heun", "steps": 12}
    back = model.generate(image=drawn, method="inversion:reconstruct=true,iterations=3", labels=labels, **walk)
    assert float((back - drawn).square().mean().sqrt()) < 0.1
    other = model.generate(image=drawn, method="inversion", labels=[1, 0, 1, 0], guidance=2.0, **walk)
    assert bright(other) == [False, True, False, True]
    mask = torch.zeros(8, 8)
    mask[:4] = 1
    for method in ("sdedit", "repaint:resamplings=2"):
        filled = model.generate(image=drawn, mask=mask, method=method, labels=labels, steps=8)
        assert torch.equal(filled[..., 4:, :], drawn[..., 4:, :])
        assert bright(filled) == [True, False, True, False]
    written = tiny.card("edm.tiny", **trained.trained().card, shape=model.shape, classes=["left", "right"])
    assert written["config"]["spread"] == 0.7
    model.card, model.zoo = Card.model_validate(written), default_zoo()
    model.save_pretrained(tmp_path / "ours")
    again = default_zoo().load(str(tmp_path / "ours"))
    torch.testing.assert_close(again.generate(range(4), **call), drawn, rtol=0, atol=1e-6)
    with pytest.raises(GenzooError, match="'edm' is not written"):
        again.save_pretrained(tmp_path / "theirs", layout="diffusers")


def test_learned_times_and_sigmas_do_not_meet() -> None:
    config = recipe().config.model.model_dump()
    network = {**config["network"], "time_embedding_type": "learned", "num_train_timesteps": 1000}
    with pytest.raises(ValidationError, match="whole times"):
        DiffusionConfig.model_validate({**config, "network": network})
