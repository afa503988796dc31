"""GAN checkpoints of other codes give the pixels of a plain re-implementation, by way of ``convert``."""

from __future__ import annotations

import os
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import genzoo
from genzoo.convert import ConvertError, convert
from genzoo.errors import GenzooError
from genzoo.formats import FormatError
from genzoo.registry import Entry, Plugin, Zoo, default_zoo


def script(latent: int, width: int, channels: int) -> nn.Sequential:
    """The published DCGAN generator for 64 pixels, as one sequence."""
    sizes = [latent, 8 * width, 4 * width, 2 * width, width, channels]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers.append(nn.ConvTranspose2d(before, after, 4, 2 if i else 1, 1 if i else 0, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if i < 4 else [nn.Tanh()]
    return shaken(nn.Sequential(OrderedDict(main=nn.Sequential(*layers))))


def zoo_net(latent: int, width: int, channels: int, depth: int) -> nn.Module:
    """The same with the names of pytorch_GAN_zoo."""
    now = width * 2**depth
    net = nn.Module()
    net.formatLayer = nn.ConvTranspose2d(latent, now, 4, 1, 0, bias=False)
    parts: OrderedDict[str, nn.Module] = OrderedDict(batchNorm0=nn.BatchNorm2d(now), relu0=nn.ReLU())
    for i in range(1, depth + 1):
        parts[f"convTranspose{i}"] = nn.ConvTranspose2d(now, now // 2, 4, 2, 1, bias=False)
        parts[f"batchNorm{i}"] = nn.BatchNorm2d(now // 2)
        parts[f"relu{i}"] = nn.ReLU()
        now //= 2
    parts["outlayer"] = nn.ConvTranspose2d(now, channels, 4, 2, 1, bias=False)
    net.main = nn.Sequential(parts)
    return shaken(net)


def shaken(net: Any) -> Any:
    """With statistics and gains that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * (0.2 if tensor.ndim == 1 else 0.05))
    return net.eval()


def latents(count: int, width: int) -> Tensor:
    return torch.cat([torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) for seed in range(count)])


@pytest.mark.parametrize(
    ("latent", "width", "channels", "wrap"),
    [(7, 4, 2, "netG"), *(pytest.param(*c, marks=pytest.mark.slow) for c in ((16, 4, 3, ""), (100, 8, 1, "module.")))],
)
def test_pytorch_examples_dcgan(tmp_path: Path, latent: int, width: int, channels: int, wrap: str) -> None:
    net = script(latent, width, channels)
    state: Any = net.state_dict()
    if wrap == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrap:
        state = {"netG": state, "epoch": 3, "config": {"lr": 1e-4}}
    torch.save(state, tmp_path / "netG_epoch_24.pth")
    asset = convert(tmp_path / "netG_epoch_24.pth", tmp_path / "out" / "netG.safetensors")
    assert asset.size == (tmp_path / "out" / "netG.safetensors").stat().st_size
    model = default_zoo().load(str(tmp_path / "out"))
    with torch.no_grad():
        wanted = net.main(latents(3, latent)[:, :, None, None])
    assert wanted.std() > 0.02
    assert float((model.generate([0, 1, 2]) - wanted).abs().max()) < 1e-5


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("average", [True, False])
def test_pytorch_gan_zoo_dcgan(tmp_path: Path, depth: int, average: bool) -> None:
    net = zoo_net(12, 4, 3, depth)
    state = {"netG": net.state_dict()}
    if average:
        state = {"netG": {k: v * 0 for k, v in net.state_dict().items()}, "avgG": net.state_dict()}
    path = tmp_path / "zoo.safetensors"
    save_file({f"{part}.{k}": v.clone() for part, tensors in state.items() for k, v in tensors.items()}, path)
    model = default_zoo().load(str(path))
    with torch.no_grad():
        wanted = net.main(net.formatLayer(latents(2, 12)[:, :, None, None])).tanh()
    assert float((model.generate([0, 1]) - wanted).abs().max()) < 1e-5


def test_a_discriminator_is_not_taken_for_a_generator(tmp_path: Path) -> None:
    save_file(
        {"main.0.weight": torch.zeros(8, 3, 4, 4), "main.2.weight": torch.zeros(16, 8, 4, 4)},
        tmp_path / "d.safetensors",
    )
    with pytest.raises(FormatError, match="no generator"):
        default_zoo().load(str(tmp_path / "d.safetensors"))
    save_file(
        {"formatLayer.weight": torch.zeros(8, 64, 4, 4), "main.outlayer.weight": torch.zeros(4, 3, 4, 4)},
        tmp_path / "d.safetensors",
    )
    with pytest.raises(FormatError, match="doublings"):
        default_zoo().load(str(tmp_path / "d.safetensors"))


def test_a_broken_format_does_not_stop_the_others(tmp_path: Path) -> None:
    zoo = Zoo.discover()
    broken = Entry("no_such_module:Format", Plugin("broken", "broken-package", "1.2", Path()))
    zoo.entries = {("format", "broken"): broken, **zoo.entries}
    save_file(script(7, 4, 2).state_dict(), tmp_path / "netG.safetensors")
    assert zoo.load(str(tmp_path / "netG.safetensors")).shape == (2, 64, 64)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=r"no known layout; tried broken: plugin 'broken' \(broken-package 1\.2\)"):
        zoo.load(str(tmp_path / "x.safetensors"))


# -- convert -----------------------------------------------------------------------------------------------------------


class Canary:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.flag),))


@pytest.mark.parametrize(
    ("zipped", "deep"),
    [
        (True, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((True, False), (False, True), (False, False))),
    ],
)
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, zipped: bool, deep: bool) -> None:
    flag, path, out = tmp_path / "ran", tmp_path / "evil.pt", tmp_path / "out.safetensors"
    evil: Any = Canary(flag)
    torch.save({"a": torch.ones(2), "b": {"c": evil}} if deep else evil, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConvertError, match="which is code"):
        convert(path, out)
    assert not flag.exists()
    assert os.listdir(tmp_path) == ["evil.pt"]


@pytest.mark.parametrize("suffix", [".pkl", ".pickle"])
def test_bare_pickles_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"g{suffix}").write_bytes(b"\x80\x04.")
    with pytest.raises(ConvertError, match="holds code"):
        convert(tmp_path / f"g{suffix}", tmp_path / "out.safetensors")


@pytest.mark.slow
def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.ones(2000)}, whole)
    for name, content in {"empty": b"", "text": b"hello", "cut": whole.read_bytes()[:3000]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConvertError, match=name) as caught:
            convert(tmp_path / name, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()
    with pytest.raises(ConvertError, match="no such file"):
        convert(tmp_path / "nothing.pt", out)
    with pytest.raises(ConvertError, match=r"out\.safetensors"):
        convert(whole, tmp_path / "out.pt")
    os.mkfifo(tmp_path / "fifo.pt")
    began = time.monotonic()
    with pytest.raises(GenzooError, match="regular"):
        convert(tmp_path / "fifo.pt", out)
    assert time.monotonic() - began < 1


@pytest.mark.slow
def test_programs_and_empty_ones_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ts.pt", "w") as archive:
        archive.writestr("ts/data.pkl", b"\x80\x02}.")
        archive.writestr("ts/constants.pkl", b"\x80\x02).")
    with pytest.raises(ConvertError, match="TorchScript"):
        convert(tmp_path / "ts.pt", tmp_path / "out.safetensors")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(ConvertError, match="no tensors"):
        convert(tmp_path / "none.pt", tmp_path / "out.safetensors")


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 31)}, tmp_path / "bomb.pt")  # 8 GB once it is written out
    assert (tmp_path / "bomb.pt").stat().st_size < 10_000
    with pytest.raises(ConvertError, match=r"memory|bytes that are allowed"):
        convert(tmp_path / "bomb.pt", tmp_path / "out.safetensors", memory=1 << 29)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_shared_and_nested_tensors_are_written_out(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    torch.save(
        {"x": {"a": base, "b": base[2:]}, "y": [1, 2], 3: base.reshape(2, 3).T, "half": base.half()}, tmp_path / "c.pt"
    )
    convert(tmp_path / "c.pt", tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    assert {name: tuple(t.shape) for name, t in found.items()} == {"x.a": (6,), "x.b": (4,), "3": (3, 2), "half": (6,)}
    assert torch.equal(found["3"], base.reshape(2, 3).T)
    convert(tmp_path / "c.pt", tmp_path / "d.safetensors", key="x")
    assert set(load_file(tmp_path / "d.safetensors")) == {"a", "b"}
    with pytest.raises(ConvertError, match="under 'z'"):
        convert(tmp_path / "c.pt", tmp_path / "e.safetensors", key="z")
    torch.save({"a": {"b": base}, "a.b": base + 1}, tmp_path / "two.pt")
    with pytest.raises(ConvertError, match=r"two tensors that would both be named 'a\.b'"):
        convert(tmp_path / "two.pt", tmp_path / "e.safetensors")
    assert not (tmp_path / "e.safetensors").exists()


def test_no_other_module_reads_a_checkpoint_of_torch() -> None:
    package = Path(genzoo.__file__).parent
    readers = [path.name for path in package.rglob("*.py") if "torch.load(" in path.read_text()]
    assert readers == ["convert.py"]


def test_a_module_beside_the_checkpoint_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "g.pt")
    for name in ("torch.py", "safetensors.py", "json.py", "genzoo.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    convert(tmp_path / "g.pt", tmp_path / "g.safetensors")
    assert not (tmp_path / "ran").exists()
