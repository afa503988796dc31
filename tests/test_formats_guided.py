"""Checkpoints of OpenAI's diffusion codes give what a plain re-implementation of their network gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from guided_unet import GuidedUNet
from safetensors.torch import load_file, save_file
from torch import Tensor

from genzoo.errors import GenzooError
from genzoo.formats import FormatError
from genzoo.generator import Generator
from genzoo.publish import save as write_folder
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from pathlib import Path

FLAGS: dict[str, Any] = {"image_size": 16, "diffusion_steps": 100, "noise_schedule": "linear", "num_heads": 1}

#: name -> (settings of the network, flags that the file beside it gives).
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "improved, 1 head": ({}, {}),
    "improved, 4 heads, 2 blocks": (
        {"heads": 4, "blocks": 2, "mults": (1, 2, 3), "attention": (2, 4), "learned": True},
        {"num_heads": 4, "num_heads_upsample": -1, "diffusion_steps": 4000, "noise_schedule": "cosine"},
    ),
    "new order": ({"heads": 2, "new_order": True}, {"num_heads": 2, "use_new_attention_order": True}),
    "guided, 64 pixels": (
        {
            "mults": (1, 2, 3),
            "attention": (2, 4),
            "head_width": 32,
            "new_order": True,
            "scale_shift": True,
            "resampled": True,
            "learned": True,
            "classes": 10,
        },
        {"num_head_channels": 32, "use_new_attention_order": True, "noise_schedule": "cosine", "diffusion_steps": 1000}
        | {"class_cond": True, "learn_sigma": True, "resblock_updown": True, "use_scale_shift_norm": True}
        | {"num_channels": 32, "num_res_blocks": 1, "attention_resolutions": "8,4", "channel_mult": "1,2,3"}
        | {"dropout": 0.1, "use_fp16": True, "timestep_respacing": "250"},
    ),
    "guided, old order": (
        {"head_width": 16, "scale_shift": True, "resampled": True, "learned": True, "attention": (1, 2)},
        {"num_head_channels": 16, "use_scale_shift_norm": True},
    ),
    "guided, 512 pixels: narrower at the top": (
        {"width": 64, "mults": (0.5, 1), "heads": 2, "scale_shift": True, "classes": 3},
        {"num_heads": 2},
    ),
    "attention in the middle alone": ({"attention": (), "resampled": True}, {"attention_resolutions": ""}),
    "one level": ({"mults": (1,), "attention": (1,), "blocks": 3, "channels": 1}, {}),
    "x_0": ({}, {"predict_xstart": True}),
}


def make_network(**settings: Any) -> GuidedUNet:
    """Random, with biases and gains that matter."""
    torch.manual_seed(0)
    network = GuidedUNet(**settings).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.out[2].weight.mul_(0.3)
    return network


def save(folder: Path, network: GuidedUNet, **flags: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(network.state_dict(), folder / "ema.safetensors")
    (folder / "config.json").write_text(json.dumps({**FLAGS, **flags}))
    return folder


def load(folder: Path) -> Any:
    return default_zoo().load(str(folder))


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_that_of_the_original(tmp_path: Path, name: str) -> None:
    settings, flags = CASES[name]
    network = make_network(**settings)
    model = load(save(tmp_path, network, **flags))
    x = torch.randn(2, *model.shape)
    t = torch.tensor([3, 77])
    labels = torch.tensor([2, 0]) if settings.get("classes") else None
    with torch.no_grad():
        wanted = network(x, t, labels)
        found = model.denoiser.network(x, t, class_labels=labels)
    assert wanted.std() > 0.05
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    assert model.num_classes == settings.get("classes", 0)


def abar_of(kind: str, steps: int) -> Tensor:
    """The two schedules as published."""
    if kind == "linear":
        betas = torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)
    else:
        bar = torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, 0)


@pytest.mark.parametrize("name", ["improved, 4 heads, 2 blocks", "guided, 64 pixels", "guided, old order", "x_0"])
def test_pixels_are_those_of_the_original_walk(tmp_path: Path, name: str) -> None:
    settings, flags = CASES[name]
    network, flags = make_network(**settings), {**FLAGS, **flags}
    model: Generator = load(save(tmp_path, network, **flags))
    x = torch.cat([torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    labels = torch.tensor([1, 4]) if settings.get("classes") else None
    length, steps = flags["diffusion_steps"], 4
    abar = abar_of(flags["noise_schedule"], length)
    with torch.no_grad():
        for k in reversed(range(0, length, length // steps)):
            level, below = float(abar[k]), float(abar[k - length // steps]) if k else 1.0
            out = network(x, torch.full((2,), k), labels)[:, : x.shape[1]]
            x0 = out if flags.get("predict_xstart") else (x - (1 - level) ** 0.5 * out) / level**0.5
            x0 = x0.clamp(-1, 1)
            x = below**0.5 * x0 + (1 - below) ** 0.5 * (x - level**0.5 * x0) / (1 - level) ** 0.5
    given = {} if labels is None else {"labels": labels.tolist()}
    assert float((model.generate([5, 6], steps=steps, **given) - x.clamp(-1, 1)).abs().max()) < 1e-4


def test_a_model_that_diffusers_can_hold_is_exported(tmp_path: Path) -> None:
    model = load(save(tmp_path / "in", make_network(head_width=16, heads=0), num_head_channels=16))
    write_folder(model, tmp_path / "out", layout="diffusers")
    assert torch.equal(load(tmp_path / "out").generate([1], steps=2, scheduler="ddim"), model.generate([1], steps=2))
    model = load(save(tmp_path / "in", make_network(learned=True, head_width=16), num_head_channels=16))
    with pytest.raises(FormatError, match="learned variances"):
        write_folder(model, tmp_path / "sigma", layout="diffusers")


def test_without_its_flags_it_says_what_to_give(tmp_path: Path) -> None:
    (save(tmp_path, make_network()) / "config.json").unlink()
    for place in (tmp_path, tmp_path / "ema.safetensors"):
        with pytest.raises(FormatError, match=r"config\.json.*image_size, diffusion_steps, noise_schedule.*num_head"):
            load(place)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no side": ({"image_size": None}, "image_size"),
    "side of text": ({"image_size": "16"}, "image_size"),
    "side of nothing": ({"image_size": 0}, "shape|sample_size"),
    "odd side": ({"image_size": 15}, "sample_size 15"),
    "no heads": ({"num_heads": 0}, "num_heads: missing"),
    "heads that do not divide": ({"num_heads": 5}, "not divisible"),
    "heads wider than all": ({"num_head_channels": 4096}, "not divisible"),
    "other heads on the way up": ({"num_heads_upsample": 2}, "num_heads_upsample"),
    "unknown schedule": ({"noise_schedule": "sqrt"}, "noise_schedule: 'sqrt'"),
    "no steps": ({"diffusion_steps": 0}, "diffusion_steps"),
    "stretched times": ({"rescale_timesteps": True}, "rescale_timesteps"),
    "other width": ({"num_channels": 64}, "num_channels: 64, where the tensors show 32"),
    "other depth": ({"num_res_blocks": 2}, "num_res_blocks"),
    "other widths": ({"channel_mult": "1,4"}, "channel_mult"),
    "widths of text": ({"channel_mult": "1,b"}, "list of whole numbers"),
    "other attention": ({"attention_resolutions": "16"}, "attention_resolutions"),
    "no classes": ({"class_cond": True}, "class_cond: True, where the tensors show False"),
    "no variance": ({"learn_sigma": True}, "learn_sigma"),
    "unknown flag": ({"use_magic": 1}, "holds no flags"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_flags_that_do_not_fit_are_refused_by_name(tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    save(tmp_path, make_network(), **change)
    with pytest.raises(GenzooError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("input_blocks.3.")], "upsampling in"),
        (lambda t: t.pop("output_blocks.1.2.conv.weight"), "is no part of"),
        (lambda t: t.pop("out.2.weight"), "is missing"),
        (lambda t: t.update({"input_blocks.0.7.x": torch.ones(1)}), "is no part of"),
        (
            lambda t: t.pop("output_blocks.0.0.out_layers.3.bias"),
            "missing denoiser.network.up_blocks.0.resnets.0.conv2",
        ),
        (lambda t: t.update({"out.2.weight": torch.ones(2, 32, 3, 3)}), "3 channels in and 2 out"),
        (lambda t: t.pop("middle_block.1.qkv.weight"), "no tensor middle_block.1.qkv.weight"),
    ],
)
def test_tensors_that_make_no_whole_network_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = save(tmp_path, make_network()) / "ema.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(GenzooError, match=message):
        load(tmp_path)
