"""Attention among the pixels of a feature map, and from them to a sequence such as a prompt."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.compiling import constant, opaque
from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.layers import GroupNorm, added
from genzoo_plugins.diffusion.linear import Linear, linear
from genzoo_plugins.diffusion.onednn import Keeping, Kept, plain

#: Heads below this width, with no more scores than that each, are attended by products: see ``narrow_attention``.
NARROW, FEW_SCORES = 16, 2**16

#: Scores worked on at a time: a megabyte of them stays in a core's cache.
CACHED_SCORES = 2**18

#: Tokens, all images together, up to which three projections are one product.
FEW_TOKENS = 1024


def narrow_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``attention`` where the heads are so narrow that PyTorch's kernel wastes most of the registers on them.

    Scores and softmax as they stand in the formula, a few heads at a time; then ``(softmax v)^T = v^T softmax^T``,
    whose rows are as long as there are tokens. Twice as fast at 8 channels a head; no gradients.
    """
    images, heads, tokens, width = q.shape
    q, k, v = (each.reshape(images * heads, -1, width) for each in (q * (1 / math.sqrt(width)), k, v))
    sources = k.shape[1]
    out = q.new_empty(images * heads, width, tokens)
    at_once = max(1, CACHED_SCORES // (tokens * sources))
    scores = q.new_empty(min(at_once, images * heads), tokens, sources)
    for q_i, k_i, v_i, out_i in zip(*(torch.split(each, at_once) for each in (q, k, v, out)), strict=True):
        part = scores[: len(q_i)]
        torch.bmm(q_i, k_i.transpose(1, 2), out=part)
        torch.softmax(part, dim=-1, out=part)
        torch.bmm(v_i.transpose(1, 2), part.transpose(1, 2), out=out_i)
    return out.view(images, heads, width, tokens).transpose(2, 3)


#: The same for torch's compiler, which shall not look into it.
opaque_narrow_attention = opaque(
    "narrow_attention(Tensor q, Tensor k, Tensor v) -> Tensor",
    narrow_attention,
    lambda q, k, v: q.new_empty(*q.shape[:2], q.shape[3], q.shape[2]).transpose(2, 3),
)


def attention(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over ``(N, heads, tokens, d)`` (Vaswani et al. 2017, eq. 1).

    In mixed precision on a CPU (weights of another ``dtype`` than q) it runs in the weights': the backward pass of the
    bfloat16 kernel takes six times as long as the float32 one.
    """
    if q.shape[3] < NARROW and q.shape[2] * k.shape[2] <= FEW_SCORES:
        if plain(q, k, v):
            return narrow_attention(q, k, v)
        if constant(q, k, v):
            return opaque_narrow_attention(q, k, v)
    if q.device.type == "cpu" and q.dtype != dtype:
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    return F.scaled_dot_product_attention(q, k, v)


def to_tokens(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H W, C)``: a view of a channels_last map, one copy of any other."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """``(N, H W, C)`` to the ``(N, C, H, W)`` of ``like``, without a copy (the result is channels_last)."""
    # By way of (N, H, W, C): of one image, a view of (N, C, H W) has strides that nobody takes for channels_last.
    images, _, height, width = like.shape
    return tokens.view(images, height, width, -1).permute(0, 3, 1, 2)


class Attention(Keeping):
    """Multi-head attention ``softmax(Q K^T / sqrt(d)) V`` (Vaswani et al. 2017, equation 1), projected back.

    Takes ``x`` as ``(N, L, channels)`` and returns the same shape; keys and values come from ``context``
    ``(N, S, context_channels)`` where given, else from ``x``.
    """

    def __init__(self, channels: int, heads: int, *, context_channels: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(channels, channels, bias=bias)
        self.to_k = Linear(context_channels or channels, channels, bias=bias)
        self.to_v = Linear(context_channels or channels, channels, bias=bias)
        # A list of one: diffusers keeps a dropout, which has no weights, as its second item.
        self.to_out = nn.ModuleList([Linear(channels, channels)])
        self._joint: Kept[tuple[Tensor, Tensor | None]] = Kept()
        self._joint_blocks: Kept[Tensor] = Kept()

    def attend(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q, k, v = self._projections(x, context)
        y: Tensor = self.to_out[0](attention(q, k, v, self.to_q.weight.dtype).transpose(1, 2).flatten(2))
        return y

    def _projections(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Q, K and V, ``(N, heads, L, d)`` each: one product where three would be too small to be worth a call."""
        layers = (self.to_q, self.to_k, self.to_v)
        weights: list[Tensor] = [layer.weight for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        few, given = context is None and x.shape[0] * x.shape[1] <= FEW_TOKENS, (x, *weights, *biases)
        if few and (plain(*given) or constant(*given)):
            weight, bias = self._joint.get(
                given[1:], lambda: (torch.cat(weights), torch.cat(biases) if biases else None)
            )
            together = linear(x, weight, bias, self._joint_blocks).view(*x.shape[:2], 3, self.heads, -1)
            return together.permute(2, 0, 3, 1, 4).unbind()
        self._joint.drop()
        self._joint_blocks.drop()
        source = x if context is None else context
        apart = (self.to_q(x), self.to_k(source), self.to_v(source))
        return tuple(y.view(*y.shape[:2], self.heads, -1).transpose(1, 2) for y in apart)

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
        return added(x, to_map(self.attend(tokens), x), self.factor)


class GatedGelu(nn.Module):
    """``a * gelu(b)`` with ``(a, b) = W x`` (Shazeer 2020, GEGLU): ``(N, L, channels)`` to ``(N, L, width)``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = Linear(channels, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        x = value * F.gelu(gate)
        return x


class FeedForward(nn.Module):
    """A gated layer of four times the width and a linear one back; ``(N, L, channels)`` both ways."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The places in the list are those of diffusers, which has a dropout in the middle.
        self.net = nn.Sequential(GatedGelu(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels))

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
        x = added(x, self.attn1(self.norm1(x)))
        x = added(x, self.attn2(self.norm2(x), context))
        x = added(x, self.ff(self.norm3(x)))
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
        self.proj_in = Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_channels) for _ in range(layers)
        )
        self.proj_out = Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
        self.linear = linear

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, context)
        return added(x, to_map(self.proj_out(h), x) if self.linear else self.proj_out(to_map(h, x)))
