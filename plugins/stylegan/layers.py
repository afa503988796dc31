"""Layers that the generator and the discriminator of StyleGAN share.

Equalised learning rate (T. Karras et al., "Progressive Growing of GANs", ICLR 2018, arXiv:1710.10196, section 4.1):
weights are drawn from N(0, 1) and scaled by 1 / sqrt(fan in) when they are used, so that Adam, whose steps do not know
how large a weight is, moves all layers at one relative speed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo.errors import WeightsError

#: Slope of the leaky ReLU, and the gain after it that keeps the variance of the signal.
SLOPE = 0.2
GAIN = math.sqrt(2)

#: The binomial low-pass filter of StyleGAN2.
_TAPS = (1.0, 3.0, 3.0, 1.0)


def normalise(x: Tensor) -> Tensor:
    """Pixel norm: (N, C) scaled to a mean square of 1 over C (arXiv:1710.10196, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class PixelNorm(nn.Module):
    """:func:`normalise` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x)


class EqualLinear(nn.Module):
    """A linear map with equalised learning rate.

    Args:
        inputs, outputs: widths.
        bias: the bias's initial value.
        rate: multiplies the learning rate: weights are stored larger by 1 / rate and used smaller by it.
        activate: leaky ReLU with gain sqrt(2) afterwards.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        # In place: without, a tensor on the meta device loads torch's decompositions, which takes most of a second.
        self.weight = nn.Parameter(torch.randn(outputs, inputs).div_(rate))
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        y = F.linear(x, self.weight * self.scale, self.bias * self.rate)
        return F.leaky_relu(y, SLOPE) * GAIN if self.activate else y


class Blur(nn.Module):
    """A low-pass filter: the outer product of the taps 1 3 3 1 with themselves, of sum ``gain``.

    The published layout keeps the filter as a buffer. It is applied as two one-dimensional filters, which on a CPU
    takes half the time of the square one; so a file whose filter is no outer product is refused.
    """

    kernel: Tensor

    def __init__(self, gain: float = 1.0, *, persistent: bool = True) -> None:
        super().__init__()
        taps = torch.tensor(_TAPS)
        kernel = taps[:, None] * taps
        self.register_buffer("kernel", kernel * (gain / kernel.sum()), persistent=persistent)
        self.register_load_state_dict_post_hook(_check_separable)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, pad: int, stride: int = 1) -> Tensor:
        """Convolve each channel of (N, C, H, W) and keep every ``stride``-th position."""
        # Rows and columns of an outer product are its two factors, up to a scale; conv2d correlates, hence the flips.
        rows, columns = self.kernel.sum(1).flip(0), (self.kernel.sum(0) / self.kernel.sum()).flip(0)
        channels, length = x.shape[1], len(rows)
        vertical = rows.view(1, 1, length, 1).expand(channels, 1, length, 1)
        horizontal = columns.view(1, 1, 1, length).expand(channels, 1, 1, length)
        x = F.conv2d(x, vertical, stride=(stride, 1), padding=(pad, 0), groups=channels)
        return F.conv2d(x, horizontal, stride=(1, stride), padding=(0, pad), groups=channels)


class Upsample(Blur):
    """Doubles (N, C, H, W): zeros between the pixels, then the filter with gain 4."""

    def __init__(self) -> None:
        super().__init__(4.0)

    def forward(self, x: Tensor, pad: int = 1, stride: int = 2) -> Tensor:
        kernel = self.kernel.expand(x.shape[1], 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=stride, padding=pad, groups=x.shape[1])


def _check_separable(module: nn.Module, _: Any) -> None:
    kernel = module.kernel
    if not isinstance(kernel, Tensor) or kernel.is_meta:
        return
    full = kernel.detach().double()
    total = full.sum()
    if not bool(total > 0) or not torch.allclose(torch.outer(full.sum(1), full.sum(0)) / total, full, atol=1e-5):
        raise WeightsError(
            "the blur kernel is no outer product of two filters: this is no StyleGAN2 file of that layout"
        )
