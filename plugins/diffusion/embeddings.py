"""What a diffusion U-Net is told of time: embeddings of a number as a vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sinusoid(nn.Module):
    """The fixed embedding of time of Vaswani et al. 2017 (section 3.5), as Ho et al. 2020 use it.

    ``emb_i = sin(t * exp(-ln(10^4) i / (half - freq_shift)))`` for ``i`` in ``0 .. half - 1``, with ``half`` half the
    width, and the cosines of the same angles beside them: after the sines, or before them with ``flip_sin_to_cos``.

    Takes ``(N,)`` numbers of any type, returns ``(N, channels)`` float32 in [-1, 1]. An odd width ends in a zero.
    """

    def __init__(self, channels: int, flip_sin_to_cos: bool, freq_shift: int) -> None:
        super().__init__()
        self.channels, self.flip, self.freq_shift = channels, flip_sin_to_cos, freq_shift

    def forward(self, t: Tensor) -> Tensor:
        half = self.channels // 2
        # Not a buffer: a buffer that no file holds would stay empty in a model that was built on the meta device.
        # The order of the operations matters: at t = 1000 one rounding of a frequency moves the angle by 6e-5.
        exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device)
        angle = t[:, None].float() * torch.exp(exponent / (half - self.freq_shift))
        parts = (angle.cos(), angle.sin()) if self.flip else (angle.sin(), angle.cos())
        return F.pad(torch.cat(parts, dim=-1), (0, self.channels % 2))


class Fourier(nn.Module):
    """Random Fourier features of the logarithm of a noise level (Song et al. 2021, score SDE, appendix C).

    ``emb = [sin(2 pi W ln t), cos(2 pi W ln t)]`` with fixed ``W ~ N(0, scale^2)``. Takes ``(N,)`` levels above 0,
    returns ``(N, 2 * channels)`` float32 in [-1, 1].
    """

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels) * scale, requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = torch.log(t.float())[:, None] * self.weight.float() * 2 * math.pi
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Learned(nn.Embedding):
    """One learned vector per timestep. Takes ``(N,)`` whole numbers in [0, steps), returns ``(N, channels)``."""

    def forward(self, t: Tensor) -> Tensor:
        return super().forward(t.long())


class TimestepEmbedding(nn.Module):
    """Two linear layers around an activation: ``(N, in_channels)`` to ``(N, channels)``, in the weights' dtype."""

    def __init__(self, in_channels: int, channels: int, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_2(self.act(self.linear_1(x)))
        return x
