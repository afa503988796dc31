"""The calls of a model's networks, recorded and replayed: what the network alone costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
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


def outermost(model: Generator, make: Callable[[], object]) -> list[nn.Module]:
    """The model's own modules that are called while ``make`` makes images, and not by another module."""
    seen: dict[nn.Module, None] = {}
    own = {id(module) for module in model.modules()}
    depth = 0

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal depth
        if depth == 0 and id(module) in own:
            seen[module] = None
        depth += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        make()
    finally:
        for hook in hooks:
            hook.remove()
    return list(seen)


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


#: oneDNN's own convolution, which reordered weights need, is not among the operators that torch's counter knows. Some
#: builds of torch have none.
_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
CONVOLUTIONS: dict[Any, Any] = {} if _POINTWISE is None else {_POINTWISE: _convolution_flops}


def count_flops(model: Generator, options: Mapping[str, Any]) -> float | None:
    """Floating-point operations of one image, a multiplication and an addition counted apart; None if not countable."""
    try:
        with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
            model.generate([0], batch=1, **options)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None  # an operator the counter cannot see into, as a custom kernel's
    return float(counter.get_total_flops()) or None
