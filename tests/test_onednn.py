"""What is computed in other ways where weights are frozen on a CPU: the same numbers, for the weights as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo_plugins.diffusion import layers, linear
from genzoo_plugins.diffusion.attention import Attention, MapAttention, attention, narrow_attention
from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.layers import Upsample, added, upsample
from genzoo_plugins.diffusion.linear import FEW_PRODUCTS, Linear
from genzoo_plugins.diffusion.onednn import Kept, plain, tried


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def told() -> Iterator[Tensor]:
    return iter(())


@pytest.mark.parametrize("shape", [(1, 6, 8, 8), (3, 6, 5, 9), (2, 6, 2, 2)])
def test_repetition_and_convolution_are_one_kernel(shape: tuple[int, ...]) -> None:
    layer = Upsample(6).requires_grad_(False)
    x = last(*shape)
    close(layer(x, told()), F.conv2d(upsample(x), layer.conv.weight, layer.conv.bias, padding=1))


def test_the_kernel_follows_the_weights() -> None:
    layer, x = Upsample(6).requires_grad_(False), last(1, 6, 8, 8)
    layer(x, told())
    with torch.no_grad():
        layer.conv.weight.mul_(2)
    for each in (layer, copy.deepcopy(layer), layer.half().float()):
        close(each(x, told()), F.conv2d(upsample(x), each.conv.weight, each.conv.bias, padding=1))
    assert set(layer.state_dict()) == {"conv.weight", "conv.bias"}


def test_training_goes_through_the_layers_own_weight() -> None:
    layer, x = Upsample(6), last(1, 6, 8, 8)
    layer(x, told()).sum().backward()
    assert layer.conv.weight.grad is not None
    assert not layer.blocks


def test_a_torch_without_the_operators_repeats_and_convolves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layers.enlarges()
    monkeypatch.setattr(layers, "enlarged", lambda *given: (_ for _ in ()).throw(RuntimeError("other arguments")))
    assert not layers.enlarges()
    monkeypatch.setattr(layers, "ENLARGES", False)
    layer, x = Upsample(6).requires_grad_(False), last(1, 6, 8, 8)
    close(layer(x, told()), F.conv2d(upsample(x), layer.conv.weight, layer.conv.bias, padding=1))
    assert not layer.blocks


@pytest.mark.parametrize("frozen", [True, False])
def test_a_map_of_one_image_stays_as_it_lies(frozen: bool) -> None:
    # Its strides, too, which the kernels read where a size of one leaves the layout open.
    attend, x = MapAttention(16, 2, groups=4, eps=1e-5).requires_grad_(not frozen), last(1, 16, 3, 5)
    assert attend(x).stride() == x.stride()


@pytest.mark.parametrize("width", [1, 8, 13])
@pytest.mark.parametrize(
    ("images", "heads", "tokens", "sources"), [(1, 16, 64, 64), (3, 2, 5, 7), (9, 16, 64, 64), (1, 1, 1, 1)]
)
def test_narrow_heads(images: int, heads: int, tokens: int, sources: int, width: int) -> None:
    q = torch.randn(images, tokens, heads, width).transpose(1, 2)
    k, v = (torch.randn(images, sources, heads, width).transpose(1, 2) for _ in range(2))
    before = q.clone()
    close(narrow_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    close(attention(q, k, v, torch.float32), F.scaled_dot_product_attention(q, k, v))
    assert torch.equal(q, before)


def test_scores_beyond_the_range_of_an_exponential() -> None:
    q, k, v = (300 * torch.randn(1, 2, 9, 8) for _ in range(3))
    assert narrow_attention(q, k, v).isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_three_projections_in_one_product(bias: bool) -> None:
    layer = Attention(16, 2, bias=bias).requires_grad_(False)
    trained = copy.deepcopy(layer).requires_grad_(True)
    x = torch.randn(2, 9, 16)
    close(layer(x), trained(x))
    assert layer._joint
    with torch.no_grad():
        for each in (layer, trained):
            each.to_k.weight.mul_(3)
    close(layer(x), trained(x))
    close(layer(torch.randn(2, 600, 16).fill_(0.5)), trained(torch.full((2, 600, 16), 0.5)))
    assert not layer._joint


@pytest.mark.parametrize("bias", [True, False])
def test_large_products(bias: bool) -> None:
    layer = Linear(64, 128, bias=bias).requires_grad_(False)
    x = torch.randn(2, FEW_PRODUCTS // 128 // 64, 64)
    close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_a_torch_without_the_operator_multiplies_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "product", lambda *given: (_ for _ in ()).throw(RuntimeError("other arguments")))
    assert not linear.multiplies()
    monkeypatch.setattr(linear, "MULTIPLIES", False)
    layer = Linear(64, 128).requires_grad_(False)
    x = torch.randn(2, FEW_PRODUCTS // 128 // 64, 64)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_trials_that_fail() -> None:
    def missing() -> bool:
        raise NotImplementedError

    assert not tried(missing)
    assert tried(lambda: True)


def test_what_is_plain() -> None:
    x = torch.zeros(2)
    assert plain(x, None)
    assert not plain(x, x.double())
    assert not plain(x, nn.Parameter(x))
    assert plain(x, nn.Parameter(x), graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert not plain(x)


def test_what_is_kept_belongs_to_one_state_of_the_weights() -> None:
    kept, made = Kept[int](), iter(range(9))
    weight = torch.zeros(3)
    assert [kept.get([weight], lambda: next(made)) for _ in range(2)] == [0, 0]
    weight.add_(1)
    assert kept.get([weight], lambda: next(made)) == 1
    assert kept.get([weight.clone()], lambda: next(made)) == 2
    with torch.inference_mode():
        fixed = torch.zeros(3)
    assert [kept.get([fixed], lambda: next(made)) for _ in range(2)] == [3, 3]
    assert not copy.deepcopy(kept)


def test_what_is_kept_may_be_dropped_meanwhile() -> None:
    kept: Kept[int] = Kept()

    class Weight(Tensor):
        """One at which another thread drops what is kept when it is looked at."""

        def data_ptr(self) -> int:
            kept.drop()
            return super().data_ptr()

    weight = torch.zeros(3).as_subclass(Weight)
    assert [kept.get([weight], lambda: 7) for _ in range(3)] == [7, 7, 7]
    kept.drop()
    assert not kept


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("size", [1, 3])
def test_a_bias_in_place_of_the_convolutions_own(size: int, rows: int, frozen: bool) -> None:
    layer = Conv2d(6, 10, size, padding=size // 2).requires_grad_(not frozen)
    x, bias = last(3, 6, 7, 7), torch.randn(rows, 10, requires_grad=not frozen)
    wanted = F.conv2d(x, layer.weight, padding=size // 2) + bias[:, :, None, None]
    found = layer(x, bias)
    close(found, wanted)
    if not frozen:
        found.square().sum().backward()
        assert bias.grad is not None
        assert layer.bias is not None
        assert layer.bias.grad is None


def test_a_bias_that_is_trained_beside_frozen_weights() -> None:
    layer, bias = Conv2d(6, 10, 3, padding=1).requires_grad_(False), torch.randn(1, 10, requires_grad=True)
    layer(last(1, 6, 7, 7), bias).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((1, 10), 49.0))


def test_sums_keep_the_wider_dtype() -> None:
    x, h = torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    assert added(x, h).dtype == torch.float32
    assert added(x, torch.ones(2), factor=4).tolist() == [0.5, 0.5]
