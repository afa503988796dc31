"""Kernels that torch's compiler calls as they stand: what it is told of them is what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo_plugins.diffusion.attention import opaque_narrow_attention
from genzoo_plugins.diffusion.compiling import constant
from genzoo_plugins.diffusion.layers import opaque_group_norm


def last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("operator", "reference", "given"),
    [
        *(
            (opaque_group_norm, F.group_norm, (last(*shape), 2, torch.randn(4), torch.randn(4), 1e-5))
            for shape in ((3, 4, 5, 6), (1, 4, 8, 8), (2, 4, 1, 3))
        ),
        *(
            (opaque_narrow_attention, F.scaled_dot_product_attention, tuple(torch.randn(2, 3, n, 8) for n in lengths))
            for lengths in ((16, 16, 16), (9, 5, 5))
        ),
    ],
)
def test_an_opaque_operator_is_what_the_compiler_is_told(
    operator: Any, reference: Callable[..., Tensor], given: tuple[Any, ...]
) -> None:
    torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))
    torch.testing.assert_close(operator(*given), reference(*given), atol=1e-5, rtol=1e-5)


def test_nothing_is_constant_where_nobody_compiles() -> None:
    assert not constant(torch.ones(2))
