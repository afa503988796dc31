r"""The generator network of StyleGAN2, as a plain module.

T. Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019
(arXiv:1812.04948): a mapping network z -> w, a learned constant that is grown to an image, and noise after every
convolution. T. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (arXiv:1912.04958):
weight modulation and demodulation (eqs. 1 and 3) in place of instance norm, and an image that is summed over the
resolutions ("skip generator", figure 7).

Parameter and buffer names, shapes and order are those of the ``g_ema`` state dicts of ``rosinality/stylegan2-pytorch``,
so that these load strictly into an unconditional network of the same sizes. Beyond that layout: the side of the
constant (7 leads to 28 pixels), the number of channels of the image, the widths, and classes.

Modulation scales the input channels of a kernel and demodulation its output channels, so both can be done to the
activations instead:

    (d_o W_oi s_i) * x_i  =  d_o (W_oi * (s_i x_i)),      d_o = 1 / sqrt(sum_ik (s_i W_oik)^2 + eps)

The whole batch then shares one ordinary convolution, where one kernel per image would need a grouped one, which is slow
on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genzoo.frozen import Frozen, Seq
from genzoo_plugins.stylegan.layers import GAIN, SLOPE, Blur, EqualLinear, PixelNorm, Upsample, normalise

__all__ = ["Network", "StyleGANConfig"]

Width = Annotated[int, Field(ge=1, le=2048)]

MAX_SIDE = 1024


class StyleGANConfig(Frozen):
    """Sizes of a StyleGAN generator. The defaults are those of the published layout at 64 pixels.

    Attributes:
        image_size: side of the square images: ``base`` times a power of two.
        base: side of the learned constant.
        channels: of the images.
        latent: width of z and w.
        mapping_layers: layers of the mapping network.
        mapping_rate: its learning rate, relative to that of the rest.
        widths: feature maps at each resolution, coarsest first; by default min(512, 32768 / side), as published.
        num_classes: classes that can be asked for; 0 for none.
    """

    image_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 64
    base: Annotated[int, Field(ge=1, le=64)] = 4
    channels: Annotated[int, Field(ge=1, le=256)] = 3
    latent: Width = 512
    mapping_layers: Annotated[int, Field(ge=1, le=32)] = 8
    mapping_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    widths: Seq[Width] | None = None
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sides[-1] != self.image_size:
            raise ValueError(
                f"image_size={self.image_size} is not base={self.base} times a power of two; "
                f"the nearest below is {self.sides[-1]}"
            )
        if self.widths is not None and len(self.widths) != len(self.sides):
            raise ValueError(
                f"widths has {len(self.widths)} entries, but there are {len(self.sides)} resolutions: "
                f"{', '.join(map(str, self.sides))}"
            )
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """The resolutions, coarsest first."""
        sides = [self.base]
        while 2 * sides[-1] <= self.image_size:
            sides.append(2 * sides[-1])
        return tuple(sides)

    @property
    def features(self) -> tuple[int, ...]:
        """Feature maps at each resolution."""
        return self.widths or tuple(min(512, 32768 // side) for side in self.sides)

    @property
    def layers(self) -> int:
        """How many latents an image has: one for every convolution, and a last one for the last image layer."""
        return 2 * len(self.sides)

    @property
    def noise_sides(self) -> tuple[int, ...]:
        """The side of each layer noise."""
        return self.sides[0], *(side for side in self.sides[1:] for _ in range(2))


class ModulatedConv(nn.Module):
    """A convolution whose kernel is scaled per image by its style; see the module's docstring.

    Args:
        inputs, outputs, size: of the kernel (1, outputs, inputs, size, size).
        latent: width of w, from which an affine map makes the style.
        upsample: double the image by a transposed convolution and a blur.
    """

    def __init__(self, inputs: int, outputs: int, size: int, latent: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.modulation = EqualLinear(latent, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * size * size)
        self.upsample = upsample
        if upsample:
            self.blur = Blur(4.0)

    def convolve(self, x: Tensor, style: Tensor) -> Tensor:
        """Modulation and convolution: (N, inputs, H, W) by the style (N, inputs)."""
        x = (x * style[:, :, None, None]).contiguous(memory_format=torch.channels_last)
        weight = self.weight[0] * self.scale
        if self.upsample:
            return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), pad=1)  # type: ignore[no-any-return]
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def demodulation(self, style: Tensor) -> Tensor:
        """d of the module's docstring, (N, outputs) (arXiv:1912.04958, eq. 3)."""
        energy = (self.weight[0] * self.scale).square().sum(dim=(2, 3))
        return torch.rsqrt(style.square() @ energy.T + 1e-8)


class NoiseInjection(nn.Module):
    """The strength of a layer's noise, 0 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Activation(nn.Module):
    """The bias of a layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class StyledConv(nn.Module):
    """Modulated and demodulated convolution, noise, bias, leaky ReLU with gain sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, latent: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = Activation(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """(N, inputs, H, W), w (N, latent) and noise (N or 1, 1, H', W') -> (N, outputs, H', W')."""
        style = self.conv.modulation(w)
        y = self.conv.convolve(x, style)
        # Leaky ReLU commutes with a positive factor: its gain goes into the factor of demodulation.
        factor = self.conv.demodulation(style)[:, :, None, None] * GAIN
        y = torch.addcmul(self.activate.bias[:, None, None] * GAIN, y, factor)
        if noise is not None:
            y = y + noise * (self.noise.weight * GAIN)
        return F.leaky_relu(y, SLOPE, inplace=True)


class ToImage(nn.Module):
    """Adds this resolution's share of the image, by a modulated 1x1 convolution without demodulation."""

    def __init__(self, inputs: int, channels: int, latent: int, *, upsample: bool) -> None:
        super().__init__()
        if upsample:
            self.upsample = Upsample()
        self.conv = ModulatedConv(inputs, channels, 1, latent)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        """(N, inputs, H, W), w (N, latent) and the image so far (N, channels, H/2, W/2) -> (N, channels, H, W)."""
        y: Tensor = self.conv.convolve(x, self.conv.modulation(w)) + self.bias
        return y if image is None else y + self.upsample(image)


class Constant(nn.Module):
    """The learned constant that every image starts from."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, side, side))


class Network(nn.Module):
    """Mapping and synthesis.

    With classes, the mapping network takes a learned embedding as wide as z beside it, both normalised, as in T. Karras
    et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv:2006.06676), appendix C:
    ``style.1`` then has twice as many inputs, and ``embed`` is the one name that the published layout does not have.
    """

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        latent, features, channels = config.latent, config.features, config.channels
        inputs = 2 * latent if config.num_classes else latent
        self.style = nn.Sequential(
            PixelNorm(),
            *(
                EqualLinear(inputs if i == 0 else latent, latent, rate=config.mapping_rate, activate=True)
                for i in range(config.mapping_layers)
            ),
        )
        self.embed = nn.Embedding(config.num_classes, latent) if config.num_classes else None
        self.input = Constant(features[0], config.base)
        self.conv1 = StyledConv(features[0], features[0], latent)
        self.to_rgb1 = ToImage(features[0], channels, latent, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for number, side in enumerate(config.noise_sides):
            self.noises.register_buffer(f"noise_{number}", torch.randn(1, 1, side, side))
        for below, here in pairwise(features):
            self.convs.append(StyledConv(below, here, latent, upsample=True))
            self.convs.append(StyledConv(here, here, latent))
            self.to_rgbs.append(ToImage(here, channels, latent, upsample=True))

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z (N, latent), N(0, 1), and labels (N,) long, for a network with classes -> w (N, latent)."""
        if (labels is None) != (self.embed is None):
            raise ValueError("labels are needed by a network with classes, and by no other: see num_classes")
        if self.embed is not None and labels is not None:
            # Both halves have a mean square of 1, so the pixel norm in front of the layers leaves them as they are.
            z = torch.cat([normalise(z), normalise(self.embed(labels))], dim=1)
        w: Tensor = self.style(z)
        return w

    def fixed_noise(self) -> list[Tensor]:
        """The layer noise that is part of the weights, each (1, 1, side, side)."""
        return [self.noises.get_buffer(f"noise_{number}") for number in range(len(self.config.noise_sides))]

    def forward(self, w: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        """Draw images.

        Args:
            w: (N, layers, latent), a latent for every layer, coarse to fine. As published, the image layer of one
                resolution and the first convolution of the next share one.
            noise: for each of ``noise_sides`` (N or 1, 1, side, side), or None for no noise there.

        Returns:
            (N, channels, image_size, image_size); real images are in [-1, 1], but nothing holds these there.
        """
        config = self.config
        if w.shape[1:] != (config.layers, config.latent):
            raise ValueError(f"w must have shape (N, {config.layers}, {config.latent}), got {tuple(w.shape)}")
        if len(noise) != len(config.noise_sides):
            raise ValueError(f"{len(config.noise_sides)} layers take noise, got {len(noise)}")
        x = self.conv1(self.input.input.expand(len(w), -1, -1, -1), w[:, 0], noise[0])
        image: Tensor = self.to_rgb1(x, w[:, 1], None)
        for stage, to_image in enumerate(self.to_rgbs):
            first = 2 * stage + 1
            x = self.convs[2 * stage](x, w[:, first], noise[first])
            x = self.convs[2 * stage + 1](x, w[:, first + 1], noise[first + 1])
            image = to_image(x, w[:, first + 2], image)
        return image
