"""Convolutions with reordered weights: the same numbers, for the weights as they are now."""

from __future__ import annotations

import copy
import os
import pickle  # noqa: TID251 - a module travels to another process so
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import genzoo.layout
from genzoo.bench.calls import CONVOLUTIONS
from genzoo.errors import WeightsError
from genzoo.layout import laid_out
from genzoo.tensors import Tensors, read
from genzoo.weights import assign
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
    assert not ours.blocks
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
    assert not copied.blocks
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
    assert ours.blocks
    ours(many)
    assert not ours.blocks
    torch.testing.assert_close(ours(few), plain(few), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("operator", [None, lambda *args: (_ for _ in ()).throw(RuntimeError("other arguments"))])
def test_a_torch_without_the_operators_goes_the_ordinary_way(monkeypatch: pytest.MonkeyPatch, operator: object) -> None:
    if operator is None:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    else:
        monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", operator)
    assert not convolution.reorders()
    monkeypatch.setattr(convolution, "REORDERS", False)
    ours, plain = pair()
    x = images(1, 7)
    assert torch.equal(ours(x), plain(x))
    assert not ours.blocks


# -- weights that lie in a file ------------------------------------------------------------------------------------


class Two(nn.Module):
    """A module whose child holds two convolutions, as a generator's does: without memory."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.inner = nn.Sequential(Conv2d(32, 64, 3, padding=1), Conv2d(64, 8, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def from_file(folder: Path) -> tuple[Two, nn.Sequential, Tensors]:
    """A module whose weights lie in a file, at addresses that are not round, and a plain one of the same weights."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 8, 1)).requires_grad_(False)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = {f"inner.{name}": tensor.contiguous() for name, tensor in plain.state_dict().items()}
    save_file(state, folder / "two.safetensors")
    raw = (folder / "two.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    head = raw[8 : 8 + length].rstrip()
    head += b" " * (-(8 + len(head)) % 64 + 4)
    (folder / "two.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + length :])
    module, tensors = Two(), read(folder / "two.safetensors")
    assign(module, tensors, "test", trainable=False)
    return module, plain, tensors


def wide(batch: int, size: int) -> Tensor:
    return torch.randn(batch, 32, size, size).contiguous(memory_format=torch.channels_last)


def test_few_pixels_are_made_of_the_files_weights_and_many_of_laid_out_ones(tmp_path: Path) -> None:
    module, plain, tensors = from_file(tmp_path)
    few, many = wide(1, 8), wide(FEW_PIXELS // 64 + 1, 8)
    weight, pointwise = module.inner[0].weight, module.inner[1].weight
    torch.testing.assert_close(module(few), plain(few), atol=2e-6, rtol=1e-5)
    assert weight.data_ptr() == tensors["inner.0.weight"].data_ptr()
    assert weight.is_contiguous()
    assert module.inner[1].weight is pointwise
    assert pointwise.data_ptr() % 64 == 0
    torch.testing.assert_close(module(many), plain(many), atol=2e-6, rtol=1e-5)
    assert module.inner[0].weight is weight
    assert weight.data_ptr() % 64 == 0
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(few), plain(few), atol=2e-6, rtol=1e-5)
    for (name, mine), theirs in zip(module.inner.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_file_that_is_overwritten_in_place_is_no_longer_read(tmp_path: Path) -> None:
    module, plain, _ = from_file(tmp_path)
    few, many = wide(1, 8), wide(FEW_PIXELS // 64 + 1, 8)
    wanted = module(few)
    path = tmp_path / "two.safetensors"
    raw, times = path.read_bytes(), path.stat()
    with path.open("r+b") as file:
        file.write(raw[:-4] + bytes(4))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))  # as it is on a clock of fine grain
    assert torch.equal(module(few), wanted)
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"two\.safetensors: changed after it was loaded; load it again"):
            module(many)
    module.inner[0].blocks.drop()
    with pytest.raises(WeightsError, match="changed after it was loaded"):
        module(few)
    module, plain, _ = from_file(tmp_path)
    path.unlink()
    path.write_bytes(raw[:-4])
    torch.testing.assert_close(module(few), plain(few), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(module(many), plain(many), atol=2e-6, rtol=1e-5)


def test_threads_that_call_first_lay_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, plain, _ = from_file(tmp_path)
    many, made = wide(FEW_PIXELS // 64 + 1, 8), []

    def slowly(tensor: Tensor, *layout: Any) -> Tensor:
        time.sleep(0.05)
        made.append(tensor.shape)
        return laid_out(tensor, *layout)

    monkeypatch.setattr(genzoo.layout, "laid_out", slowly)
    together = threading.Barrier(3)

    def call(_: int) -> Tensor:
        together.wait()
        out: Tensor = module(many)
        return out

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(call, range(3)):
            torch.testing.assert_close(found, plain(many), atol=2e-6, rtol=1e-5)
    assert len(made) == len(set(made))
    assert (64, 32, 3, 3) in made


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_what_is_written_to_weights_in_a_file_is_not_lost(tmp_path: Path, called: bool, counted: bool) -> None:
    module, plain, _ = from_file(tmp_path)
    few, many = wide(1, 8), wide(FEW_PIXELS // 64 + 1, 8)
    if called and counted:
        module(few)
    for conv in (module.inner[0], plain[0]):
        with torch.no_grad():
            (conv.weight if counted else conv.weight.data).mul_(2)
    torch.testing.assert_close(module(few), plain(few), atol=4e-6, rtol=1e-5)
    assert torch.equal(module.inner[0].weight, plain[0].weight)
    torch.testing.assert_close(module(many), plain(many), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("called", [True, False])
def test_copies_of_a_module_whose_weights_lie_in_a_file(tmp_path: Path, called: bool) -> None:
    module, plain, _ = from_file(tmp_path)
    few, many = wide(1, 8), wide(FEW_PIXELS // 64 + 1, 8)
    if called:
        module(few)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert torch.equal(copied(few), module(few))
        torch.testing.assert_close(copied(many), plain(many), atol=2e-6, rtol=1e-5)
        assert not copied.inner._forward_pre_hooks
        with torch.no_grad():
            copied.inner[0].weight.zero_()
        assert module.inner[0].weight.any()
    wider = copy.deepcopy(module).double()
    torch.testing.assert_close(wider(few.double()).float(), plain(few), atol=2e-6, rtol=1e-5)
    half = module.to(torch.bfloat16)
    assert half(few.bfloat16()).dtype == torch.bfloat16


def test_weights_in_a_file_are_laid_out_to_be_trained(tmp_path: Path) -> None:
    module, plain, _ = from_file(tmp_path)
    few = wide(1, 8)
    module(few)
    for net in (module, plain):
        net.requires_grad_(True)
        net(few).square().sum().backward()
        torch.optim.SGD(net.parameters(), 0.1).step()
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(mine.grad, theirs.grad)
    assert module.inner[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_another_state_can_be_loaded_over_weights_in_a_file(tmp_path: Path) -> None:
    module, plain, _ = from_file(tmp_path)
    few, many = wide(1, 8), wide(FEW_PIXELS // 64 + 1, 8)
    for when in (few, many):
        state = {name: torch.randn_like(tensor) for name, tensor in plain.state_dict().items()}
        module.inner.load_state_dict(state)
        plain.load_state_dict(state)
        torch.testing.assert_close(module(when), plain(when), atol=1e-4, rtol=1e-5)
        assert torch.equal(module.inner[0].weight, plain[0].weight)
