"""What lies between the products of a diffusion U-Net: normalisation, activations, sums and changes of size.

A sum, and an activation where no gradient is wanted, take the memory of an operand that nobody reads again: a map as
large as a cache is otherwise written to memory that must first be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.onednn import Kept, plain

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


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the weights' dtype.

    In mixed precision that is float32, as sums over a group want it; on a CPU it is also several times faster there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


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


#: Pixels, all images together, from which on the folded kernel is faster than one in its CPU's own order.
ENOUGH_PIXELS = 64


def folded(weight: Tensor) -> Tensor:
    """The 4x4 kernel, of a transposed convolution of stride 2, that repeats every pixel and convolves by a 3x3 kernel.

    Along one side, output o reads input floor((o + k - 1) / 2) by weight w_k; what falls on input i from output
    2 i + j - 1 is w_2, w_1 + w_2, w_0 + w_1, w_0 for j = 0 to 3. So four products a pixel and side do for six.

    Takes ``(out, in, 3, 3)``, returns ``(in, out, 4, 4)``, channels last.
    """
    along = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    kernel = torch.einsum("jk,ml,oikl->iojm", along, along, weight.detach())
    return kernel.contiguous(memory_format=torch.channels_last)


class Upsample(nn.Module):
    """Double height and width by repetition, then smooth with a 3x3 convolution.

    With frozen weights on a CPU both are one convolution, which has four ninths of the work: see ``folded``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)
        self._folded: Kept[Tensor] = Kept()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Upsample:
        # There and back again (half and float) the weights may lie at the address where they lay, and be others.
        self._folded.drop()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor, told: Iterator[Tensor]) -> Tensor:
        weight, bias = self.conv.weight, self.conv.bias
        if x.shape[0] * x.shape[2] * x.shape[3] >= ENOUGH_PIXELS and plain(x, weight, bias):
            kernel = self._folded.get([weight], self._fold)
            return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        self._folded.drop()
        x = self.conv(upsample(x))
        return x

    def _fold(self) -> Tensor:
        return self.conv.copied(lambda: folded(self.conv.weight))
