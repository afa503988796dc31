"""The parts of a diffusion U-Net: residual blocks, and the levels made of them and of attention.

Parameter names are those of diffusers' ``UNet2DModel`` and ``UNet2DConditionModel``, so that their weights load without
renaming. Feature maps are ``(N, C, H, W)`` throughout and may lie in memory as ``channels_last``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.layers import Activation, GroupNorm, activated, added
from genzoo_plugins.diffusion.linear import Linear

#: Makes a residual block; the keywords are ``in_channels``, ``out_channels`` and, where it changes size, ``resample``.
MakeResnet = Callable[..., "ResnetBlock"]

#: Makes the attention that follows a residual block, from the number of channels.
MakeAttention = Callable[[int], nn.Module]


class ResnetBlock(nn.Module):
    """The residual block of Ho et al. 2020, told the time by a vector.

    With the default shift, ``h = norm2(conv1(act(norm1(x))) + proj(emb))``; with ``scale_shift`` (Dhariwal & Nichol
    2021, section 3, "adaptive group normalisation"), ``h = norm2(conv1(act(norm1(x)))) * (1 + scale) + shift`` where
    ``(scale, shift) = proj(emb)``. The result is ``(x + conv2(act(h))) / factor``, ``x`` passing through a 1x1
    convolution where the channels change. ``resample`` changes the size of both branches before ``conv1``.

    Takes ``x`` as ``(N, in_channels, H, W)``, and what ``tell`` made of the time as the next of ``told``. It depends on
    no image, and can be known before there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int,
        groups: int,
        eps: float,
        act: Activation,
        dropout: float = 0.0,
        scale_shift: bool = False,
        factor: float = 1.0,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = Linear(emb_channels, (2 if scale_shift else 1) * out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.act, self.resample = act, resample
        self.dropout, self.scale_shift, self.factor = dropout, scale_shift, factor

    def tell(self, emb: Tensor) -> Tensor:
        """What the block is to be told of ``emb``, ``(R, emb_channels)`` and already activated, as all blocks want it.

        Returns ``(R, out_channels)``, what ``conv1`` is to add to every pixel, its own bias and ``proj(emb)``; with
        ``scale_shift`` scales and shifts, ``(R, 2 out_channels)``.
        """
        projected: Tensor = self.time_emb_proj(emb)
        return projected if self.scale_shift or self.conv1.bias is None else projected + self.conv1.bias

    def forward(self, x: Tensor, told: Iterator[Tensor]) -> Tensor:
        mine = next(told)
        h = activated(self.act, self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        if self.scale_shift:
            scale, shift = mine[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(self.conv1(h)), 1 + scale)
        else:
            h = self.norm2(self.conv1(h, mine))
        h = activated(self.act, h)
        if self.training:
            h = F.dropout(h, self.dropout)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return added(x, self.conv2(h), self.factor)


class DownBlock(nn.Module):
    """One level of the way down: residual blocks, each with attention where the level has it, then the halving.

    Returns the feature map, and appends to ``skips`` what the way up will want: the map after every block and, where
    there is one, after the halving.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        *,
        resnet: MakeResnet,
        attention: MakeAttention | None = None,
        sampler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            resnet(in_channels=out_channels if i else in_channels, out_channels=out_channels) for i in range(layers)
        )
        self.attentions = nn.ModuleList(attention(out_channels) for _ in range(layers) if attention is not None)
        self.downsamplers = nn.ModuleList([] if sampler is None else [sampler])

    def forward(self, x: Tensor, skips: list[Tensor], told: Iterator[Tensor], context: Tensor | None) -> Tensor:
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = resnet(x, told)
            if attention is not None:
                x = attention(x, context)
            skips.append(x)
        for sampler in self.downsamplers:
            x = sampler(x, told)
            skips.append(x)
        return x


class UpBlock(nn.Module):
    """One level of the way up: every residual block also reads a skip, taken from the end of ``skips``.

    ``previous`` is the width of what arrives from below, ``skip_channels`` that of the last skip (it comes from the
    level above); the other skips are ``out_channels`` wide.
    """

    def __init__(
        self,
        previous: int,
        skip_channels: int,
        out_channels: int,
        layers: int,
        *,
        resnet: MakeResnet,
        attention: MakeAttention | None = None,
        sampler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        arriving = [previous] + [out_channels] * (layers - 1)
        skipping = [out_channels] * (layers - 1) + [skip_channels]
        self.resnets = nn.ModuleList(
            resnet(in_channels=a + s, out_channels=out_channels) for a, s in zip(arriving, skipping, strict=True)
        )
        self.attentions = nn.ModuleList(attention(out_channels) for _ in range(layers) if attention is not None)
        self.upsamplers = nn.ModuleList([] if sampler is None else [sampler])

    def forward(self, x: Tensor, skips: list[Tensor], told: Iterator[Tensor], context: Tensor | None) -> Tensor:
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            # Popping lets a skip's memory go as soon as it has been read.
            x = resnet(torch.cat([x, skips.pop()], dim=1), told)
            if attention is not None:
                x = attention(x, context)
        for sampler in self.upsamplers:
            x = sampler(x, told)
        return x


class MidBlock(nn.Module):
    """The bottom: a residual block, then attention and ``layers`` more residual blocks. The size stays."""

    def __init__(
        self, channels: int, *, resnet: MakeResnet, attention: MakeAttention | None = None, layers: int = 1
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnet(in_channels=channels, out_channels=channels) for _ in range(1 + layers))
        self.attentions = nn.ModuleList(attention(channels) for _ in range(layers) if attention is not None)

    def forward(self, x: Tensor, told: Iterator[Tensor], context: Tensor | None) -> Tensor:
        first, *others = self.resnets
        x = first(x, told)
        for resnet, attention in zip_longest(others, self.attentions):
            if attention is not None:
                x = attention(x, context)
            x = resnet(x, told)
        return x
