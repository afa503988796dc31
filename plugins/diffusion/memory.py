"""Memory of feature maps on a CPU: what is freed is taken again, where the C library would fetch it from the kernel.

glibc gives a block of some size back to the kernel when it is freed, and the top of its heap when enough of it is free.
The next map is then made of pages that have to be fetched, a microsecond or more each: for large batches a twentieth of
a pass. Both thresholds follow the largest block that was ever freed, but for blocks above 32 MiB, which always go back
(mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). So one block of that size is freed before the first pass, and
passes are made of so many images at a time that no map is larger. Whoever has set the thresholds keeps them, and other
C libraries are not touched by it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

#: Bytes of a block that glibc still learns to keep, with room for what it writes beside it.
LARGEST = 2**25 - 2**16


@cache
def keep_what_is_freed() -> None:
    """Let the C library keep what passes free, up to twice ``LARGEST``. Once a process; no page is touched."""
    torch.empty(LARGEST, dtype=torch.uint8, device="cpu")


def parts(sample: Tensor, widest: float) -> int:
    """In how many parts a batch passes through a network without gradients.

    Args:
        sample: ``(N, C, H, W)``.
        widest: numbers that the network's largest map has for each pixel of the sample.
    """
    if sample.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return 1
    keep_what_is_freed()
    images, _, height, width = sample.shape
    at_once = max(1, int(LARGEST / (widest * height * width * sample.element_size())))
    return -(-images // at_once)
