"""StyleGAN2 in the layout of rosinality's code, plainly: one image at a time, one kernel an image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def published_state(size: int, latent: int, mapping: int, widths: list[int], taps: list[float]) -> dict[str, Tensor]:
    """A random g_ema state dict: names and shapes as published, all values drawn (biases and strengths as well)."""
    kernel = torch.outer(torch.tensor(taps), torch.tensor(taps))
    kernel = kernel / kernel.sum() * 4
    state: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        state[f"{name}.weight"] = torch.randn(1, outputs, inputs, side, side)
        state[f"{name}.modulation.weight"] = torch.randn(inputs, latent)
        state[f"{name}.modulation.bias"] = 1 + 0.3 * torch.randn(inputs)

    def styled(name: str, inputs: int, outputs: int, up: bool) -> None:
        convolution(f"{name}.conv", inputs, outputs, 3)
        if up:
            state[f"{name}.conv.blur.kernel"] = kernel.clone()
        state[f"{name}.noise.weight"] = 0.5 * torch.randn(1)
        state[f"{name}.activate.bias"] = 0.3 * torch.randn(outputs)

    for i in range(mapping):
        state[f"style.{i + 1}.weight"] = torch.randn(latent, latent) / 0.01
        state[f"style.{i + 1}.bias"] = 30 * torch.randn(latent)
    state["input.input"] = torch.randn(1, widths[0], 4, 4)
    styled("conv1", widths[0], widths[0], False)
    convolution("to_rgb1.conv", widths[0], 3, 1)
    state["to_rgb1.bias"] = torch.randn(1, 3, 1, 1)
    state["noises.noise_0"] = torch.randn(1, 1, 4, 4)
    for stage in range(int(math.log2(size)) - 2):
        styled(f"convs.{2 * stage}", widths[stage], widths[stage + 1], True)
        styled(f"convs.{2 * stage + 1}", widths[stage + 1], widths[stage + 1], False)
        convolution(f"to_rgbs.{stage}.conv", widths[stage + 1], 3, 1)
        state[f"to_rgbs.{stage}.bias"] = torch.randn(1, 3, 1, 1)
        state[f"to_rgbs.{stage}.upsample.kernel"] = kernel.clone()
        for i in (1, 2):
            state[f"noises.noise_{2 * stage + i}"] = torch.randn(1, 1, 8 << stage, 8 << stage)
    return state


def filtered(x: Tensor, kernel: Tensor, up: int, before: int, after: int) -> Tensor:
    """Zeros between the pixels of (C, H, W), padding, and a true convolution (the kernel is flipped)."""
    channels, height, width = x.shape
    spread = x.new_zeros(channels, height * up, width * up)
    spread[:, ::up, ::up] = x
    padded = F.pad(spread, (before, after, before, after))
    return F.conv2d(padded[:, None], kernel.flip(0, 1)[None, None])[:, 0]


def published_style(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """The mapping network for one z."""
    w = z / (z.square().mean() + 1e-8).sqrt()
    layer = 1
    while f"style.{layer}.weight" in state:
        weight = state[f"style.{layer}.weight"] * 0.01 / math.sqrt(len(w))
        w = F.leaky_relu(weight @ w + state[f"style.{layer}.bias"] * 0.01, 0.2) * math.sqrt(2)
        layer += 1
    return w


def published_image(state: dict[str, Tensor], w: Tensor, noise: list[Tensor]) -> Tensor:
    """Synthesis of one image from w (layers, latent) and the noise of each layer (1, side, side)."""

    def convolution(name: str, x: Tensor, latent: Tensor, up: bool, demodulate: bool) -> Tensor:
        weight = state[f"{name}.weight"][0]
        _, inputs, side, _ = weight.shape
        affine = state[f"{name}.modulation.weight"] / math.sqrt(len(latent))
        style = affine @ latent + state[f"{name}.modulation.bias"]
        kernel = weight / math.sqrt(inputs * side * side) * style[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            wide = F.conv_transpose2d(x[None], kernel.transpose(0, 1), stride=2)[0]
            return filtered(wide, state[f"{name}.blur.kernel"], 1, 1, 1)
        return F.conv2d(x[None], kernel, padding=side // 2)[0]

    def styled(name: str, x: Tensor, latent: Tensor, up: bool, drawn: Tensor) -> Tensor:
        x = convolution(f"{name}.conv", x, latent, up, True) + state[f"{name}.noise.weight"] * drawn
        return F.leaky_relu(x + state[f"{name}.activate.bias"][:, None, None], 0.2) * math.sqrt(2)

    x = styled("conv1", state["input.input"][0], w[0], False, noise[0])
    image = convolution("to_rgb1.conv", x, w[1], False, False) + state["to_rgb1.bias"][0]
    stage = 0
    while f"to_rgbs.{stage}.bias" in state:
        i = 2 * stage + 1
        x = styled(f"convs.{2 * stage}", x, w[i], True, noise[i])
        x = styled(f"convs.{2 * stage + 1}", x, w[i + 1], False, noise[i + 1])
        image = filtered(image, state[f"to_rgbs.{stage}.upsample.kernel"], 2, 2, 1)
        image = (
            image + convolution(f"to_rgbs.{stage}.conv", x, w[i + 2], False, False) + state[f"to_rgbs.{stage}.bias"][0]
        )
        stage += 1
    return image
