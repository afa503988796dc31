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
from genzoo_plugins.diffusion.layers import columnwise_group_norm


def last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("operator", "reference", "given"),
    [
        (opaque_narrow_attention, F.scaled_dot_product_attention, tuple(torch.randn(2, 3, n, 8) for n in lengths))
        for lengths in ((16, 16, 16), (9, 5, 5))
    ],
)
def test_an_opaque_operator_is_what_the_compiler_is_told(
    operator: Any, reference: Callable[..., Tensor], given: tuple[Any, ...]
) -> None:
    torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))
    torch.testing.assert_close(operator(*given), reference(*given), atol=1e-5, rtol=1e-5)


def test_nothing_is_constant_where_nobody_compiles() -> None:
    assert not constant(torch.ones(2))


@pytest.mark.parametrize(("channels", "groups"), [(4, 2), (48, 8), (6, 1), (6, 6)])
@pytest.mark.parametrize("size", [(3, 5, 6), (1, 8, 8), (2, 1, 3), (5, 1, 1)])
def test_a_norm_by_columns(size: tuple[int, int, int], channels: int, groups: int) -> None:
    torch.manual_seed(0)
    images, height, width = size
    x, weight, bias = last(images, channels, height, width).mul(3).add(2), torch.randn(channels), torch.randn(channels)
    found, wanted = columnwise_group_norm(x, groups, weight, bias, 1e-2), F.group_norm(x, groups, weight, bias, 1e-2)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)  # a variance of two numbers may be lost in them
    assert found.stride() == x.stride()


def test_a_norm_by_columns_of_a_map_that_is_all_alike() -> None:
    # The variance is a difference of two numbers that rounding may leave below zero.
    x = torch.full((2, 6, 7, 7), 0.1).contiguous(memory_format=torch.channels_last)
    assert columnwise_group_norm(x, 2, torch.ones(6), torch.zeros(6), 1e-12).isfinite().all()
