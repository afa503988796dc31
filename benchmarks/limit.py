"""The physical limit of a network on this machine: its convolutions, products and attention, each alone at its best.

Every such call of one forward pass is recorded with its shapes; each distinct one is then timed by itself in every
layout that there is, and the fastest counts. What a whole forward pass takes beyond their sum is everything else:
normalisation, activations, additions, copies, and Python.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from ratios import CLOCKS, Clock
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

#: (operator, shapes, and what else tells two calls apart).
Signature = tuple[str, tuple[tuple[int, ...], ...], tuple[Any, ...]]


class Recorder(TorchDispatchMode):
    """Counts the calls that do the arithmetic of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Signature] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        shapes = tuple(tuple(each.shape) for each in args if isinstance(each, Tensor))
        if packet is aten.convolution:
            self.seen["conv", shapes[:2], (tuple(args[3]), tuple(args[4]), tuple(args[5]), args[8])] += 1
        elif packet in (aten.addmm, aten.mm, aten.bmm, aten.baddbmm):
            self.seen["product", shapes[-2:], ()] += 1
        elif "scaled_dot_product" in str(packet):
            self.seen["attention", shapes[:3], ()] += 1
        return func(*args, **(kwargs or {}))


def calls_of(forward: Callable[[], object]) -> Counter[Signature]:
    """How often a forward pass makes each call."""
    recorder = Recorder()
    # Not in inference mode, where what is recorded has not yet been taken apart into these calls.
    with torch.no_grad(), recorder:
        forward()
    return recorder.seen


def candidates(signature: Signature) -> Iterator[Callable[[], object]]:
    """The ways of making one call."""
    kind, shapes, settings = signature
    tensors = [torch.randn(shape) for shape in shapes]
    if kind == "conv":
        stride, padding, dilation, groups = settings
        for layout in (torch.contiguous_format, torch.channels_last):
            x, weight = (tensor.contiguous(memory_format=layout) for tensor in tensors)
            yield lambda x=x, w=weight: F.conv2d(x, w, None, stride, padding, dilation, groups)
        if torch.backends.mkldnn.is_available():
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                tensors[1].to_mkldnn(), padding, stride, dilation, groups, list(x.shape)
            )
            call = torch.ops.mkldnn._convolution_pointwise
            yield lambda: call(x, packed, None, padding, stride, dilation, groups, "none", [], "")
    elif kind == "product":
        a, b = tensors
        yield lambda: torch.matmul(a, b)
        turned = b.transpose(-1, -2).contiguous().transpose(-1, -2)  # as a linear layer keeps its weights
        yield lambda: torch.matmul(a, turned)
    else:
        q, k, v = tensors
        yield lambda: F.scaled_dot_product_attention(q, k, v)


def quickest(call: Callable[[], object], clock: Clock, seconds: float) -> float:
    """Seconds of the fastest of at least five repetitions."""
    now = CLOCKS[clock]
    call()
    best, end, count = float("inf"), time.perf_counter() + seconds, 0
    while count < 5 or time.perf_counter() < end:
        begin = now()
        call()
        best, count = min(best, now() - begin), count + 1
    return best


def limit_of(forward: Callable[[], object], clock: Clock = "wall", seconds: float = 0.05) -> float:
    """Seconds that a forward pass takes at least, as told by its arithmetic alone."""
    calls = calls_of(forward)
    with torch.inference_mode():
        return sum(
            count * min(quickest(call, clock, seconds) for call in candidates(signature))
            for signature, count in calls.items()
        )
