"""Convolutions that keep their weights in the order in which the CPU's kernels read them.

oneDNN reads weights in blocks and reorders them at every call, unless they come reordered. For few pixels that takes as
long as the convolution itself: half of the time for one image of 8x8 with 512 channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo.layout import LaidOutLate
from genzoo_plugins.diffusion.linear import linear
from genzoo_plugins.diffusion.onednn import Keeping, Kept, plain, tried

#: Pixels of the input, all images together, above which reordering at every call is lost in the work.
FEW_PIXELS = 2048


def reordered(weight: Tensor, like: nn.Conv2d, shape: list[int]) -> Tensor:
    """The weights in the order that suits the convolution ``like`` on inputs of ``shape``: opaque, and a copy."""
    reorder: Any = torch.ops.mkldnn._reorder_convolution_weight
    blocks: Tensor = reorder(weight.detach(), like.padding, like.stride, like.dilation, like.groups, shape)
    return blocks


def convolved(x: Tensor, blocks: Tensor, bias: Tensor | None, like: nn.Conv2d) -> Tensor:
    """What ``like`` makes of x with this bias, by weights that are reordered."""
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, blocks, bias, like.padding, like.stride, like.dilation, like.groups, "none", [], ""
    )
    return out


def reorders() -> bool:
    """Whether torch's two operators are there and do what is expected of them, tried out on a small convolution.

    They are torch's own and promised to nobody: one without them, or with others of their names, goes the ordinary way.
    """
    # On the meta device, where making it draws no random numbers: its settings alone are wanted.
    small = nn.Conv2d(2, 2, 3, padding=1, bias=False, device="meta")
    numbers = torch.linspace(-1, 1, 36, dtype=torch.float32, device="cpu")
    weight, x = numbers.view(2, 2, 3, 3), numbers[:32].view(1, 2, 4, 4)

    def trial() -> bool:
        found = convolved(x, reordered(weight, small, [1, 2, 4, 4]), None, small)
        return torch.allclose(found, F.conv2d(x, weight, padding=1), atol=1e-5)

    return tried(trial)


#: Tried once, when nobody counts operations or has set a mode.
REORDERS = reorders()


class Conv2d(Keeping, LaidOutLate, nn.Conv2d):
    """``nn.Conv2d``, with weights that stay reordered where that pays: frozen, on a CPU, for few pixels.

    The reordered copy is made from the weights as they lie in their file, whose memory is then given back, and is kept
    for as long as the pixels are few; of weights from elsewhere it takes as much memory again. It belongs to one state
    of the weights, and is made anew after they are replaced, moved or changed in place; only a write through ``.data``,
    which torch does not count, goes unseen. It is no part of the state dict. Weights that may be trained, other devices
    and dtypes, and ``torch.compile`` (which reorders by itself) take the ordinary way, whose sums may be rounded
    otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.blocks: Kept[Tensor] = Kept()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``bias``, (1, C) for all images or (N, C) with a row for each, stands in for the convolution's own."""
        row = self.bias if bias is None else bias.select(0, 0) if bias.shape[0] == 1 else None
        out: Tensor = self._convolved(x, row)
        return out if bias is None or row is not None else out.add_(bias[:, :, None, None])

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling():
            return self._ordinary(x, bias)
        weight = self.weight
        frozen = plain(x, weight, bias)
        if frozen and self._wants_order(x):
            # For the shape that comes first; another one that wants another order still gets its numbers.
            blocks = self.blocks.get((weight,), lambda: self.copied(lambda: reordered(weight, self, list(x.shape))))
            return convolved(x, blocks, bias, self)
        if frozen and self._is_product(x):
            # A view of the map as one row of channels a pixel, and back.
            return linear(x.permute(0, 2, 3, 1), weight, bias, self.blocks, self).permute(0, 3, 1, 2)
        self.blocks.drop()
        self.lay_out()
        return self._ordinary(x, bias)

    def _ordinary(self, x: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = self._conv_forward(x, self.weight, bias)
        return out

    def _wants_order(self, x: Tensor) -> bool:
        images, _, height, width = x.shape
        few = 0 < images * height * width <= FEW_PIXELS
        return few and REORDERS and self.kernel_size != (1, 1)  # one place is a matrix product, which wants no order

    def _is_product(self, x: Tensor) -> bool:
        return (
            self.kernel_size == self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.groups == 1
            and x.is_contiguous(memory_format=torch.channels_last)
        )
