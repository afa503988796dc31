"""What torch's compiler is told of weights that it may freeze, and what it shall call as it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genzoo_plugins.diffusion.onednn import plain

_LIBRARY = torch.library.Library("genzoo_plugins", "DEF")  # type: ignore[no-untyped-call]


def constant(*tensors: Tensor | None) -> bool:
    """Whether torch's compiler looks on, and these are ``plain`` but for that: what it freezes, it works out once."""
    return plain(*tensors, compiled=True)


def opaque(schema: str, call: Callable[..., Tensor], like: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``call`` as an operator that the compiler does not look into, for a CPU and without gradients.

    For kernels that are quicker than the code it would write. A call costs some microseconds.

    Args:
        schema: of the operator, ``name(Tensor x, int n) -> Tensor``.
        call: what it does; its result is memory of its own.
        like: an empty tensor with the shape, dtype and strides of the result, of the same arguments.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, call, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"genzoo_plugins::{name}", like, lib=_LIBRARY)
    operator: Any = getattr(torch.ops.genzoo_plugins, name).default
    return operator  # type: ignore[no-any-return]
