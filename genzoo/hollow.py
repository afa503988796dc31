"""Models without memory: made to be looked at, and to be filled from a file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genzoo.errors import CardError


class Hollow(TorchFunctionMode):
    """Modules that are made inside have parameters without memory, on the meta device, and real buffers.

    A parameter begins with ``torch.empty`` (or random numbers) and is filled in place, which is passed over; what is
    worked out from the config (tables, masks) begins with ``arange``, ``zeros`` and the like, and must be real, for no
    file holds it. Numbers are counted as they are asked for, so that a config that asks for too many is refused before
    any of them exists.
    """

    _UNFILLED = frozenset({torch.empty, torch.randn, torch.rand})
    _FILLED = frozenset({torch.zeros, torch.ones, torch.full, torch.eye})
    _FILLERS = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_}) | {
        function for name, function in vars(nn.init).items() if name.endswith("_") and callable(function)
    }

    def __init__(self, most: int, what: str) -> None:
        super().__init__()
        self.most, self.what, self.count = most, what, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._UNFILLED or func in self._FILLED:
            return self._made(func, args, dict(kwargs or {}))
        if func in self._FILLERS:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **(kwargs or {}))

    def _made(self, func: Any, args: Any, given: dict[str, Any]) -> Any:
        planned = func(*args, **{key: value for key, value in given.items() if key != "generator"} | {"device": "meta"})
        self.count += planned.numel()
        if self.count > self.most:
            raise CardError(f"{self.what} asks for more than {self.most:.3g} numbers, which is the most that is built")
        wanted = given.get("device")
        if func in self._UNFILLED and (wanted is None or torch.device(wanted).type == "meta"):
            return planned
        return func(*args, **given)


def unfilled(model: nn.Module) -> bool:
    """Whether a tensor that no file would fill has no memory: a buffer outside the state dict, or an attribute."""
    kept = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    loose = [buffer for buffer in model.buffers() if id(buffer) not in kept]
    loose += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return any(tensor.is_meta for tensor in loose)
