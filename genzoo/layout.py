"""Memory layouts: loaded weights lie as their file has them until their module is first called.

Kernels want weights at round addresses and, for images, channels last; a file has them back to back and channels
first. Copying them takes longer than all the rest of loading, and whoever loads a model to look at it never needs it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from genzoo.state import Place, Quick, State, layers
from genzoo.tensors import ALIGNMENT, Tensors

Strides = tuple[int, ...]

#: Held while weights are laid out, or copied as they lie: two threads may be the first to call a module.
_LAYING = threading.Lock()


def lies_well(tensor: Tensor, strides: Strides) -> bool:
    """Whether a tensor begins at a round address and has these strides."""
    # Strides, because for kernels of one pixel the memory format alone is ambiguous.
    return tensor.stride() == strides and tensor.data_ptr() % ALIGNMENT == 0


def laid_out(tensor: Tensor, strides: Strides, dtype: torch.dtype) -> Tensor:
    """A copy at a round address with these strides, in this dtype."""
    return torch.empty_strided(tensor.shape, strides, dtype=dtype, device=tensor.device).copy_(tensor)


def channels_last(module: nn.Module) -> None:
    """Lay the kernels of convolutions out channels last, sooner than ``module.to(memory_format=...)`` does."""
    # A model without memory is made where every operation is looked at; these need not be.
    with torch._C.DisableTorchFunction():
        for inner in layers(module):
            weight = inner._parameters.get("weight")
            if weight is not None and weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)


class FirstCall:
    """Before a module's first call its weights are laid out; a hook that then takes itself away.

    So the pixels depend on the weights alone, and not on the layout of the file: kernels sum in another order where an
    address is not round.

    Args:
        strides: of the module's own names.
        tensors: those that the weights are views of, so that the file's pages are given back.
        prefix: of the module's names among them.
    """

    def __init__(self, strides: Mapping[str, Strides], tensors: Tensors | None = None, prefix: str = "") -> None:
        self.strides, self.tensors, self.prefix = dict(strides), tensors, prefix

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a module, or one from another process, has its own memory, and no file behind it.
        return FirstCall, (self.strides,)

    def register(self, module: nn.Module) -> None:
        """Watch for the first call of a module."""
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        if self.strides:
            # Outside of inference mode: weights that are made inside could never be trained.
            with _LAYING, torch.inference_mode(False), torch.no_grad():
                self._lay_out(State(module).places)
        hooks = module._forward_pre_hooks
        # Found by itself and not by a handle, of which a copy of the module has none.
        for key in [key for key, hook in list(hooks.items()) if hook is self]:
            hooks.pop(key, None)

    def _lay_out(self, places: Mapping[str, Place]) -> None:
        for name, strides in self.strides.items():
            if name in places and not lies_well(kept := places[name].tensor, strides):
                made = laid_out(kept.data, strides, kept.dtype)
                self.release(name)
                kept.data = made
        self.strides, self.tensors = {}, None

    def release(self, name: str) -> None:
        """Give the pages of the file that hold a weight back, now that there is a copy of it.

        Raises WeightsError if the file was changed meanwhile.
        """
        if (tensors := self.tensors) is not None:
            tensors.release(self.prefix + name)


class LaidOutLate(Quick):
    """A layer that may compute by a copy of its weight in an order of its own: it lays the weight out itself.

    It does so before it first reads the weight as it is. Until then, and perhaps for ever, the weight lies in its file,
    and memory holds the one copy that is read. A file that is overwritten in place meanwhile is an error (WeightsError)
    when the weight is read there again; one that is replaced by another of its name does no harm.
    """

    #: What waits until then; None where nothing does.
    waiting: FirstCall | None = None

    def lay_out(self) -> None:
        """Lay the weight out, unless that is done."""
        if (waiting := self.waiting) is not None:
            waiting(self, ())
            self.waiting = None

    def copied(self, copy: Callable[[], Tensor]) -> Tensor:
        """The layer's own copy of its weight, which ``copy`` makes: the pages that hold the weight are then given back.

        Raises WeightsError if their file was changed since it was read.
        """
        if (waiting := self.waiting) is None:
            return copy()
        with _LAYING:
            made = copy()
            waiting.release("weight")
        return made


#: What waits for the first calls of a module's children.
_waiting: WeakKeyDictionary[nn.Module, list[tuple[nn.Module, FirstCall]]] = WeakKeyDictionary()


def lay_out_later(state: State, strides: Mapping[str, Strides], tensors: Tensors | None) -> None:
    """Lay out the weights of each child of a module when it is first called; the module's own ones at once.

    The weight of a layer that is ``LaidOutLate`` waits for that layer.
    """
    module = state.module
    groups: dict[str, dict[str, Strides]] = defaultdict(dict)
    for name, found in strides.items():
        place = state.places.get(name)
        if place is not None and place.key == "weight" and isinstance(place.owner, LaidOutLate):
            place.owner.waiting = FirstCall({place.key: found}, tensors, name.removesuffix(place.key))
            continue
        child, dot, inner = name.partition(".")
        groups[child if dot else ""][inner if dot else name] = found
    if own := groups.pop("", None):
        FirstCall(own, tensors)(module, ())
    waiting = []
    for child, group in groups.items():
        waiting.append((module.get_submodule(child), FirstCall(group, tensors, f"{child}.")))
        waiting[-1][1].register(waiting[-1][0])
    _waiting[module] = waiting


def lay_out(module: nn.Module) -> None:
    """Do now what waits for first calls: a child may be asked otherwise than by a call."""
    for inner, waiting in _waiting.get(module, ()):
        waiting(inner, ())
    # Only now: another thread that asks meanwhile has to wait.
    _waiting.pop(module, None)
