"""When a CPU's own kernels may be asked directly: operators of torch that are promised to nobody, tried before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

#: Whether torch was built with oneDNN, which it calls mkldnn.
AVAILABLE: bool = torch._C._has_mkldnn

T = TypeVar("T")


def tried(trial: Callable[[], bool]) -> bool:
    """Whether operators are there and do what is expected of them: ``trial`` asks them for a small result."""
    try:
        with torch.inference_mode():
            return trial()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def plain(*tensors: Tensor | None, graph: bool = False, compiled: bool = False) -> bool:
    """Whether these are float32 on a CPU that has oneDNN, and nobody casts, compiles or, but for ``graph``, derives.

    ``compiled``: the same where torch's compiler looks on.
    """
    if torch.compiler.is_compiling() is not compiled:
        return False
    # A loop, since this stands before every layer: a generator would take a tenth of a small layer's time.
    for each in tensors:
        if each is not None and not (each.dtype is torch.float32 and each.is_cpu and (graph or not each.requires_grad)):
            return False
    # The compiler cannot trace what asks whether oneDNN is switched on, and asks it itself.
    return AVAILABLE and (compiled or torch._C._get_mkldnn_enabled()) and not torch.is_autocast_enabled("cpu")


def state(weight: Tensor) -> tuple[int, int | None]:
    """What changes when a weight is moved or changed in place; not when it is written to through ``.data``."""
    try:
        return weight.data_ptr(), weight._version
    except RuntimeError:  # made in inference mode: it counts no versions, and cannot be changed outside of it either
        return weight.data_ptr(), None


class Kept(Generic[T]):
    """What was worked out of weights, kept for as long as they stay as they are. A copy begins empty."""

    def __init__(self) -> None:
        # The weights with their states, and what was found: one attribute, for threads that share a model.
        self._kept: tuple[list[tuple[Tensor, tuple[int, int | None]]], T] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()

    def __bool__(self) -> bool:
        return self._kept is not None

    def drop(self) -> None:
        """Give the memory back."""
        self._kept = None

    def get(self, weights: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What ``make`` makes of these weights, unless it is at hand; a compiler sees how it is made."""
        if torch.compiler.is_compiling():
            return make()
        if (kept := self._kept) is not None:
            for each, (known, then) in zip(weights, kept[0], strict=True):
                if each is not known or state(each) != then:
                    break
            else:
                return kept[1]
        self._kept = kept = [(each, state(each)) for each in weights], make()
        return kept[1]


class Keeping(nn.Module):
    """A module with what is ``Kept`` of its weights as attributes."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # There and back again (half and float) the weights may lie at the address where they lay, and be others.
        for each in vars(self).values():
            if isinstance(each, Kept):
                each.drop()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
