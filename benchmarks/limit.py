"""The physical limit of a network on this machine: its convolutions, products and attention, each alone at its best.

Counted is the arithmetic that a forward pass of the network really issues, whichever of torch's operators it asks for
it: every such call is recorded with its shapes, and each distinct one is timed by itself in every layout that there is,
with weights as they are, turned, or put beforehand into the order of the kernels, and with memory for the result where
an operator takes it. The fastest is chosen, without a bias and with nothing fused to it. Then all calls of the pass are
made in their order, and nothing else: the limit is the quickest such run, as the pass, in turns with it, is told by its
quickest. (The sum of each call's own luckiest time is a tenth less, and no run of them takes it.) What a pass takes
beyond is everything else: normalisation, activations, sums, copies, Python, and what caches and memory cost where
results are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from ratios import CLOCKS, Clock
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: oneDNN's operators, which frozen weights are computed with; some builds of torch have none.
mkldnn: Any = torch.ops.mkldnn

#: How often each call gets its turn.
ROUNDS = 3


class Signature(NamedTuple):
    """What a call computes.

    Attributes:
        kind: convolution, product, attention or softmax (of attention that is written out).
        shapes: of its operands.
        settings: of a convolution, what ``torch.convolution`` takes after the bias.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    settings: tuple[Any, ...] = ()

    @classmethod
    def of(cls, operator: Any, args: Any) -> Signature | None:
        """What this call of an operator of torch computes; None if that is no arithmetic of these kinds."""
        if operator._overloadname == "binary":
            args = [args[0], *args[2:]]  # without what is added to the result
        match operator._schema.name:
            case "aten::convolution":
                return cls.convolution(*args[:2], *args[3:9])
            case "mkldnn::_convolution_pointwise":
                padding, stride, dilation, groups = args[3:7]
                return cls.convolution(*args[:2], stride, padding, dilation, False, [0, 0], groups)
            case "mkldnn::_convolution_transpose_pointwise":
                padding, more, stride, dilation, groups = args[3:8]
                return cls.convolution(*args[:2], stride, padding, dilation, True, more, groups)
            case "mkldnn::_linear_pointwise":
                x, weight = args[:2]
                return cls.product((x.numel() // x.shape[-1], x.shape[-1]), weight.shape[::-1])
            case "aten::mm" | "aten::bmm":
                return cls.product(args[0].shape, args[1].shape)
            case "aten::addmm" | "aten::baddbmm":
                return cls.product(args[1].shape, args[2].shape)
            case "aten::_softmax" | "aten::softmax":
                return cls("softmax", (tuple(args[0].shape),))
            case name if "scaled_dot_product" in name:
                return cls("attention", tuple(tuple(each.shape) for each in args[:3]))
        return None

    @classmethod
    def convolution(cls, x: Tensor, weight: Tensor, *settings: Any) -> Signature:
        """Stride, padding, dilation, whether it is transposed, the output's padding, groups."""
        fixed = tuple(tuple(each) if isinstance(each, list) else each for each in settings)
        return cls("convolution", (tuple(x.shape), tuple(weight.shape)), fixed)

    @classmethod
    def product(cls, a: Iterable[int], b: Iterable[int]) -> Signature:
        """Of matrices of these shapes, or of stacks of them."""
        return cls("product", (tuple(a), tuple(b)))


class Recorder(TorchDispatchMode):
    """Writes down the calls that do the arithmetic of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Signature] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # In inference mode a call arrives whole; its parts are what is counted.
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if (found := Signature.of(func, args)) is not None:
            self.seen.append(found)
        return func(*args, **kwargs)


def calls_of(forward: Callable[[], object]) -> list[Signature]:
    """The calls of a forward pass, in their order."""
    recorder = Recorder()
    with torch.inference_mode():
        forward()  # what a network works out of its weights once is no part of a pass
        with recorder:
            forward()
    return recorder.seen


def candidates(signature: Signature) -> Iterator[Callable[[], object]]:
    """The ways of making one call."""
    tensors = [torch.randn(shape) for shape in signature.shapes]
    match signature.kind:
        case "convolution":
            yield from convolutions(*tensors, *signature.settings)
        case "product":
            yield from products(*tensors)
        case "softmax":
            out = torch.empty_like(tensors[0])
            yield lambda: torch.softmax(tensors[0], -1, out=out)
        case _:
            yield lambda: F.scaled_dot_product_attention(*tensors)


def convolutions(
    x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool, more: Any, groups: int
) -> Iterator[Callable[[], Tensor]]:
    """The ways of convolving."""
    for layout in (torch.contiguous_format, torch.channels_last):
        given = [each.contiguous(memory_format=layout) for each in (x, weight)]
        yield lambda given=given: torch.convolution(*given, None, stride, padding, dilation, transposed, more, groups)
    if not torch.backends.mkldnn.is_available():
        return
    x, last = x.contiguous(memory_format=torch.channels_last), ("none", [], "")
    if transposed:
        packed = mkldnn._reorder_convolution_transpose_weight(
            weight, padding, more, stride, dilation, groups, list(x.shape)
        )
        turned = mkldnn._convolution_transpose_pointwise
        yield lambda: turned(x, packed, None, padding, more, stride, dilation, groups, *last)
    else:
        packed = mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, list(x.shape))
        yield lambda: mkldnn._convolution_pointwise(x, packed, None, padding, stride, dilation, groups, *last)


def products(a: Tensor, b: Tensor) -> Iterator[Callable[[], Tensor]]:
    """The ways of multiplying matrices."""
    out = torch.empty(*a.shape[:-1], b.shape[-1])
    turned = b.transpose(-1, -2).contiguous()  # as a linear layer keeps its weights
    yield lambda: torch.matmul(a, b, out=out)
    yield lambda: torch.matmul(a, turned.transpose(-1, -2), out=out)
    if a.ndim == 2 and torch.backends.mkldnn.is_available():
        for weight in (turned, mkldnn._reorder_linear_weight(turned, len(a))):
            yield lambda weight=weight: mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def quickest(calls: Sequence[Callable[[], object]], clock: Clock, seconds: float) -> list[float]:
    """Seconds of the fastest of at least five repetitions of each call, in turns: a slow machine is slow for all."""
    now = CLOCKS[clock]
    for call in calls:
        call()
    best = [math.inf] * len(calls)
    end, count = time.perf_counter() + seconds, 0
    while count < 5 or time.perf_counter() < end:
        for i, call in enumerate(calls):
            begin = now()
            call()
            best[i] = min(best[i], now() - begin)
        count += 1
    return best


def arithmetic(forward: Callable[[], object], clock: Clock = "wall", seconds: float = 0.06) -> Callable[[], None]:
    """What makes all calls of a forward pass and nothing else, each in its best way, which is found by ``seconds``."""
    calls = calls_of(forward)
    ways = {signature: list(candidates(signature)) for signature in dict.fromkeys(calls)}
    best = {signature: [math.inf] * len(each) for signature, each in ways.items()}
    with torch.inference_mode():
        # In rounds: what disturbs the machine for a while shall not meet every repetition of a call.
        for _ in range(ROUNDS):
            for signature, each in ways.items():
                taken = quickest(each, clock, len(each) * seconds / ROUNDS)
                best[signature] = [min(pair) for pair in zip(best[signature], taken, strict=True)]
    chosen = [ways[signature][best[signature].index(min(best[signature]))] for signature in calls]

    def run() -> None:
        with torch.inference_mode():
            for call in chosen:
                call()

    return run
