"""Linear layers that compute by the quicker of the CPU's two libraries, by weights that stay in its order.

torch gives float32 matrix products to the BLAS and convolutions to oneDNN; bfloat16 products go to oneDNN in any case.
With weights that come reordered, oneDNN takes a tenth off a large product (AMD EPYC 9004, MKL's BLAS), and on some
processors half (6,272 tokens of 96 channels, forwards and backwards, AMD EPYC 9005).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo.layout import LaidOutLate
from genzoo_plugins.diffusion.onednn import Keeping, Kept, plain, tried

#: Multiplications below which the way to oneDNN takes longer than it saves.
FEW_PRODUCTS = 2**22


def reordered(weight: Tensor) -> Tensor:
    """The weights ``(out, in)`` in the order that suits oneDNN's products: opaque, and a copy."""
    reorder: Any = torch.ops.mkldnn._reorder_linear_weight
    blocks: Tensor = reorder(weight.detach())
    return blocks


def product(x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """``x weight^T + bias`` by oneDNN, without gradients, by a weight that is reordered: (..., in) to (..., out)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, "none", [], "")
    return out


def multiplies() -> bool:
    """Whether torch's two operators are there and do what is expected of them."""
    numbers = torch.linspace(-1, 1, 36, dtype=torch.float32, device="cpu")
    x, weight, bias = numbers[:24].view(2, 4, 3), numbers[24:].view(4, 3), numbers[:4]
    return tried(lambda: torch.allclose(product(x, reordered(weight), bias), F.linear(x, weight, bias), atol=1e-5))


#: Tried once, when nobody counts operations or has set a mode.
MULTIPLIES = multiplies()


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    blocks: Kept[Tensor],
    owner: LaidOutLate | None = None,
) -> Tensor:
    """``F.linear``; by oneDNN where the weights are frozen and the product is large.

    Args:
        x: ``(..., in)``.
        weight: ``(out, in)``, or ``(out, in, 1, 1)`` of a convolution.
        bias: ``(out,)``.
        blocks: where the reordered weight is kept, for one state of it.
        owner: the layer whose own weight it is.
    """
    if not torch.compiler.is_compiling():
        if MULTIPLIES and plain(x, weight, bias):
            if x.numel() * weight.shape[0] >= FEW_PRODUCTS:

                def copy() -> Tensor:
                    return reordered(weight.flatten(1))

                order = blocks.get((weight,), copy if owner is None else lambda: owner.copied(copy))
                return product(x, order, bias)
        else:
            blocks.drop()
        if owner is not None:
            owner.lay_out()
    return F.linear(x, weight if weight.ndim == 2 else weight.flatten(1), bias)


class Linear(Keeping, LaidOutLate, nn.Linear):
    """``nn.Linear``: the same function, by ``linear``, or by a 1x1 convolution where tokens ``(N, L, C)`` train it.

    The sums are those of the product, rounded in another order. Other devices and dtypes, and ``torch.compile``, which
    chooses by itself, take the ordinary way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.blocks: Kept[Tensor] = Kept()

    def forward(self, x: Tensor) -> Tensor:
        if not self._by_convolution(x):
            return linear(x, self.weight, self.bias, self.blocks, self)
        self.lay_out()
        # Tokens lie in memory as a channels_last map of 1 x L pixels does: both ways are views.
        tokens = F.conv2d(x.transpose(1, 2).unsqueeze(2), self.weight[:, :, None, None], self.bias)
        return tokens.squeeze(2).transpose(1, 2)

    def _by_convolution(self, x: Tensor) -> bool:
        return (
            x.ndim == 3 and torch.is_grad_enabled() and self.weight.requires_grad and plain(x, self.weight, graph=True)
        )
