"""Linear layers that compute by the quicker of the CPU's two libraries.

torch gives float32 matrix products to the BLAS and convolutions to oneDNN; bfloat16 products go to oneDNN in any case.
On 6,272 tokens of 96 channels oneDNN takes half of the time, forwards and backwards (AMD EPYC, MKL's BLAS).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion.onednn import plain, tried

#: Multiplications below which the way to oneDNN takes longer than it saves.
FEW_PRODUCTS = 2**20


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x weight^T + bias`` by oneDNN, without gradients: (..., in) and (out, in) to (..., out)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def multiplies() -> bool:
    """Whether torch's operator is there and does what is expected of it."""
    numbers = torch.linspace(-1, 1, 36, dtype=torch.float32, device="cpu")
    x, weight, bias = numbers[:24].view(2, 4, 3), numbers[24:].view(4, 3), numbers[:4]
    return tried(lambda: torch.allclose(product(x, weight, bias), F.linear(x, weight, bias), atol=1e-5))


#: Tried once, when nobody counts operations or has set a mode.
MULTIPLIES = multiplies()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``; by oneDNN where the weights are frozen and the product is large."""
    if x.numel() * weight.shape[0] >= FEW_PRODUCTS and MULTIPLIES and plain(x, weight, bias):
        return product(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear``: the same function, by ``linear``, or by a 1x1 convolution where tokens ``(N, L, C)`` train it.

    The sums are those of the product, rounded in another order. Other devices and dtypes, and ``torch.compile``, which
    chooses by itself, take the ordinary way.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._by_convolution(x):
            return linear(x, self.weight, self.bias)
        # Tokens lie in memory as a channels_last map of 1 x L pixels does: both ways are views.
        tokens = F.conv2d(x.transpose(1, 2).unsqueeze(2), self.weight[:, :, None, None], self.bias)
        return tokens.squeeze(2).transpose(1, 2)

    def _by_convolution(self, x: Tensor) -> bool:
        return (
            x.ndim == 3 and torch.is_grad_enabled() and self.weight.requires_grad and plain(x, self.weight, graph=True)
        )
