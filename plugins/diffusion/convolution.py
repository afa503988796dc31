"""Convolutions that keep their weights in the order in which the CPU's kernels read them.

oneDNN reads weights in blocks and reorders them at every call, unless they come reordered. For few pixels that takes as
long as the convolution itself: half of the time for one image of 8x8 with 512 channels.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What torch calls oneDNN; the module that says whether it is there and switched on.
mkldnn: Any = torch.backends.mkldnn

#: Pixels of the input, all images together, above which reordering at every call is lost in the work.
FEW_PIXELS = 2048


def reordered(weight: Tensor, like: nn.Conv2d, shape: list[int]) -> Tensor:
    """The weights in the order that suits the convolution ``like`` on inputs of ``shape``: opaque, and a copy."""
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    blocks: Tensor = reorder(weight.detach().to_mkldnn(), like.padding, like.stride, like.dilation, like.groups, shape)
    return blocks


def convolved(x: Tensor, blocks: Tensor, like: nn.Conv2d) -> Tensor:
    """What ``like`` makes of x, by weights that are reordered."""
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, blocks, like.bias, like.padding, like.stride, like.dilation, like.groups, "none", [], ""
    )
    return out


def reorders() -> bool:
    """Whether torch's two operators are there and do what is expected of them, tried out on a small convolution.

    They are torch's own and promised to nobody: one without them, or with others of their names, goes the ordinary way.
    """
    try:
        # On the meta device, where making it draws no random numbers: its settings alone are wanted.
        small = nn.Conv2d(2, 2, 3, padding=1, bias=False, device="meta")
        numbers = torch.linspace(-1, 1, 36, dtype=torch.float32, device="cpu")
        with torch.inference_mode():
            weight, x = numbers.view(2, 2, 3, 3), numbers[:32].view(1, 2, 4, 4)
            found = convolved(x, reordered(weight, small, [1, 2, 4, 4]), small)
            return torch.allclose(found, F.conv2d(x, weight, padding=1), atol=1e-5)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


#: Tried once, when nobody counts operations or has set a mode.
REORDERS = reorders()


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, with weights that stay reordered where that pays: frozen, on a CPU, for few pixels.

    The reordered copy takes as much memory again as the weights, for as long as the pixels are few: a call with more
    gives it back. It belongs to one state of the weights, and is made anew after they are replaced, moved or changed in
    place; only a write through ``.data``, which torch does not count, goes unseen. It is no part of the state dict.
    Weights that may be trained, other devices and dtypes, and ``torch.compile`` (which reorders by itself) take the
    ordinary way, whose sums may be rounded otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packed: tuple[weakref.ref[Tensor], tuple[int, int | None], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A reordered tensor cannot be copied; a copy of the module reorders its own.
        return {**self.__dict__, "_packed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Conv2d:
        # There and back again (half and float) the weights may lie at the address where they lay, and be others.
        self._packed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return super().forward(x)
        if not self._worthwhile(x):
            if self._packed is not None:
                self._packed = None
            return super().forward(x)
        return convolved(x, self._reordered(x), self)

    def _worthwhile(self, x: Tensor) -> bool:
        weight = self.weight
        fits: bool = (
            not (weight.requires_grad or x.requires_grad)
            and self.kernel_size != (1, 1)  # one place is a matrix product, which wants no order
            and weight.device.type == "cpu"
            and weight.dtype == x.dtype == torch.float32
            and 0 < x.shape[0] * x.shape[2] * x.shape[3] <= FEW_PIXELS
            and REORDERS
            and mkldnn.is_available()
            and mkldnn.enabled
            and not torch.is_autocast_enabled("cpu")
        )
        return fits

    def _reordered(self, x: Tensor) -> Tensor:
        weight = self.weight
        # Weights made in inference mode count no versions; they cannot be changed outside of it either.
        state = (weight.data_ptr(), None if weight.is_inference() else weight._version)
        if self._packed is None or self._packed[0]() is not weight or self._packed[1] != state:
            # For the shape that comes first; another one that wants another order still gets its numbers.
            self._packed = (weakref.ref(weight), state, reordered(weight, self, list(x.shape)))
        return self._packed[2]
