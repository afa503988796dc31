"""The discriminator of StyleGAN2: residual blocks, minibatch standard deviation, and a projection for classes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from genzoo.frozen import Frozen, Seq
from genzoo_plugins.stylegan.layers import GAIN, SLOPE, Blur, EqualLinear
from genzoo_plugins.stylegan.network import StyleGANConfig, Width

__all__ = ["Discriminator", "DiscriminatorConfig", "with_minibatch_deviation"]


class DiscriminatorConfig(Frozen):
    """Settings of the discriminator; its sizes follow from the generator's.

    Attributes:
        widths: feature maps at each resolution, coarsest first; the generator's where absent.
        group: images that are compared by the minibatch standard deviation, where there are no classes.
    """

    widths: Seq[Width] | None = None
    group: Annotated[int, Field(ge=1, le=1024)] = 4


def with_minibatch_deviation(x: Tensor, group: int, labels: Tensor | None = None) -> Tensor:
    """(N, C, H, W) -> (N, C + 1, H, W), with how much images differ from one another as a last constant map.

    The map of an image is the standard deviation over the images that it is compared with, averaged over channels and
    pixels (T. Karras et al., ICLR 2018, arXiv:1710.10196, section 3). A generator that makes the same image again and
    again is seen by it. Images N/g apart are compared, the groups of StyleGAN; with classes, all of one class: across
    classes images differ whatever the generator does, so mixed groups hardly see one that makes one image for each.

    Args:
        x: features.
        group: g, images to a group; where N is no multiple of it, the next smaller divisor of N is taken.
        labels: (N,) long.
    """
    n, _, height, width = x.shape
    size = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    key = torch.arange(n, device=x.device) % (n // size) if labels is None else labels
    together = (key[:, None] == key).to(x.dtype)
    mean_of_group = together / together.sum(dim=1, keepdim=True)
    flat = x.flatten(1)
    # Products with an (N, N) matrix: var over the first dimension is twenty times slower on a CPU.
    variance = mean_of_group @ (flat - mean_of_group @ flat).square()
    deviation = (variance + 1e-8).sqrt().mean(dim=1)
    return torch.cat([x, deviation.view(n, 1, 1, 1).expand(n, 1, height, width)], dim=1)


class Conv(nn.Module):
    """A convolution with equalised learning rate, and what commonly stands around it.

    Args:
        inputs, outputs, size: of the kernel.
        down: blur, and keep every second pixel.
        activate: bias and leaky ReLU afterwards; neither without.
        gain: of the output.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, down: bool = False, activate: bool = True, gain: float = GAIN
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.scale, self.gain = 1 / math.sqrt(inputs * size * size), gain
        self.blur = Blur(persistent=False) if down else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W), or half of H and W."""
        size, stride, pad = self.weight.shape[-1], 1, self.weight.shape[-1] // 2
        if self.blur is not None:
            # Before a 1x1 convolution only every second pixel is needed; a larger kernel needs those between as well.
            x = self.blur(x, pad=1 + pad, stride=1 if size > 1 else 2)
            stride, pad = 2 if size > 1 else 1, 0
        # Leaky ReLU commutes with a positive factor, so the gain can go into weight and bias.
        weight = self.weight * (self.scale * self.gain)
        if self.bias is None:
            return F.conv2d(x, weight, stride=stride, padding=pad)
        return F.leaky_relu(F.conv2d(x, weight, self.bias * self.gain, stride, pad), SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """Half the resolution: ``(conv(conv(x)) + skip(x)) / sqrt(2)``, the factor taken into the two gains."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, inputs, 3)
        self.conv2 = Conv(inputs, outputs, 3, down=True, gain=1.0)
        self.skip = Conv(inputs, outputs, 1, down=True, activate=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x)) + self.skip(x)
        return y


class Discriminator(nn.Module):
    """Logits for images (T. Karras et al. 2020, arXiv:1912.04958, figure 7 and appendix B).

    With classes, ``<e(y), h> / sqrt(len(h))`` is added, h being the last hidden layer (the projection of T. Miyato,
    M. Koyama 2018, arXiv:1802.05637, scaled as in arXiv:2006.06676).
    """

    def __init__(self, model: StyleGANConfig, config: DiscriminatorConfig) -> None:
        super().__init__()
        features = config.widths or model.features
        if len(features) != len(model.sides):
            raise ValueError(f"discriminator.widths has {len(features)} entries for {len(model.sides)} resolutions")
        self.group = config.group
        fine_to_coarse = features[::-1]
        self.convs = nn.Sequential(
            Conv(model.channels, fine_to_coarse[0], 1),
            *(ResidualBlock(here, below) for here, below in pairwise(fine_to_coarse)),
        )
        width = features[0]
        self.final_conv = Conv(width + 1, width, 3)
        self.hidden = EqualLinear(width * model.base**2, width, activate=True)
        self.out = EqualLinear(width, 1)
        self.embed = nn.Embedding(model.num_classes, width) if model.num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, channels, image_size, image_size), real ones in [-1, 1], and labels (N,) long -> (N,) logits."""
        if (labels is None) != (self.embed is None):
            raise ValueError("labels are needed by a network with classes, and by no other: see num_classes")
        x = with_minibatch_deviation(self.convs(x), self.group, labels)
        hidden: Tensor = self.hidden(self.final_conv(x).flatten(1))
        logits: Tensor = self.out(hidden).flatten()
        if self.embed is not None and labels is not None:
            logits = logits + (self.embed(labels) * hidden).sum(dim=1) / math.sqrt(hidden.shape[1])
        return logits
