"""``unet/`` of Stable Diffusion as a denoiser of latents: the numbers of diffusers' UNet2DConditionModel."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from genzoo.errors import GenzooError, OptionError
from genzoo.formats import FormatError
from genzoo.registry import default_zoo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LMSDiscreteScheduler,
        PNDMScheduler,
        UNet2DConditionModel,
        UniPCMultistepScheduler,
    )

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

#: Stable Diffusion 1.5, a tenth as wide: three attended levels and a plain one; attention_head_dim is a count of heads.
STABLE1: dict[str, Any] = {
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64, 64],
    "cross_attention_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 16,
    "layers_per_block": 1,
    "norm_num_groups": 32,
}
#: Stable Diffusion 2.1: projections are linear, and each level has its count of heads.
STABLE2: dict[str, Any] = {
    **STABLE1,
    "attention_head_dim": [4, 8, 16, 16],
    "use_linear_projection": True,
    "upcast_attention": True,
}
#: A small fixture's shape: two levels.
SMALL: dict[str, Any] = {
    **STABLE1,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}
NETWORKS = {"1.5": STABLE1, "2.1": STABLE2, "small": SMALL}

SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
#: Each as the published folders have it.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "steps_offset": 1, "set_alpha_to_one": False}),
    "ddim v": (
        DDIMScheduler,
        {"clip_sample": False, "steps_offset": 1, "set_alpha_to_one": False, "prediction_type": "v_prediction"},
    ),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}),
    "dpm-solver": (DPMSolverMultistepScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
    "unipc of order 3": (UniPCMultistepScheduler, {"solver_order": 3}),
    "pndm v": (PNDMScheduler, {"skip_prk_steps": True, "steps_offset": 1, "prediction_type": "v_prediction"}),
    "runge-kutta": (PNDMScheduler, {"steps_offset": 1}),
    "dpm-solver karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "euler": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler v": (EulerDiscreteScheduler, {"prediction_type": "v_prediction"}),
    "euler ancestral": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "heun": (HeunDiscreteScheduler, {}),
    "lms": (LMSDiscreteScheduler, {"use_karras_sigmas": True}),
}


def save(folder: Path, config: dict[str, Any], scheduler: str = "ddim") -> Any:
    torch.manual_seed(0)
    network = UNet2DConditionModel(**config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.conv_out.weight.mul_(0.3)
    network.save_pretrained(folder / "unet")
    kind, settings = SCHEDULERS[scheduler]
    made = kind(**SCHEDULE, **settings)
    made.save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return network, made


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 7, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_denoiser_is_that_of_the_original(tmp_path: Path, name: str) -> None:
    network, _ = save(tmp_path, NETWORKS[name])
    model = default_zoo().load(str(tmp_path))
    assert (model.shape, model.token_width) == ((4, 16, 16), 24)  # type: ignore[attr-defined]
    x, told = torch.randn(2, 4, 16, 16), tokens(2, 1)
    for t in (0.0, 501.0, 999.0):
        with torch.no_grad():
            wanted = network(x, t, encoder_hidden_states=told).sample
            found = model.denoiser.predict(x, t + 1, {"encoder_hidden_states": told})  # type: ignore[operator,union-attr]
        assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_latents_are_those_of_the_original_walk(tmp_path: Path, scheduler: str, scale: float) -> None:
    network, made = save(tmp_path, SMALL, scheduler)
    model: Any = default_zoo().load(str(tmp_path))
    told, free = tokens(2, 1), tokens(1, 2)
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    x = torch.cat([torch.randn(1, 4, 16, 16, generator=stream) for stream in streams])
    made.set_timesteps(6)
    x = x * made.init_noise_sigma
    with torch.no_grad():
        for t in made.timesteps:
            scaled = made.scale_model_input(x, t)
            eps = network(scaled, t, encoder_hidden_states=told).sample
            if scale != 1:
                without = network(scaled, t, encoder_hidden_states=free.expand(2, -1, -1)).sample
                eps = without + scale * (eps - without)
            given = {"generator": streams} if scheduler in ("ddpm", "euler ancestral") else {}
            x = made.step(eps, t, x, **given).prev_sample
    options = {"null_tokens": free, "guidance": scale} if scale != 1 else {}
    found = model.latents([5, 6], told, steps=6, **options)
    bound = 1e-4 * max(1.0, float(x.abs().max()))
    assert float((found - x).abs().max()) < bound
    assert float((model.latents([6], told[1:], steps=6, **options) - found[1:]).abs().max()) < bound


def test_one_prompt_for_all_and_batches(tmp_path: Path) -> None:
    save(tmp_path, SMALL)
    model: Any = default_zoo().load(str(tmp_path))
    told = tokens(1, 1)
    whole = model.latents([1, 2, 3], told, steps=2)
    assert whole.shape == (3, 4, 16, 16)
    assert float((model.latents([1, 2, 3], told[0], steps=2, batch=2) - whole).abs().max()) < 1e-4
    assert model.nfe(model.options(steps=4)) == 4
    back = tmp_path / "own"
    model.save_pretrained(back)
    assert torch.equal(default_zoo().load(str(back)).latents([1, 2, 3], told, steps=2), whole)  # type: ignore[attr-defined,operator]


def test_it_says_how_it_is_asked(tmp_path: Path) -> None:
    save(tmp_path, SMALL)
    model: Any = default_zoo().load(str(tmp_path))
    with pytest.raises(OptionError, match=r"model\.latents\(seeds, tokens\)"):
        model.generate([1])
    for shape in ((2, 7, 23), (3, 7, 24), (24,), (1, 2, 7, 24)):
        with pytest.raises(OptionError, match=r"tokens must be \(2, T, 24\)"):
            model.latents([1, 2], torch.zeros(shape))
    with pytest.raises(OptionError, match="null_tokens must be"):
        model.latents([1, 2], tokens(2, 1), null_tokens=tokens(3, 1))
    with pytest.raises(OptionError, match="null_tokens has 5 tokens where tokens has 7"):
        model.latents([1, 2], tokens(2, 1), null_tokens=torch.zeros(5, 24))
    with pytest.raises(OptionError, match="no classes"):
        model.latents([1], tokens(1, 1), guidance="negative:labels=0", steps=2)
    with pytest.raises(GenzooError, match="null"):
        model.latents([1], tokens(1, 1), guidance=2.0, steps=2)
    with pytest.raises(OptionError, match="give 1 or more"):
        model.latents([1], tokens(1, 1), batch=0)
    for inapplicable, message in (({"labels": 3}, "takes no labels"), ({"stepz": 2}, "did you mean 'steps'")):
        with pytest.raises(OptionError, match=message):
            model.latents([1], tokens(1, 1), **inapplicable)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Stable Diffusion XL": ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type.*XL"),
    "inpainting": ("unet", {"in_channels": 9}, "fill in or enlarge"),
    "unknown key": ("unet", {"use_magic": 1}, "use_magic"),
    "oblong": ("unet", {"sample_size": [16, 8]}, "sample_size"),
    "classes": ("unet", {"num_class_embeds": 5}, "no classes"),
    "no context": (
        "unet",
        {
            "down_block_types": ["DownBlock2D"] * 2,
            "up_block_types": ["UpBlock2D"] * 2,
            "mid_block_type": "UNetMidBlock2D",
        },
        "cross-attention",
    ),
    "other scheduler": ("scheduler", {"_class_name": "KDPM2AncestralDiscreteScheduler"}, "KDPM2"),
    "pndm of x0": ("scheduler", {"_class_name": "PNDMScheduler", "prediction_type": "sample"}, "prediction_type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, name: str) -> None:
    save(tmp_path, SMALL)
    part, change, message = REFUSED[name]
    path = tmp_path / {"unet": "unet/config.json", "scheduler": "scheduler/scheduler_config.json"}[part]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(GenzooError, match=message) as caught:
        default_zoo().load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_networks_folder_alone_is_not_enough(tmp_path: Path) -> None:
    save(tmp_path, SMALL)
    with pytest.raises(FormatError, match="name the pipeline's own folder"):
        default_zoo().load(str(tmp_path / "unet"))
