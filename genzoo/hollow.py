"""Models without memory: made to be looked at, and to be filled from a file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from genzoo.errors import CardError
from genzoo.state import layers

#: The method by which a layer of torch's gives its parameters their first numbers.
_FILL = "reset_parameters"

#: Types of most attributes of a layer.
_PLAIN = frozenset({bool, int, float, str, tuple, list, dict, set, OrderedDict, type(None)})


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
        self._unfilled: list[nn.Module] = []

    def __enter__(self) -> Hollow:
        self._handle = register_module_parameter_registration_hook(self._registered)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._handle.remove()
        for module in self._unfilled:
            vars(module).pop(_FILL, None)

    def _registered(self, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        """Let a layer of torch's pass over the filling of its parameters, half of what making it takes."""
        own, fill = vars(module), getattr(type(module), _FILL, None)
        if _FILL not in own and getattr(fill, "__module__", "").startswith("torch.nn.modules.") and parameter.is_meta:
            # Before the layer asks for it: its own attribute goes before that of its class.
            own[_FILL] = _nothing
            self._unfilled.append(module)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._UNFILLED or func in self._FILLED:
            return self._made(func, args, kwargs or {})
        if func in self._FILLERS:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **(kwargs or {}))

    def _made(self, func: Any, args: Any, given: Mapping[str, Any]) -> Any:
        plan = {**given, "device": "meta"}
        plan.pop("generator", None)
        planned = func(*args, **plan)
        self.count += planned.numel()
        if self.count > self.most:
            raise CardError(f"{self.what} asks for more than {self.most:.3g} numbers, which is the most that is built")
        wanted = given.get("device")
        if func in self._UNFILLED and (wanted is None or torch.device(wanted).type == "meta"):
            return planned
        return func(*args, **given)


def _nothing() -> None:
    """What a layer without memory does to fill it."""


def unfilled(model: nn.Module) -> bool:
    """Whether a tensor that no file would fill has no memory: a buffer outside the state dict, or an attribute."""
    for module in layers(model):
        own = vars(module)
        # A loop that asks for the type first, since this stands in every load: it takes a third of the time.
        for value in own.values():
            if type(value) not in _PLAIN and isinstance(value, Tensor) and value.is_meta:
                return True
        for name in own["_non_persistent_buffers_set"]:
            if (buffer := own["_buffers"].get(name)) is not None and buffer.is_meta:
                return True
    return False
