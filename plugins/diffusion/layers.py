"""What lies between the products of a diffusion U-Net: normalisation, activations, sums and changes of size.

A sum, and an activation where no gradient is wanted, take the memory of an operand that nobody reads again: a map as
large as a cache is otherwise written to memory that must first be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.compiling import constant
from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.onednn import Keeping, Kept, plain, tried

#: ``act(x, inplace=False)``.
Activation = Callable[..., Tensor]


def gelu(x: Tensor, inplace: bool = False) -> Tensor:
    """``x Phi(x)`` (Hendrycks & Gimpel 2016)."""
    return F.gelu(x)


#: The activations a configuration may name.
ACTIVATIONS: dict[str, Activation] = {"silu": F.silu, "swish": F.silu, "mish": F.mish, "gelu": gelu, "relu": F.relu}


def activated(act: Activation, x: Tensor) -> Tensor:
    """``act(x)``; x is not wanted any more."""
    return act(x, inplace=not torch.is_grad_enabled())


def added(x: Tensor, h: Tensor, factor: float = 1.0) -> Tensor:
    """``(x + h) / factor``, in the wider dtype of the two; h is not wanted any more."""
    # Of a view, autograd would want the whole once more.
    x = x + h if h.dtype != x.dtype or (h.requires_grad and h._is_view()) else h.add_(x)
    return x if factor == 1 else x / factor


def _realized(x: Tensor) -> Tensor:
    """x, which torch's compiler then writes to memory once, in place of working it out wherever it is read."""
    return x.contiguous().as_strided(x.shape, x.stride())


def columnwise_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``F.group_norm`` of a channels_last map, for torch's compiler: sums by channel, then one pass of products.

    Wu & He 2018, equation 1, with the variance as mean square minus squared mean, as torch's own kernel has it for this
    layout. The numbers of a group lie apart, and those of a pixel together: left to itself, the compiler walks through
    a group at a time, and works its factors out anew for every number.
    """
    images, channels, height, width = x.shape

    def mean(sums: Tensor) -> Tensor:
        return sums.view(images, groups, -1).sum(2, keepdim=True) / (height * width * (channels // groups))

    first, second = mean(x.sum((2, 3))), mean((x * x).sum((2, 3)))
    scale = torch.rsqrt((second - first * first).clamp_min(0) + eps) * weight.view(groups, -1)
    shift = bias.view(groups, -1) - first * scale
    scale, shift = (_realized(each.view(images, channels))[:, :, None, None] for each in (scale, shift))
    return x * scale + shift


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the weights' dtype.

    In mixed precision that is float32, as sums over a group want it; on a CPU it is also several times faster there.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        # Not by way of the functional form, whose checks take as long as the work on one small image.
        x = x if x.dtype is weight.dtype else x.to(weight.dtype)
        if constant(x, weight) and x.is_contiguous(memory_format=torch.channels_last):
            return columnwise_group_norm(x, self.num_groups, weight, self.bias, self.eps)
        return torch.group_norm(x, self.num_groups, weight, self.bias, self.eps)


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating every pixel: ``(N, C, H, W)`` to ``(N, C, 2H, 2W)``."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Halve height and width by the mean of every 2x2 square: ``(N, C, H, W)`` to ``(N, C, H/2, W/2)``."""
    return F.avg_pool2d(x, kernel_size=2, stride=2)


class Downsample(nn.Module):
    """Halve height and width with a strided 3x3 convolution.

    ``padding`` 1 pads every side; 0 pads right and bottom only, as the TensorFlow code of Ho et al. 2020 does.
    """

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.one_sided = padding == 0

    def forward(self, x: Tensor, told: Iterator[Tensor]) -> Tensor:
        x = self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)
        return x


def folded(weight: Tensor) -> Tensor:
    """The 4x4 kernel, of a transposed convolution of stride 2, that repeats every pixel and convolves by a 3x3 kernel.

    Along one side, output o reads input floor((o + k - 1) / 2) by weight w_k; what falls on input i from output
    2 i + j - 1 is w_2, w_1 + w_2, w_0 + w_1, w_0 for j = 0 to 3. So four products a pixel and side do for six.

    Takes ``(out, in, 3, 3)``, returns ``(in, out, 4, 4)``, channels last.
    """
    along = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    kernel = torch.einsum("jk,ml,oikl->iojm", along, along, weight.detach())
    return kernel.contiguous(memory_format=torch.channels_last)


def reordered(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """What ``folded`` makes of a 3x3 kernel, in the order that suits inputs of ``shape``: opaque."""
    reorder: Any = torch.ops.mkldnn._reorder_convolution_transpose_weight
    blocks: Tensor = reorder(folded(weight), (1, 1), (0, 0), (2, 2), (1, 1), 1, list(shape))
    return blocks


def enlarged(x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """x with every pixel repeated, and then convolved: by a kernel that is folded and reordered."""
    out: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        x, blocks, bias, (1, 1), (0, 0), (2, 2), (1, 1), 1, "none", [], ""
    )
    return out


def enlarges() -> bool:
    """Whether torch's two operators for that are there and do what is expected of them."""
    numbers = torch.linspace(-1, 1, 36, dtype=torch.float32, device="cpu")
    weight, x = numbers.view(2, 2, 3, 3), numbers[:18].view(1, 2, 3, 3)

    def trial() -> bool:
        found = enlarged(x, reordered(weight, x.shape), None)
        return torch.allclose(found, F.conv2d(upsample(x), weight, padding=1), atol=1e-5)

    return tried(trial)


#: Tried once, when nobody counts operations or has set a mode.
ENLARGES = enlarges()


class Upsample(Keeping):
    """Double height and width by repetition, then smooth with a 3x3 convolution.

    With frozen weights on a CPU both are one convolution, which has four ninths of the work: see ``folded``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)
        self.blocks: Kept[Tensor] = Kept()

    def forward(self, x: Tensor, told: Iterator[Tensor]) -> Tensor:
        weight, bias = self.conv.weight, self.conv.bias
        if ENLARGES and plain(x, weight, bias):
            # For the shape that comes first, as in ``Conv2d``.
            blocks = self.blocks.get((weight,), lambda: self.conv.copied(lambda: reordered(weight, x.shape)))
            return enlarged(x, blocks, bias)
        if constant(x, weight, bias):
            return F.conv_transpose2d(x, folded(weight), bias, stride=2, padding=1)
        self.blocks.drop()
        x = self.conv(upsample(x))
        return x
