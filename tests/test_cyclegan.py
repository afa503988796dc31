"""CycleGAN checkpoints give the pixels of a plain functional re-implementation of the published networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.formats import FormatError
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, Tensor]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    if f"{name}.weight" not in state:
        return F.instance_norm(x)
    given = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *given, training=False)


def conv(x: Tensor, state: State, name: str, **more: Any) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **more)


def transposed(x: Tensor, state: State, name: str, **more: Any) -> Tensor:
    return F.conv_transpose2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=2, padding=1, **more)


def resnet(x: Tensor, state: State, blocks: int, second: int) -> Tensor:
    x = F.relu(norm(conv(F.pad(x, (3,) * 4, "reflect"), state, "model.1"), state, "model.2"))
    for i in (4, 7):
        x = F.relu(norm(conv(x, state, f"model.{i}", stride=2, padding=1), state, f"model.{i + 1}"))
    for i in range(10, 10 + blocks):
        name = f"model.{i}.conv_block"
        h = F.relu(norm(conv(F.pad(x, (1,) * 4, "reflect"), state, f"{name}.1"), state, f"{name}.2"))
        x = x + norm(conv(F.pad(h, (1,) * 4, "reflect"), state, f"{name}.{second}"), state, f"{name}.{second + 1}")
    for i in (10 + blocks, 13 + blocks):
        x = F.relu(norm(transposed(x, state, f"model.{i}", output_padding=1), state, f"model.{i + 1}"))
    return conv(F.pad(x, (3,) * 4, "reflect"), state, f"model.{17 + blocks}").tanh()


def unet(x: Tensor, state: State, depth: int) -> Tensor:
    """With the activation in place of the published code, so that skips carry the activated map."""

    def level(x: Tensor, k: int) -> Tensor:
        name = "model" + ".model.1" * 1 + ".model.3" * (k - 1) + ".model"
        x = F.leaky_relu(x, 0.2)
        h = conv(x, state, f"{name}.1", stride=2, padding=1)
        if k == depth - 1:
            h = norm(transposed(F.relu(h), state, f"{name}.3"), state, f"{name}.4")
        else:
            h = level(norm(h, state, f"{name}.2"), k + 1)
            h = norm(transposed(F.relu(h), state, f"{name}.5"), state, f"{name}.6")
        return torch.cat([x, h], 1)

    h = level(conv(x, state, "model.model.0", stride=2, padding=1), 1)
    return transposed(F.relu(h), state, "model.model.3").tanh()


def put(state: State, name: str, *shape: int, bias: int = 0) -> None:
    state[f"{name}.weight"] = torch.randn(*shape) / (shape[1] * shape[2] * shape[3]) ** 0.5 * 1.5
    if bias:
        state[f"{name}.bias"] = torch.randn(bias) * 0.1


def put_norm(state: State, name: str, channels: int, kind: str) -> None:
    if kind == "batch":
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(channels) + 0.5, torch.randn(channels) * 0.1
    if kind != "instance":
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = (
            torch.randn(channels) * 0.1,
            torch.rand(channels) + 0.5,
        )
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)


def make_resnet(width: int, blocks: int, second: int, kind: str, channels: int = 3, out: int = 3) -> State:
    """Names and shapes of a published resnet checkpoint; kind "old instance" has statistics that nothing uses."""
    torch.manual_seed(0)
    state: State = {}
    biased = kind != "batch"
    sizes = {1: (width, channels, 7), 4: (2 * width, width, 3), 7: (4 * width, 2 * width, 3)}
    for i, (after, before, side) in sizes.items():
        put(state, f"model.{i}", after, before, side, side, bias=after * biased)
        put_norm(state, f"model.{i + 1}", after, kind)
    for i in range(10, 10 + blocks):
        for place in (1, second):
            put(state, f"model.{i}.conv_block.{place}", 4 * width, 4 * width, 3, 3, bias=4 * width * biased)
            put_norm(state, f"model.{i}.conv_block.{place + 1}", 4 * width, kind)
    for i, before in ((10 + blocks, 4 * width), (13 + blocks, 2 * width)):
        put(state, f"model.{i}", before, before // 2, 3, 3, bias=before // 2 * biased)
        put_norm(state, f"model.{i + 1}", before // 2, kind)
    put(state, f"model.{17 + blocks}", out, width, 7, 7, bias=out)
    return state


def make_unet(width: int, depth: int, kind: str, channels: int = 3, out: int = 3) -> State:
    torch.manual_seed(0)
    state: State = {}
    biased = kind != "batch"
    inside = [width, 2 * width, 4 * width, 8 * width] + [8 * width] * (depth - 4)
    put(state, "model.model.0", width, channels, 4, 4, bias=width * biased)
    put(state, "model.model.3", 2 * width, out, 4, 4, bias=out)
    for k in range(1, depth):
        name = "model" + ".model.1" + ".model.3" * (k - 1) + ".model"
        last = k == depth - 1
        put(state, f"{name}.1", inside[k], inside[k - 1], 4, 4, bias=inside[k] * biased)
        put(
            state,
            f"{name}.{3 if last else 5}",
            inside[k] * (1 if last else 2),
            inside[k - 1],
            4,
            4,
            bias=inside[k - 1] * biased,
        )
        put_norm(state, f"{name}.{4 if last else 6}", inside[k - 1], kind)
        if not last:
            put_norm(state, f"{name}.2", inside[k], kind)
    return state


def pictures(size: int, channels: int = 3, count: int = 2) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize("second", [5, 6])
@pytest.mark.parametrize("kind", ["instance", "old instance", "batch"])
def test_resnets(tmp_path: Path, blocks: int, second: int, kind: str) -> None:
    state = make_resnet(4, blocks, second, kind, out=1)
    prefix = "module." if blocks == 6 else ""
    save_file({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "latest_net_G.safetensors")
    model = default_zoo().load(str(tmp_path / "latest_net_G.safetensors"))
    x = pictures(32)
    wanted = resnet(x, state, blocks, second)
    assert wanted.std() > 0.05
    assert float((model.generate(images=x) - wanted).abs().max()) < 1e-4
    assert model.generate(images=pictures(16), batch=1).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("depth", [7, 8])
@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_unets(tmp_path: Path, depth: int, kind: str) -> None:
    # At 1x1 pixels an instance norm gives nothing, and the plain one refuses: a larger image has more at the bottom.
    state = make_unet(2, depth, kind)
    save_file(state, tmp_path / "g.safetensors")
    model = default_zoo().load(str(tmp_path / "g.safetensors"))
    x = pictures(2 << depth, count=1)
    wanted = unet(x, state, depth)
    assert wanted.std() > 0.05
    assert float((model.generate(images=x) - wanted).abs().max()) < 1e-4


def test_what_is_not_an_image_is_told(tmp_path: Path) -> None:
    save_file(make_resnet(4, 6, 5, "instance"), tmp_path / "g.safetensors")
    model = default_zoo().load(str(tmp_path / "g.safetensors"))
    with pytest.raises(OptionError, match="give images"):
        model.generate([1])
    with pytest.raises(OptionError, match="no noise"):
        model.generate(noise=pictures(8), images=pictures(8))
    with pytest.raises(OptionError, match="multiples of 4"):
        model.generate(images=pictures(10))
    with pytest.raises(OptionError, match=r"\(N, 3, H, W\)"):
        model.generate(images=pictures(8, channels=1))
    with pytest.raises(OptionError, match="rows"):
        model.generate([1, 2, 3], images=pictures(8))


def test_half_a_network_is_told(tmp_path: Path) -> None:
    state = make_resnet(4, 6, 5, "instance")
    save_file({k: v for k, v in state.items() if not k.startswith("model.4.")}, tmp_path / "g.safetensors")
    with pytest.raises(Exception, match=r"missing network\.model\.4\.weight"):
        default_zoo().load(str(tmp_path / "g.safetensors"))
    save_file({"model.1.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "h.safetensors")
    with pytest.raises(FormatError, match=r"cyclegan: no model.1.weight of 7x7"):
        default_zoo().load(str(tmp_path / "h.safetensors"))
    save_file({f"model.model.{k}.weight": torch.zeros(5) for k in (0, 3)}, tmp_path / "u.safetensors")
    with pytest.raises(FormatError, match="of 4 dimensions"):
        default_zoo().load(str(tmp_path / "u.safetensors"))
