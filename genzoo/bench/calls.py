"""The calls of a model's networks, recorded and replayed: what the network alone costs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from genzoo.generator import Generator


class Call(NamedTuple):
    """One call of a module, with its arguments."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@contextlib.contextmanager
def eager(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules as they were before ``Module.compile`` inside the block: hooks that are traced would be compiled."""
    compiled = [(module, module._compiled_call_impl) for module in modules]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


class Tree:
    """The model's own modules that are called while ``make`` makes images, by the module that calls them.

    Attributes:
        callees: module -> those that it calls, in the order of their first calls; None stands for no module.
        constants: module -> what its calls were given besides tensors, each once.
    """

    def __init__(self, model: nn.Module, make: Callable[[], object]) -> None:
        self.callees: dict[nn.Module | None, dict[nn.Module, None]] = {None: {}}
        self.constants: dict[nn.Module, set[str]] = {}
        callers: list[nn.Module | None] = [None]

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.callees[callers[-1]][module] = None
            self.callees.setdefault(module, {})
            self.constants.setdefault(module, set()).add(repr(without_tensors((args, kwargs))))
            callers.append(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            callers.pop()

        hooks = []
        for module in model.modules():
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        try:
            make()
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def outermost(self) -> list[nn.Module]:
        """The modules that no other one calls."""
        return list(self.callees[None])

    @property
    def compilable(self) -> list[nn.Module]:
        """The outermost of the modules whose calls differ in tensors alone.

        What is no tensor is compiled in as a constant: a module that is told the time as a number would be compiled
        anew for each, and after a few of them no more, and nobody is told.
        """
        found, waiting = dict[nn.Module, None](), list(self.callees[None])
        while waiting:
            module = waiting.pop(0)
            if len(self.constants[module]) == 1:
                found[module] = None
            else:
                waiting += self.callees[module]
        # A part of another one is compiled with it, even where it is called apart as well.
        parts = {inner for module in found for inner in module.modules() if inner is not module}
        return [module for module in found if module not in parts]


def without_tensors(given: Any) -> Any:
    """Arguments with their tensors left out, however deep they lie in tuples, lists and dictionaries."""
    if isinstance(given, Mapping):
        return {key: without_tensors(value) for key, value in given.items()}
    if isinstance(given, tuple | list):
        return [without_tensors(value) for value in given]
    return Tensor if isinstance(given, Tensor) else given


def recorded(modules: Sequence[nn.Module], make: Callable[[], object]) -> list[Call]:
    """The calls of these modules while ``make`` makes images, in order."""
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(module, args, kwargs))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        with eager(modules):
            make()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def replay(calls: list[Call]) -> Callable[[], None]:
    """A function that makes the same calls again, and nothing else."""

    def run() -> None:
        with torch.inference_mode():
            for module, args, kwargs in calls:
                module(*args, **kwargs)

    return run


def _convolution_flops(x: list[int], weight: list[int], *rest: Any, out_shape: list[int], **named: Any) -> int:
    return int(conv_flop_count(x, weight, out_shape))


def _transposed_flops(x: list[int], weight: list[int], *rest: Any, out_shape: list[int], **named: Any) -> int:
    return int(conv_flop_count(x, weight, out_shape, transposed=True))


def _linear_flops(x: list[int], weight: list[int], *rest: Any, out_shape: list[int], **named: Any) -> int:
    return 2 * math.prod(x) * weight[0]


#: oneDNN's own operators, which frozen weights are computed with, are not among those that torch's counter knows. Some
#: builds of torch have none.
_ONEDNN = {
    "_convolution_pointwise": _convolution_flops,
    "_convolution_transpose_pointwise": _transposed_flops,
    "_linear_pointwise": _linear_flops,
}
CONVOLUTIONS: dict[Any, Any] = {
    getattr(torch.ops.mkldnn, name): count for name, count in _ONEDNN.items() if hasattr(torch.ops.mkldnn, name)
}


def count_flops(model: Generator, options: Mapping[str, Any]) -> float | None:
    """Floating-point operations of one image, a multiplication and an addition counted apart; None if not countable."""
    try:
        with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
            model.generate([0], batch=1, **options)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None  # an operator the counter cannot see into, as a custom kernel's
    return float(counter.get_total_flops()) or None
