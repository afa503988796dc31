"""Convolutions that keep their weights in the order in which the CPU's kernels read them.

oneDNN reads weights in blocks and reorders them at every call, unless they come reordered. For few pixels that takes as
long as the convolution itself: half of the time for one image of 8x8 with 512 channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: What torch calls oneDNN; the module that says whether it is there and switched on.
mkldnn: Any = torch.backends.mkldnn

#: The two operators that this rests on are torch's own, and promised to nobody: without them the ordinary way is taken.
REORDERS = hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight") and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
#: Pixels of the input, all images together, above which reordering at every call is lost in the work.
FEW_PIXELS = 2048


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, with weights that stay reordered where that pays: frozen, on a CPU, for few pixels.

    The reordered copy belongs to one state of the weights: it is made anew after they move or change in place. It is no
    part of the state dict. Weights that may be trained, other devices and dtypes, and ``torch.compile`` (which reorders
    by itself) take the ordinary way; the numbers are those of the same kernel either way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packed: tuple[tuple[int, int | None], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A reordered tensor cannot be copied; a copy of the module reorders its own.
        return {**self.__dict__, "_packed": None}

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self._worthwhile(x):
            return super().forward(x)
        weight = self._reordered(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, self.padding, self.stride, self.dilation, self.groups, "none", [], ""
        )
        return out

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
        if self._packed is None or self._packed[0] != state:
            # For the shape that comes first; another one that wants another order still gets its numbers.
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            blocks = reorder(
                weight.detach().to_mkldnn(), self.padding, self.stride, self.dilation, self.groups, list(x.shape)
            )
            self._packed = (state, blocks)
        return self._packed[1]
