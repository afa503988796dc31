"""The parts of a diffusion U-Net: embeddings of time, residual blocks, attention, and the levels made of them.

Parameter names are those of diffusers' ``UNet2DModel`` and ``UNet2DConditionModel``, so that their weights load without
renaming. Feature maps are ``(N, C, H, W)`` throughout and may lie in memory as ``channels_last``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.convolution import Conv2d

#: The activations a configuration may name.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "relu": F.relu,
}

#: Makes a residual block; the keywords are ``in_channels``, ``out_channels`` and, where it changes size, ``resample``.
MakeResnet = Callable[..., "ResnetBlock"]

#: Makes the attention that follows a residual block, from the number of channels.
MakeAttention = Callable[[int], nn.Module]


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


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the weights' dtype.

    In mixed precision that is float32, as sums over a group want it; on a CPU it is also several times faster there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def attention(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over ``(N, heads, tokens, d)`` (Vaswani et al. 2017, eq. 1).

    In mixed precision on a CPU (weights of another ``dtype`` than q) it runs in the weights': the backward pass of the
    bfloat16 kernel takes six times as long as the float32 one.
    """
    if q.device.type == "cpu" and q.dtype != dtype:
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    return F.scaled_dot_product_attention(q, k, v)


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


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating every pixel: ``(N, C, H, W)`` to ``(N, C, 2H, 2W)``."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Halve height and width by the mean of every 2x2 square: ``(N, C, H, W)`` to ``(N, C, H/2, W/2)``."""
    return F.avg_pool2d(x, kernel_size=2, stride=2)


class ResnetBlock(nn.Module):
    """The residual block of Ho et al. 2020, told the time by a vector.

    With the default shift, ``h = norm2(conv1(act(norm1(x))) + proj(emb))``; with ``scale_shift`` (Dhariwal & Nichol
    2021, section 3, "adaptive group normalisation"), ``h = norm2(conv1(act(norm1(x)))) * (1 + scale) + shift`` where
    ``(scale, shift) = proj(emb)``. The result is ``(x + conv2(act(h))) / factor``, ``x`` passing through a 1x1
    convolution where the channels change. ``resample`` changes the size of both branches before ``conv1``.

    Takes ``x`` as ``(N, in_channels, H, W)`` and ``emb`` as ``(N or 1, emb_channels)``, the latter already activated:
    all blocks want the same activation of the same vector, so the model computes it once.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int,
        groups: int,
        eps: float,
        act: Callable[[Tensor], Tensor],
        dropout: float = 0.0,
        scale_shift: bool = False,
        factor: float = 1.0,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(emb_channels, (2 if scale_shift else 1) * out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.act, self.resample = act, resample
        self.dropout, self.scale_shift, self.factor = dropout, scale_shift, factor

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.act(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        told = self.time_emb_proj(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + told)
        h = F.dropout(self.act(h), self.dropout, self.training)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        x = x + self.conv2(h)
        return x if self.factor == 1 else x / self.factor


class Downsample(nn.Module):
    """Halve height and width with a strided 3x3 convolution.

    ``padding`` 1 pads every side; 0 pads right and bottom only, as the TensorFlow code of Ho et al. 2020 does.
    """

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.one_sided = padding == 0

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)
        return x


class Upsample(nn.Module):
    """Double height and width by repetition, then smooth with a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.conv(upsample(x))
        return x


def to_tokens(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H W, C)``: a view of a channels_last map, one copy of any other."""
    return x.flatten(2).transpose(1, 2).contiguous()


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """``(N, H W, C)`` to the ``(N, C, H, W)`` of ``like``, without a copy (the result is channels_last)."""
    return tokens.transpose(1, 2).view(like.shape)


class Attention(nn.Module):
    """Multi-head attention ``softmax(Q K^T / sqrt(d)) V`` (Vaswani et al. 2017, equation 1), projected back.

    Takes ``x`` as ``(N, L, channels)`` and returns the same shape; keys and values come from ``context``
    ``(N, S, context_channels)`` where given, else from ``x``.
    """

    def __init__(self, channels: int, heads: int, *, context_channels: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=bias)
        # A list of one: diffusers keeps a dropout, which has no weights, as its second item.
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def attend(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        y: Tensor = self.to_out[0](attention(q, k, v, self.to_q.weight.dtype).transpose(1, 2).flatten(2))
        return y

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.attend(x, context)


class MapAttention(Attention):
    """Residual self-attention among the pixels of a feature map: ``(x + attend(norm(x))) / factor``.

    ``groups`` None leaves the normalisation out. Shapes are ``(N, channels, H, W)`` in and out; ``context`` is unused.
    """

    def __init__(self, channels: int, heads: int, *, groups: int | None, eps: float, factor: float = 1.0) -> None:
        super().__init__(channels, heads, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps=eps) if groups is not None else None
        self.factor = factor

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = to_tokens(x if self.group_norm is None else self.group_norm(x))
        # x comes first so that the sum keeps its memory format.
        x = x + to_map(self.attend(tokens), x)
        return x if self.factor == 1 else x / self.factor


class GatedGelu(nn.Module):
    """``a * gelu(b)`` with ``(a, b) = W x`` (Shazeer 2020, GEGLU): ``(N, L, channels)`` to ``(N, L, width)``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        x = value * F.gelu(gate)
        return x


class FeedForward(nn.Module):
    """A gated layer of four times the width and a linear one back; ``(N, L, channels)`` both ways."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The places in the list are those of diffusers, which has a dropout in the middle.
        self.net = nn.Sequential(GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        return x


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, and a gated layer, each added to its input after a layer norm.

    Takes tokens ``(N, L, channels)`` and a context ``(N, S, context_channels)``, returns tokens of the same shape.
    """

    def __init__(self, channels: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_channels=context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        x = x + self.ff(self.norm3(x))
        return x


class MapTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map (Rombach et al. 2022, section 3.3), added to the map.

    ``Attention(Q, K, V)`` has its queries from the image and, in the second attention of each block, its keys and
    values from the context. ``linear`` projects the tokens rather than the map: the same function, weights ``(C, C)``
    in place of ``(C, C, 1, 1)``. Takes ``(N, channels, H, W)`` and ``(N, S, context_channels)``.
    """

    def __init__(
        self, channels: int, *, heads: int, layers: int, context_channels: int, groups: int, linear: bool
    ) -> None:
        super().__init__()
        # 1e-6 whatever norm_eps says: Stable Diffusion was trained so, and no key holds it.
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_channels) for _ in range(layers)
        )
        self.proj_out = nn.Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
        self.linear = linear

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + (to_map(self.proj_out(h), x) if self.linear else self.proj_out(to_map(h, x)))


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

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, context: Tensor | None) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, emb)
            if self.attentions:
                x = self.attentions[i](x, context)
            skips.append(x)
        for sampler in self.downsamplers:
            x = sampler(x, emb)
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

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, context: Tensor | None) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            # Popping lets a skip's memory go as soon as it has been read.
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            if self.attentions:
                x = self.attentions[i](x, context)
        for sampler in self.upsamplers:
            x = sampler(x, emb)
        return x


class MidBlock(nn.Module):
    """The bottom: a residual block, then attention and ``layers`` more residual blocks. The size stays."""

    def __init__(
        self, channels: int, *, resnet: MakeResnet, attention: MakeAttention | None = None, layers: int = 1
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnet(in_channels=channels, out_channels=channels) for _ in range(1 + layers))
        self.attentions = nn.ModuleList(attention(channels) for _ in range(layers) if attention is not None)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        x = self.resnets[0](x, emb)
        for i, resnet in enumerate(self.resnets[1:]):
            if self.attentions:
                x = self.attentions[i](x, context)
            x = resnet(x, emb)
        return x
