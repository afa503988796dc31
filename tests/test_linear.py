"""Linear layers that a 1x1 convolution trains: the same numbers and gradients, and only where it is meant to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genzoo_plugins.diffusion.linear import Linear


class Called(TorchDispatchMode):
    """The names of torch's operations in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def pair(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(0)
    ours, plain = Linear(6, 10, bias=bias, dtype=dtype), nn.Linear(6, 10, bias=bias, dtype=dtype)
    plain.load_state_dict(ours.state_dict(), strict=True)
    return ours, plain


def convolves(layer: nn.Module, x: Tensor) -> bool:
    with Called() as called:
        layer(x)
    return "convolution" in called.names


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lie", [lambda x: x, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)])
@pytest.mark.parametrize(("batch", "tokens"), [(3, 7), (1, 1), (1, 49), (5, 1)])
def test_trained_as_a_plain_layer_is(batch: int, tokens: int, lie: Callable[[Tensor], Tensor], bias: bool) -> None:
    ours, plain = pair(bias)
    x = lie(torch.randn(batch, tokens, 6)).requires_grad_()
    other = x.detach().clone().requires_grad_()
    assert convolves(ours, x)
    wanted, found = plain(other), ours(x)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    (wanted * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_its_tokens_lie_as_a_plain_layers() -> None:
    # What follows takes views of them: heads, and maps without a copy.
    ours, _ = pair()
    assert ours(torch.randn(3, 7, 6)).is_contiguous()


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 4, 6)])
def test_what_is_no_tokens_takes_the_ordinary_way(shape: tuple[int, ...]) -> None:
    ours, plain = pair()
    x = torch.randn(shape)
    assert torch.equal(ours(x), plain(x))


def test_what_is_not_trained_in_float32_takes_the_ordinary_way() -> None:
    ours, plain = pair()
    x = torch.randn(3, 7, 6)
    with torch.no_grad():
        assert torch.equal(ours(x), plain(x))
    with torch.inference_mode():
        assert torch.equal(ours(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        assert torch.equal(ours(x), plain(x))
    assert not convolves(ours.requires_grad_(False), x)
    for dtype in (torch.float64, torch.bfloat16):
        assert not convolves(pair(dtype=dtype)[0], x.to(dtype))
