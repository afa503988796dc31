"""StyleGAN2 checkpoints of rosinality's code give the pixels of a plain re-implementation, by way of ``convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stylegan_published import published_image, published_state, published_style
from torch import Tensor

from genzoo.convert import convert
from genzoo.errors import GenzooError
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from pathlib import Path

LATENT = 16
WIDTHS = [12, 10, 8, 6, 4]


def state_of(size: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return published_state(size, LATENT, 3, WIDTHS[: size.bit_length() - 2], [1.0, 3.0, 3.0, 1.0])


def drawn(state: dict[str, Tensor], mean: Tensor, seeds: list[int], psi: float) -> Tensor:
    """Images with the file's own layer noise, as its code draws them."""
    noise = [state[f"noises.noise_{i}"][0] for i in range(sum(name.startswith("noises.") for name in state))]
    layers = len(noise) + 1
    out = []
    for seed in seeds:
        z = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(seed))[0]
        w = mean + psi * (published_style(state, z) - mean)
        out.append(published_image(state, w.expand(layers, -1), noise))
    return torch.stack(out).clamp(-1, 1)


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With image layers so weak that hardly a pixel is clamped."""
    return {
        name: t * 0.05 if name.startswith("to_rgb") and "modulation" not in name and "kernel" not in name else t
        for name, t in state.items()
    }


@pytest.mark.parametrize("size", [32, 64])
def test_pixels_are_those_of_the_published_network(tmp_path: Path, size: int) -> None:
    state, mean = scaled(state_of(size)), torch.randn(LATENT) * 0.3
    other = {name: tensor * 0 for name, tensor in state.items()}
    torch.save({"g": other, "g_ema": state, "latent_avg": mean, "args": {"size": size}}, tmp_path / "550000.pt")
    convert(tmp_path / "550000.pt", tmp_path / "out" / "face.safetensors")
    model: Any = default_zoo().load(str(tmp_path / "out"))
    assert model.shape == (3, size, size)
    for psi in (1.0, 0.6):
        found = model.generate([3, 4], truncation=psi, layer_noise="fixed")
        wanted = drawn(state, mean, [3, 4], psi)
        assert float((wanted.abs() < 1).float().mean()) > 0.5
        assert float((found - wanted).abs().max()) < 1e-4


def test_the_first_images_are_as_all_others(tmp_path: Path) -> None:
    """The mapping network is asked before the network's first call: its weights are laid out all the same."""
    save_file(state_of(32), tmp_path / "g.safetensors")
    model: Any = default_zoo().load(str(tmp_path / "g.safetensors"))
    first = model.generate([1, 2])
    assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())
    assert torch.equal(model.generate([1, 2]), first)


def test_without_its_mean_latent_one_is_worked_out(tmp_path: Path) -> None:
    state = state_of(8)
    save_file(state, tmp_path / "g.safetensors")
    model: Any = default_zoo().load(str(tmp_path / "g.safetensors"))
    z = torch.randn(4096, LATENT, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([published_style(state, row) for row in z[:512]])
    # A mean over an eighth of the draws: within four standard errors of the whole one.
    near = (model.mean_latent[0] - wanted.mean(0)).abs() / (wanted.std(0) / 512**0.5)
    assert float(near.max()) < 4
    assert float(model.mean_latent.abs().max()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("to_rgb1.bias"), "to_rgb1.bias' is missing"),
        (lambda t: t.pop("noises.noise_2"), r"missing network\.noises\.noise_2"),
        (lambda t: t.pop("conv1.conv.modulation.weight"), "no tensors style.1.weight and conv1"),
        (lambda t: t.pop("style.2.bias"), "mapping network is not whole"),
        (lambda t: t["convs.0.conv.blur.kernel"][0].add_(1), "outer product"),
    ],
)
def test_what_is_no_whole_generator_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    state = state_of(8)
    change(state)
    save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(GenzooError, match=message):
        default_zoo().load(str(tmp_path / "g.safetensors"))
    assert load_file(tmp_path / "g.safetensors")
