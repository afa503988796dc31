"""Which kernels a run works with, seen at work rather than read from switches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside the block, every convolution's memory format and every fused attention kernel is noted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formats: dict[str, None] = {}
        self.attention: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        if "conv" in name and isinstance(args[0], torch.Tensor) and args[0].ndim == 4:
            last = args[0].is_contiguous(memory_format=torch.channels_last)
            # Of one channel or one pixel both are true, which tells nothing.
            if last != args[0].is_contiguous():
                self.formats["channels_last" if last else "contiguous"] = None
        elif name == "scaled_dot_product_attention":
            with self:  # which of the fused kernels it calls
                return func.decompose(*args, **(kwargs or {}))
        elif "scaled_dot_product" in name:
            self.attention[name.strip("_")] = None
        return func(*args, **(kwargs or {}))

    def settings(self) -> dict[str, str]:
        """For a row, by name."""
        return {
            "memory_format": ", ".join(self.formats) or "none seen",
            "attention": ", ".join(self.attention) or "no fused kernel",
        }
