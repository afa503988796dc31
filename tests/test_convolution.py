"""Convolutions with reordered weights: the same numbers, for the weights as they are now."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genzoo.bench.calls import CONVOLUTIONS
from genzoo_plugins.diffusion import convolution
from genzoo_plugins.diffusion.convolution import FEW_PIXELS, Conv2d


def pair(size: int = 3, stride: int = 1, padding: int = 1) -> tuple[Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    ours = Conv2d(6, 10, size, stride=stride, padding=padding).requires_grad_(False)
    plain = nn.Conv2d(6, 10, size, stride=stride, padding=padding).requires_grad_(False)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def images(batch: int, size: int, memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    return torch.randn(batch, 6, size, size).contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (1, 1, 0)])
def test_the_numbers_are_those_of_a_plain_convolution(
    size: int, stride: int, padding: int, memory_format: torch.memory_format
) -> None:
    ours, plain = pair(size, stride, padding)
    # Other shapes than the one that the order was chosen for, and one beyond it.
    for batch, extent in ((1, 7), (4, 14), (2, 8), (1, 7), (FEW_PIXELS // 64 + 1, 8)):
        x = images(batch, extent, memory_format)
        torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)


def test_weights_that_change_are_reordered_anew() -> None:
    ours, plain = pair()
    x = images(1, 7)
    ours(x)
    with torch.no_grad():
        ours.weight.mul_(2)
        plain.weight.mul_(2)
    torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)
    torch._foreach_lerp_([ours.weight], [torch.ones_like(ours.weight)], 0.5)
    torch._foreach_lerp_([plain.weight], [torch.ones_like(plain.weight)], 0.5)
    torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)
    state = {name: torch.randn_like(tensor) for name, tensor in ours.state_dict().items()}
    for module in (ours, plain):
        module.load_state_dict(state, assign=True)
        module.requires_grad_(False)
    torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        ours, plain = pair()
        x = images(1, 7)
        torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)


def test_weights_that_are_trained_take_the_ordinary_way() -> None:
    ours, plain = pair()
    ours.requires_grad_(True)
    plain.requires_grad_(True)
    x = images(1, 7)
    ours(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(ours.weight.grad, plain.weight.grad)
    assert ours._packed is None
    frozen, other = pair()
    x = images(1, 7).requires_grad_()
    frozen(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    other(y).square().sum().backward()
    assert torch.equal(x.grad, y.grad)


def test_a_copy_and_a_state_dict_hold_no_order() -> None:
    ours, plain = pair()
    x = images(1, 7)
    expected = ours(x)
    copied = copy.deepcopy(ours)
    assert copied._packed is None
    assert torch.equal(copied(x), expected)
    assert set(ours.state_dict()) == set(plain.state_dict())


def test_other_dtypes_and_mixed_precision() -> None:
    ours, plain = pair()
    x = images(1, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        assert torch.equal(ours(x), plain(x))
    assert torch.equal(ours.double()(x.double()), plain.double()(x.double()))


def test_its_operations_are_counted_like_any_convolutions() -> None:
    ours, plain = pair()
    x, beyond = images(1, 7), images(FEW_PIXELS, 2)
    for module in (ours, plain):
        with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
            module(x)
            module(beyond)
        assert counter.get_total_flops() == 2 * 9 * 6 * 10 * (49 + 4 * FEW_PIXELS)


def test_weights_that_go_to_half_precision_and_back_are_reordered_anew() -> None:
    ours, plain = pair()
    x = images(1, 7)
    ours(x)
    ours.half().float()
    plain.half().float()
    torch.testing.assert_close(ours(x), plain(x), atol=2e-6, rtol=1e-5)


def test_many_pixels_give_the_memory_of_the_order_back() -> None:
    ours, plain = pair()
    few, many = images(1, 7), images(FEW_PIXELS, 2)
    ours(few)
    assert ours._packed is not None
    ours(many)
    assert ours._packed is None
    torch.testing.assert_close(ours(few), plain(few), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("operator", [None, lambda *args: (_ for _ in ()).throw(RuntimeError("other arguments"))])
def test_a_torch_without_the_operators_goes_the_ordinary_way(monkeypatch: pytest.MonkeyPatch, operator: object) -> None:
    if operator is None:
        monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    else:
        monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", operator)
    assert not convolution.reorders()
    monkeypatch.setattr(convolution, "REORDERS", False)
    ours, plain = pair()
    x = images(1, 7)
    assert torch.equal(ours(x), plain(x))
    assert ours._packed is None
