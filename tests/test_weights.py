"""Weights are checked before they are used: hostile files, ill-fitting ones, and what loading costs."""

from __future__ import annotations

import copy
import json
import os
import pickle  # noqa: TID251 - a model travels to another process so
import random
import shutil
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small import NETWORK, apart, small_card
from torch import Tensor, nn

import genzoo.tensors
import genzoo.weights
from genzoo import digests, pages
from genzoo.cards import Asset, Card
from genzoo.errors import CardError, GenzooError, OptionError, WeightsError
from genzoo.files import sha256_of
from genzoo.frozen import Frozen
from genzoo.generator import Generator
from genzoo.header import read_header
from genzoo.hollow import Hollow
from genzoo.registry import Plugin, Registrar, Zoo, default_zoo
from genzoo.tensors import Tensors, is_finite, read, write
from genzoo.weights import CARD_FILE, MAX_PARAMETERS, assign, build, find_card, is_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with apart(tmp_path, monkeypatch):
        yield


class Small(nn.Module):
    """The module that hostile files are aimed at: two shapes, three dtypes, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.b = nn.Parameter(torch.arange(4.0) - 1)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False, True]))


def raw_file(entries: Any, data: bytes) -> bytes:
    head = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(head).to_bytes(8, "little") + head + data


@pytest.fixture(name="small_file")
def _small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write(path, Small().state_dict(), {"made": "by a test"})
    return path


# -- the reader --------------------------------------------------------------------------------------------------------

_DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
]


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8),
        st.tuples(st.sampled_from(_DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_what_the_formats_own_library_reads(
    tmp_path: Path, wanted: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    tensors = {name: (torch.randn(shape) * 4).to(dtype) for name, (dtype, shape) in wanted.items()}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"k": "v"})
    ours, theirs = read(path), load_file(path)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)
    assert ours.metadata == {"k": "v"}
    written = tmp_path / "y.safetensors"
    write(written, tensors, {"z": "v", "a": "\u00fc\n"})
    again = load_file(written)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    assert read(written).metadata == {"z": "v", "a": "\u00fc\n"}


def test_written_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5.0), "a": torch.ones(16), "c": torch.ones(3, 32).T, "d": torch.tensor(7)}
    words = {str(k): "x" for k in range(20)}
    write(tmp_path / "x", tensors, words)
    write(tmp_path / "y", dict(reversed(tensors.items())), dict(reversed(words.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    found = read(tmp_path / "x")
    assert [found[name].data_ptr() % 64 for name in ("a", "c")] == [0, 0]
    for name, wrong in (("", torch.ones(1)), ("../x", torch.ones(1)), ("a", torch.ones(1, dtype=torch.complex64))):
        with pytest.raises(WeightsError):
            write(tmp_path / "z", {name: wrong})
    assert not (tmp_path / "z").exists()


def test_what_was_read_can_be_written_and_changed_without_touching_the_file(small_file: Path) -> None:
    before = small_file.read_bytes()
    tensors = read(small_file)
    tensors["a"].zero_()
    assert small_file.read_bytes() == before
    write(small_file.with_name("again.safetensors"), read(small_file), {"made": "by a test"})
    assert small_file.with_name("again.safetensors").read_bytes() == before


def test_released_tensors_come_back_from_the_file(tmp_path: Path) -> None:
    big = torch.randn(1 << 18)
    write(tmp_path / "big.safetensors", {"w": big, "v": torch.ones(3)})
    tensors = read(tmp_path / "big.safetensors")
    assert torch.equal(tensors["w"], big)
    tensors.release("w")
    assert torch.equal(tensors["w"], big)
    assert torch.equal(tensors["v"], torch.ones(3))
    # What was written to stays, however it was written: the file does not hold it.
    with torch.no_grad():
        tensors["w"][100_000] = 7
    tensors["w"].data[200_000] = 8
    tensors.release("w")
    assert tensors["w"][[100_000, 200_000]].tolist() == [7, 8]
    renamed = tensors.renamed({"w": "x"})
    assert list(renamed) == ["x"]
    with pytest.raises(WeightsError, match="stands in two files"):
        renamed.joined(Tensors({"x": big}))


def _resident(tensor: Tensor) -> int:
    """Bytes of a mapped tensor that are in memory."""
    first, last = (place // 4096 for place in (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes))
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(8 * first)
        return sum(entry >> 63 for entry in struct.unpack(f"{last - first}Q", file.read(8 * (last - first)))) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its pages")
def test_pages_are_given_back_unless_nobody_says_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "big.safetensors", {"w": torch.randn(1 << 18)})
    tensors = read(tmp_path / "big.safetensors")
    weight = tensors["w"]
    total = weight.sum()
    assert _resident(weight) >= weight.nbytes - 4096
    with monkeypatch.context() as patch:
        patch.setattr(pages, "_PAGEMAP", "/proc/self/none")
        tensors.release("w")
    assert _resident(weight) >= weight.nbytes - 4096
    tensors.release("w")
    assert _resident(weight) <= 2 * 4096
    assert weight.sum() == total


def test_pages_that_the_system_keeps_stay() -> None:
    class Locked:
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    page = pages.mmap.PAGESIZE
    zeros = torch.zeros(4 * page, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_clean", lambda *_: True)
        pages.give_back(Locked(), zeros.data_ptr(), 0, 4 * page)


def test_unaligned_files_of_old_writers_are_read(tmp_path: Path) -> None:
    entries = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    for pad in range(4):
        path = tmp_path / f"{pad}.safetensors"
        path.write_bytes(
            raw_file(json.dumps(entries).encode() + b" " * pad, torch.tensor([1.0, 2.0]).numpy().tobytes())
        )
        assert read(path)["a"].tolist() == [1.0, 2.0]


A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]}
GOOD: dict[str, Any] = {"a": A, "b": B}
DATA = bytes(40)


def changed(**entry: Any) -> dict[str, Any]:
    return {"a": {**A, **entry}, "b": B}


#: Each is (header, data) of a file that must be refused.
HEADERS: dict[str, tuple[Any, bytes]] = {
    "key twice": (f'{{"a":{json.dumps(A)},"a":{json.dumps(A)},"b":{json.dumps(B)}}}'.encode(), DATA),
    "key of an entry twice": (b'{"a":{"dtype":"F32","dtype":"F32","shape":[10],"data_offsets":[0,40]}}', DATA),
    "metadata twice": (b'{"__metadata__":{"a":"1","a":"2"}}', b""),
    "empty name": ({"": A, "b": B}, DATA),
    "name climbs": ({"../../x": A, "b": B}, DATA),
    "name climbs by backslash": ({"..\\x": A, "b": B}, DATA),
    "name is absolute": ({"/etc/x": A, "b": B}, DATA),
    "name with escape": ({"a\x1b[31m": A, "b": B}, DATA),
    "name with newline": ({"a\nb": A, "b": B}, DATA),
    "name with NUL": ({"a\x00": A, "b": B}, DATA),
    "name turns the text around": ({"a\u202eb": A, "b": B}, DATA),
    "name with half a pair": (b'{"a\\ud800":{"dtype":"U8","shape":[40],"data_offsets":[0,40]}}', DATA),
    "name too long": ({"a" * 501: A, "b": B}, DATA),
    "shape overflows": (changed(shape=[2**62, 0]), DATA[:16]),
    "shape wraps to zero": (changed(shape=[2**32, 2**32]), DATA),
    "shape negative": (changed(shape=[-2, -3]), DATA),
    "shape fractional": (changed(shape=[2.0, 3.0]), DATA),
    "shape true": (changed(shape=[True, 6]), DATA),
    "shape text": (changed(shape="23"), DATA),
    "shape null": (changed(shape=None), DATA),
    "shape too deep": (changed(shape=[1] * 70 + [6]), DATA),
    "shape smaller than bytes": (changed(shape=[2, 2]), DATA),
    "shape larger than bytes": (changed(shape=[2, 4]), DATA),
    "dtype unknown": (changed(dtype="F128"), DATA),
    "dtype number": (changed(dtype=32), DATA),
    "dtype lower case": (changed(dtype="f32"), DATA),
    "dtype missing": ({"a": {"shape": [2, 3], "data_offsets": [0, 24]}, "b": B}, DATA),
    "entry with more": (changed(extra=1), DATA),
    "entry is a list": ({"a": [A], "b": B}, DATA),
    "offsets reversed": (changed(data_offsets=[24, 0]), DATA),
    "offsets negative": (changed(data_offsets=[-24, 0]), DATA),
    "offsets overlap": ({"a": A, "b": {**B, "data_offsets": [16, 32]}}, DATA[:32]),
    "offsets leave a hole": ({"a": A, "b": {**B, "data_offsets": [28, 44]}}, bytes(44)),
    "offsets beyond the file": ({"a": A, "b": {**B, "data_offsets": [24, 2**50]}}, DATA),
    "offsets of three": (changed(data_offsets=[0, 24, 24]), DATA),
    "data too long": (GOOD, DATA + b"x"),
    "data too short": (GOOD, DATA[:-1]),
    "BOOL of 2": ({"m": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\x00\x01\x02"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "metadata a list": ({"__metadata__": []}, b""),
    "header a list": ([A], DATA),
    "header a number": (b"7", b""),
    "header empty": (b"", b""),
    "header not JSON": (b"{'a': 1}", DATA),
    "header not UTF-8": (b'{"\xff": 1}', DATA),
    "header nested": (b'{"a":' * 5000 + b"1" + b"}" * 5000, b""),
    "header of lists": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "number endless": (b'{"a":{"dtype":"U8","shape":[' + b"9" * 9000 + b'],"data_offsets":[0,1]}}', b"x"),
    "number NaN": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"),
    "two documents": (json.dumps(GOOD).encode() + b"{}", DATA),
    "space first": (b" " + json.dumps(GOOD).encode(), DATA),
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw_file(*HEADERS[name]))
    began = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        read(path)
    assert time.monotonic() - began < 1
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    assert len(message) < 1500


def test_the_unharmed_file_of_those_headers_is_read(tmp_path: Path) -> None:
    assert len(HEADERS) >= 40
    path = tmp_path / "good.safetensors"
    path.write_bytes(raw_file(GOOD, DATA))
    assert {name: tuple(tensor.shape) for name, tensor in read(path).items()} == {"a": (2, 3), "b": (4,)}
    assert read_header(path).size == path.stat().st_size


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    for claimed in (2**25 + 1, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(claimed.to_bytes(8, "little") + b"{}")
        with pytest.raises(WeightsError):
            read(path)


def _mutated(source: bytes, dice: random.Random) -> bytes:
    head = 8 + int.from_bytes(source[:8], "little")
    raw = bytearray(source[:head])
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(raw))
        match dice.randrange(5):
            case 0:
                raw[at] = dice.randrange(256)
            case 1:
                raw[at] ^= 1 << dice.randrange(8)
            case 2:
                del raw[at : at + dice.randint(1, 6)]
            case 3:
                raw[at:at] = dice.choice([b'"', b"0", b"9", b"-", b"[", b"}", b",", b"e5", b"\x00", b'"a":'])
            case 4:
                other = dice.randrange(len(raw))
                raw[at : at + 3] = raw[other : other + 3]
    if dice.random() < 0.5:  # past the first check
        raw[:8] = (len(raw) - 8).to_bytes(8, "little")
    return bytes(raw) + source[head:]


def _fuzz(path: Path, count: int, seed: int) -> tuple[int, int]:
    source, original = path.read_bytes(), Small().state_dict()
    dice, target = random.Random(seed), path.with_name("fuzzed.safetensors")
    refused = 0
    for _ in range(count):
        target.write_bytes(_mutated(source, dice))
        module = Small()
        with torch.no_grad():
            module.a.fill_(9)
        try:
            assign(module, read(target), "fuzzed")
        except WeightsError:
            refused += 1
            assert bool((module.a == 9).all())
        else:
            for name, tensor in original.items():
                assert torch.equal(module.state_dict()[name], tensor)
    return refused, count


def test_fuzzed_headers_give_an_error_or_the_same_tensors(small_file: Path) -> None:
    refused, count = _fuzz(small_file, 700, 1)
    assert count // 2 < refused < count


@pytest.mark.slow
def test_fuzzed_headers_at_length(small_file: Path) -> None:
    refused, count = _fuzz(small_file, 10_000, 2)
    assert count // 2 < refused < count


def test_every_truncation_is_an_error_with_both_sizes(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    asset = write(path, {"a": torch.randn(10, 16), "b": torch.randn(40)})
    raw = path.read_bytes()
    assert 900 < len(raw) < 1200
    shutil.copyfile(path, cut)
    for length in reversed(range(len(raw))):
        os.truncate(cut, length)
        with pytest.raises(WeightsError, match=rf"\b{length} bytes") as caught:
            read(cut)
        if length >= 8 + int.from_bytes(raw[:8], "little"):
            assert str(len(raw)) in str(caught.value)
        with pytest.raises(WeightsError, match=rf"\b{length} bytes.*\b{len(raw)}\b"):
            read(cut, asset)


def test_every_flipped_bit_is_caught_by_the_pin(small_file: Path) -> None:
    raw = small_file.read_bytes()
    pin = Asset(file="small.safetensors", sha256=sha256_of(small_file), size=len(raw))
    dice = random.Random(3)
    for bit in dice.sample(range(8 * len(raw)), 500):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        small_file.write_bytes(flipped)
        with pytest.raises(WeightsError, match="changed: sha256"):
            read(small_file, pin)
    small_file.write_bytes(raw)
    assert read(small_file, pin)


# -- digests -----------------------------------------------------------------------------------------------------------


def _settled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", -1.0)


def test_digests_are_worked_out_once_and_again_after_any_change(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _settled(small_file, monkeypatch)
    calls = []
    real = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *a: calls.append(1) or real(*a))

    def ask() -> str:
        with small_file.open("rb") as file:
            return digests.digest(file)

    first = ask()
    assert ask() == first
    assert len(calls) == 1
    digests.known_of.cache_clear()  # as another process would begin
    assert ask() == first
    assert len(calls) == 1
    state = small_file.stat()
    raw = bytearray(small_file.read_bytes())
    raw[-1] ^= 1
    time.sleep(0.02)
    small_file.write_bytes(raw)
    os.utime(small_file, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size, inode and time of modification
    assert ask() != first
    assert len(calls) == 2


def test_a_fresh_file_is_not_remembered(small_file: Path) -> None:
    with small_file.open("rb") as file:
        digests.digest(file)
    assert not (digests.cache_folder() / "digests.json").exists()


def test_without_a_home_folder_digests_are_remembered_by_the_process(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    _settled(small_file, monkeypatch)
    for name in ("GENZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    calls = []
    with small_file.open("rb") as file:
        for _ in range(2):
            digests.remembered(digests.State.of(file), "told", lambda: calls.append(1) or "once")
    assert len(calls) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 7}', "\x00"])
def test_a_damaged_memory_of_digests_is_passed_over(small_file: Path, content: str) -> None:
    digests.cache_folder().mkdir(parents=True)
    (digests.cache_folder() / "digests.json").write_text(content)
    digests.known_of.cache_clear()
    with small_file.open("rb") as file:
        assert len(digests.digest(file)) == 64


# -- what is no file ---------------------------------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD: dict[str, Callable[[Path], Any]] = {
    "fifo": _fifo,
    "folder": lambda path: path.mkdir(),
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "missing": lambda path: None,
}


@pytest.mark.skipif(os.name != "posix", reason="needs FIFOs and links")
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("w.safetensors")
    ODD[kind](path)
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        read(path)
    assert time.monotonic() - began < 1


def _model_folder(folder: Path, **changes: Any) -> Card:
    model = build(default_zoo(), small_card())
    asset = write(folder / "model.safetensors", model.state_dict())
    card = small_card(weights=asset.model_dump(), **changes)
    body = card.model_dump(mode="json", exclude_defaults=True)
    (folder / CARD_FILE).write_text(yaml.safe_dump(body, sort_keys=False))
    return card


def test_a_link_out_of_the_models_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    _model_folder(folder)
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(WeightsError, match="leaves"):
        default_zoo().load(str(folder))


class Canary:
    """What a pickle runs when it is read."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.flag),))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".pkl", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_never_run(tmp_path: Path, suffix: str, zipped: bool) -> None:
    flag, path = tmp_path / "ran", tmp_path / f"model{suffix}"
    torch.save({"a": Canary(flag)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError):
        read(path)
    with pytest.raises(GenzooError):
        default_zoo().load(str(path))
    assert not flag.exists()


# -- ill-fitting tensors -----------------------------------------------------------------------------------------------

UNFIT: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop("a"), r"missing a \(2, 3\)"),
    "missing all": (lambda t: t.clear(), "4 tensors do not fit"),
    "extra": (lambda t: t.update(c=torch.ones(2)), r"unexpected c \(2,\)"),
    "renamed": (lambda t: t.update(A=t.pop("a")), "missing a.*unexpected A"),
    "shape": (lambda t: t.update(a=torch.ones(3, 2)), r"a is \(3, 2\), not \(2, 3\)"),
    "flat": (lambda t: t.update(a=torch.ones(6)), "a is"),
    "one more axis": (lambda t: t.update(b=torch.ones(1, 4)), "b is"),
    "one element for a scalar": (lambda t: t.update(count=torch.tensor([7])), "count is"),
    "scalar for a vector": (lambda t: t.update(b=torch.tensor(1.0)), "b is"),
    "empty": (lambda t: t.update(b=torch.ones(0)), "b is"),
    "float64": (lambda t: t.update(a=t["a"].double()), "float64, not torch.float32"),
    "float64 beyond range": (lambda t: t.update(a=t["a"].double() * 1e300), "float64"),
    "int64": (lambda t: t.update(a=t["a"].long()), "int64"),
    "int32": (lambda t: t.update(a=t["a"].int()), "int32"),
    "uint8": (lambda t: t.update(a=t["a"].to(torch.uint8)), "uint8"),
    "bool": (lambda t: t.update(a=t["a"] > 0), "bool"),
    "fp8 e4m3": (lambda t: t.update(a=t["a"].to(torch.float8_e4m3fn)), "float8"),
    "fp8 e5m2": (lambda t: t.update(a=t["a"].to(torch.float8_e5m2)), "float8"),
    "complex": (lambda t: t.update(a=t["a"].to(torch.complex64)), "complex"),
    "float count": (lambda t: t.update(count=torch.tensor(7.0)), "count is torch.float32"),
    "int32 count": (lambda t: t.update(count=torch.tensor(7, dtype=torch.int32)), "count is torch.int32"),
    "float mask": (lambda t: t.update(mask=torch.ones(3)), "mask is"),
    "uint8 mask": (lambda t: t.update(mask=torch.ones(3, dtype=torch.uint8)), "mask is"),
    "NaN": (lambda t: t["a"].__setitem__((0, 0), float("nan")), "a holds NaN"),
    "infinity": (lambda t: t["b"].__setitem__(3, float("inf")), "b holds NaN or infinity"),
    "minus infinity": (lambda t: t["b"].__setitem__(0, -float("inf")), "b holds NaN or infinity"),
    "NaN in half": (lambda t: t.update(a=torch.full((2, 3), float("nan"), dtype=torch.float16)), "a holds NaN"),
    "NaN in bfloat16": (lambda t: t.update(a=torch.full((2, 3), float("nan"), dtype=torch.bfloat16)), "a holds NaN"),
    "three at once": (
        lambda t: (t.pop("a"), t.update(b=torch.ones(5), z=torch.ones(1))),
        "3 tensors.*missing a.*b is.*z",
    ),
    "twenty at once": (lambda t: t.update({f"x{i}": torch.ones(1) for i in range(20)}), "20 tensors.*and 12 more"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_all_mismatches_are_listed_and_the_module_stays(kind: str) -> None:
    module = Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {name: tensor.clone() for name, tensor in before.items()}
    change, message = UNFIT[kind]
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        assign(module, tensors, "file")
    assert module.state_dict().keys() == before.keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_thirty_mismatches_are_tried() -> None:
    assert len(UNFIT) >= 30


def test_half_precision_is_widened_and_overflow_is_caught() -> None:
    module = Small()
    assign(module, {**module.state_dict(), "a": torch.full((2, 3), 1.5, dtype=torch.float16)}, "file")
    assert module.a.dtype == torch.float32
    assert bool((module.a == 1.5).all())
    narrow = nn.Linear(2, 2).half()
    with pytest.raises(WeightsError, match=r"beyond the range of torch\.float16"):
        assign(narrow, {"weight": torch.full((2, 2), 1e6), "bias": torch.zeros(2)}, "file")


def test_nan_can_be_allowed() -> None:
    module = Small()
    assign(module, {**module.state_dict(), "a": torch.full((2, 3), float("nan"))}, "file", finite=False)
    assert bool(module.a.isnan().all())
    with pytest.raises(WeightsError, match=r"allow_nonfinite=True\) takes them"):
        assign(module, {**module.state_dict(), "a": torch.full((2, 3), float("nan"))}, "file")


@given(st.lists(st.floats(width=32), max_size=20), st.sampled_from([torch.float32, torch.bfloat16, torch.float8_e5m2]))
@settings(max_examples=100, deadline=None)
def test_finite_agrees_with_the_plain_definition(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float32).to(dtype)
    assert is_finite(tensor) == bool(tensor.float().isfinite().all())


# -- building ----------------------------------------------------------------------------------------------------------


class TableConfig(Frozen):
    size: int = 4


class Table(Generator):
    """A generator with everything that a model without memory can lose: tables that no file holds."""

    Config: ClassVar[type[Frozen]] = TableConfig

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.layer = nn.Linear(config.size, config.size)
        self.norm = nn.BatchNorm1d(config.size)
        self.register_buffer("angles", torch.arange(4.0), persistent=False)
        self.register_buffer("ones", torch.ones(3), persistent=False)
        self.plain = torch.linspace(0, 1, 5)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 4, 4

    def sample(self, noise: Any, options: Any) -> Iterator[Tensor]:
        yield self.layer(noise.start(1, 4, 4)) * self.angles


class Drawn(Table):
    """The same with a random table, which cannot be worked out without memory."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.register_buffer("angles", torch.rand(4), persistent=False)


def _zoo(cls: type[Generator]) -> Zoo:
    zoo = Zoo()
    registrar = Registrar(zoo, Plugin("test", "test", "0", Path()))
    registrar.generator("table", cls)
    zoo.entries.update(registrar.entries)
    return zoo


def _table_card(**config: Any) -> Card:
    return small_card(name="table.x", generator="table", shape=(1, 4, 4), config=config)


def test_parameters_have_no_memory_and_tables_are_real() -> None:
    model = build(_zoo(Table), _table_card(), materialise=False)
    assert isinstance(model, Table)
    assert model.layer.weight.is_meta
    assert model.angles.tolist() == [0, 1, 2, 3]
    assert model.ones.tolist() == [1, 1, 1]
    assert torch.equal(model.plain, torch.linspace(0, 1, 5))
    real = Table(TableConfig())
    assign(model, real.state_dict(), "real")
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    model.card = None
    assert torch.equal(model.generate([1, 2]), real.generate([1, 2]))
    assert model.layer.weight.requires_grad


class Ruled(nn.Linear):
    """A layer whose filling does more than fill: it must run."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.ruled = True


class Layered(Table):
    """A model of torch's layers and of one derived from them."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.more = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Embedding(3, 4), Ruled(2, 2)])


def test_layers_of_torch_pass_over_filling_what_has_no_memory() -> None:
    model = build(_zoo(Layered), _table_card(), materialise=False)
    assert isinstance(model, Layered)
    assert model.more[3].ruled
    for module in model.modules():
        assert "reset_parameters" not in vars(module)
        assert all(parameter.is_meta for parameter in module.parameters())
    model.more[1].to_empty(device="cpu").reset_parameters()
    assert model.more[1].weight.tolist() == [1, 1]


def test_another_thread_fills_its_layers_meanwhile() -> None:
    with Hollow(1000, "x"), ThreadPoolExecutor(1) as pool:
        real = pool.submit(nn.GroupNorm, 1, 3).result()
        assert nn.GroupNorm(1, 3).weight.is_meta
    assert real.weight.tolist() == [1, 1, 1]
    assert real.bias.tolist() == [0, 0, 0]


def test_a_name_with_a_slash_is_no_name_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = Zoo.discover()
    monkeypatch.setattr(type(zoo), "shelf", property(lambda zoo: pytest.fail("the catalogue was read")))
    assert is_path(zoo, "./ddpm.fashion-mnist")
    assert is_path(zoo, "folder/model")
    assert not is_path(zoo, "hf:owner/repo")


def test_a_model_with_random_tables_is_built_for_real() -> None:
    model = build(_zoo(Drawn), _table_card(), materialise=False)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_the_global_random_stream_does_not_move() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    build(default_zoo(), small_card(), materialise=False)
    assert torch.equal(torch.rand(3), wanted)


class Buffered(Drawn):
    """A generator of which a file would hold a buffer alone."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        del self.layer, self.norm
        self.register_buffer("mean", torch.rand(4))


@pytest.mark.parametrize("cls", [Table, Drawn, Buffered])
def test_a_folder_whose_card_names_no_weights_is_no_model(tmp_path: Path, cls: type[Table]) -> None:
    """It would answer with an untrained network's noise; and it is refused before it is built."""
    card = _table_card().model_dump(mode="json", exclude_defaults=True)
    (tmp_path / CARD_FILE).write_text(yaml.safe_dump(card))
    made = []

    class Watched(cls):  # type: ignore[valid-type, misc]
        def __init__(self, config: TableConfig) -> None:
            super().__init__(config)
            made.append([tensor.is_meta for tensor in (*self.parameters(), *self.buffers())])

    with pytest.raises(WeightsError, match=r"card\.yaml names no weights; add weights:"):
        _zoo(Watched).load(str(tmp_path))
    assert len(made) == 1
    assert any(made[0])


def test_loaded_equals_saved_in_pixels_layout_and_grad(tmp_path: Path) -> None:
    zoo = default_zoo()
    # Frozen, as what is loaded: kernels differ otherwise.
    model = build(zoo, small_card()).eval().requires_grad_(False)
    folder = tmp_path / "model"
    asset = write(folder / "model.safetensors", model.state_dict())
    body = small_card(weights=asset.model_dump()).model_dump(mode="json", exclude_defaults=True)
    (folder / CARD_FILE).write_text(yaml.safe_dump(body))
    loaded = zoo.load(str(folder))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    copied = copy.deepcopy(loaded.denoiser)
    assert torch.equal(loaded.generate([3, 4], steps=3), model.generate([3, 4], steps=3))
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(copied(x, 5.0, {}), loaded.denoiser(x, 5.0, {}))
    for (name, mine), (_, theirs) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    # What was laid out inside inference mode can be trained all the same; now every weight is read as it is.
    loaded.requires_grad_(True)
    loaded.denoiser(torch.randn(1, 3, 8, 8), 5.0, {}).sum().backward()
    for (name, mine), (_, theirs) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
        assert mine.stride() == theirs.stride(), name
        assert mine.data_ptr() % 64 == 0, name
    card, root = find_card(zoo, str(folder))
    assert (card.name, root) == ("diffusion.small", folder)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        cast = zoo.load(str(folder), dtype=dtype)
        assert {p.dtype for p in cast.parameters()} == {dtype}


def _bombs() -> Iterator[dict[str, Any]]:
    big = 65536
    for levels in range(1, 11):
        down, up = ["DownBlock2D"] * levels, ["UpBlock2D"] * levels
        base = {"kind": "unet", "sample_size": 2**levels, "down_block_types": down, "up_block_types": up}
        yield {"network": {**base, "block_out_channels": [big] * levels}}
        yield {"network": {**base, "block_out_channels": [big] * levels, "layers_per_block": 64}}
        yield {
            "network": {
                **base,
                "block_out_channels": [32] * levels,
                "time_embedding_dim": big,
                "layers_per_block": 64,
                "num_class_embeds": big,
            },
            "num_classes": big - 1,
        }
        yield {"network": {**base, "block_out_channels": [big // 2] * levels, "norm_num_groups": big // 2}}
        yield {"network": {**base, "block_out_channels": [32] * levels, "sample_size": big}}


@pytest.mark.parametrize("config", list(_bombs()))
def test_a_config_that_asks_for_too_much_is_refused_before_anything_is_allocated(config: dict[str, Any]) -> None:
    size = config["network"]["sample_size"]
    rows = config.get("num_classes", 0)
    # Of the processor, not of the clock: whoever else is at work here does not count.
    began, before = time.process_time(), _peak()
    refused = False
    try:
        model = build(default_zoo(), small_card(config=config, shape=(3, size, size)), materialise=False)
    except CardError:
        refused = True
    else:
        # The wide embeddings of few levels stay below the bound; what is built has no memory.
        assert rows or size < 2048
        assert sum(p.numel() for p in model.parameters()) <= MAX_PARAMETERS
        assert all(p.is_meta for p in model.parameters())
    assert refused or rows
    assert time.process_time() - began < 5
    assert _peak() - before < 64 << 20


def _peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**31), 10**31) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_KEYS = ["network", "schedule", "prediction", "patch", "num_classes", "null_class", "clip", *NETWORK]


def _config_never_surprises(config: Any) -> None:
    said = ""
    try:
        built = build(default_zoo(), small_card().model_copy(update={"config": config}), materialise=False)
    except CardError as error:
        said = str(error)
    else:
        assert built.shape == (3, 8, 8)
    assert not said or "config of diffusion.small" in said or "shape" in said


_CONFIGS = st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=4).map(
    lambda d: {"network": NETWORK, **d}
) | st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=3).map(lambda d: {"network": {**NETWORK, **d}})


@given(_CONFIGS)
@settings(max_examples=100, deadline=None)
def test_any_config_is_a_model_or_a_card_error(config: dict[str, Any]) -> None:
    _config_never_surprises(config)


@pytest.mark.slow
@given(_CONFIGS)
@settings(max_examples=1000, deadline=None)
def test_any_config_at_length(config: dict[str, Any]) -> None:
    _config_never_surprises(config)


def test_a_loaded_model_is_copied_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    build(default_zoo(), small_card(options={"steps": 2})).save_pretrained(tmp_path)
    model = default_zoo().load(str(tmp_path))
    copied = copy.deepcopy(model)
    assert copied.zoo is model.zoo
    assert copied.card == model.card
    assert torch.equal(copied.generate([1]), model.generate([1]))
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(copied.generate([1]), model.generate([1]))


@pytest.mark.parametrize(("name", "options"), [("ddpm.fashion-mnist", {"steps": 1}), ("dcgan.fashion-mnist", {})])
def test_a_loaded_model_goes_to_another_process(name: str, options: dict[str, int]) -> None:
    model = default_zoo().load(name)
    for _ in ("before its first call", "after it"):
        there = pickle.loads(pickle.dumps(model))  # noqa: S301
        assert there.zoo is default_zoo()
        assert torch.equal(there.generate([1], labels=3, **options), model.generate([1], labels=3, **options))


def test_pixels_do_not_depend_on_the_layout_of_the_file(tmp_path: Path) -> None:
    """The same weights at every address: a file whose tensors begin between round addresses gives the same bits."""
    zoo = default_zoo()
    # Frozen, as what is loaded: kernels differ otherwise.
    card, model = small_card(), build(zoo, small_card()).eval().requires_grad_(False)
    wanted = model.generate([3], steps=2)
    state = dict(model.state_dict())
    for pad in (0, 4, 12):
        path = tmp_path / f"{pad}.safetensors"
        card_text = json.dumps(card.model_dump(mode="json", exclude_defaults=True))
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, {"genzoo.card": card_text})
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        head = raw[8 : 8 + length].rstrip() + b" " * ((-len(raw[8 : 8 + length].rstrip()) - 8) % 64 + pad)
        path.write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + length :])
        assert torch.equal(zoo.load(str(path)).generate([3], steps=2), wanted)


def test_finiteness_is_worked_out_once_for_each_state_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    calls: list[int] = []
    real = genzoo.tensors.is_finite
    monkeypatch.setattr(genzoo.tensors, "is_finite", lambda tensor: calls.append(1) or real(tensor))
    monkeypatch.setattr(genzoo.weights, "is_finite", lambda tensor: calls.append(1) or real(tensor))
    path = tmp_path / "small.safetensors"
    write(path, Small().state_dict())
    assign(Small(), read(path), "file")
    assert len(calls) == 2
    digests.known_of.cache_clear()  # as another process would begin
    assign(Small(), read(path), "file")
    assert len(calls) == 2
    tensors = read(path)
    tensors["a"] = torch.full((2, 3), float("nan"))  # no longer the file's
    with pytest.raises(WeightsError, match="a holds NaN"):
        assign(Small(), tensors, "file")
    tensors = read(path)
    tensors["a"] = tensors["a"].view(2, 3)
    calls.clear()
    assign(Small(), tensors, "file")
    assert not calls
    bad = Small()
    with torch.no_grad():
        bad.a[0, 0] = float("inf")
    write(path, bad.state_dict())
    for _ in range(2):
        with pytest.raises(WeightsError, match="a holds NaN"):
            assign(Small(), read(path), "file")
    assign(Small(), read(path), "file", finite=False)


@pytest.mark.parametrize("inference", [True, False])
def test_what_is_remembered_is_the_files_and_not_what_was_written_to_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inference: bool
) -> None:
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    path, bad = tmp_path / "small.safetensors", Small().state_dict()
    bad["a"] = torch.full((2, 3), float("nan"))
    write(path, bad)
    with torch.inference_mode(inference):
        tensors = read(path)
        tensors["a"].nan_to_num_(0)  # as a format may mend what it reads
    assign(Small(), tensors, "mended", trainable=False)
    digests.known_of.cache_clear()  # as another process would begin
    with pytest.raises(WeightsError, match="a holds NaN"):
        assign(Small(), read(path), "file")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, nan: tensors["a"].copy_(nan),
        lambda tensors, nan: tensors["a"][0].fill_(float("nan")),
        lambda tensors, nan: tensors.update(a=nan),
        lambda tensors, nan: tensors.__ior__({"a": nan}),
        lambda tensors, nan: tensors.pop("a") is not None and tensors.setdefault("a", nan),
        lambda tensors, nan: tensors.__setitem__("a", nan),
    ],
)
def test_however_nan_comes_into_tensors_that_were_known_to_hold_none(
    tmp_path: Path, change: Callable[[Tensors, Tensor], Any]
) -> None:
    write(tmp_path / "small.safetensors", Small().state_dict())
    tensors = read(tmp_path / "small.safetensors")
    assert tensors.finite("a")
    change(tensors, torch.full((2, 3), float("nan")))
    assert not tensors.finite("a")
    assert tensors.finite("b")
    with pytest.raises(WeightsError, match="a holds NaN"):
        assign(Small(), tensors, "file")


@pytest.mark.parametrize("option", [{"revision": "main"}, {"token": "hf_secret"}])
def test_options_of_the_hub_are_refused_elsewhere(tmp_path: Path, option: dict[str, str]) -> None:
    zoo = default_zoo()
    _model_folder(tmp_path / "model")
    build(zoo, small_card()).eval().save_pretrained(tmp_path / "own")
    shipped = next(iter(zoo.shelf))
    for name in (shipped, str(tmp_path / "model"), str(tmp_path / "own"), str(tmp_path / "own/model.safetensors")):
        with pytest.raises(OptionError, match=f"{next(iter(option))} is for models on the Hub") as caught:
            zoo.load(name, **option)
        assert "secret" not in str(caught.value)


_MEASURE = """
import resource, sys, torch
from genzoo.registry import default_zoo
zoo = default_zoo()
for name in ("generator", "scheduler"):
    for found in zoo.names(name):
        zoo.find(name, found)
zoo.load(sys.argv[1])
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = zoo.load(sys.argv[2])
after = peak()
model.generate([1], steps=1)
print(after - before, peak() - before, sum(p.numel() * p.element_size() for p in model.parameters()))
"""


def test_loading_takes_hardly_more_memory_than_the_weights(tmp_path: Path) -> None:
    zoo = default_zoo()
    _model_folder(tmp_path / "small")
    net = {**NETWORK, "block_out_channels": [128, 256], "norm_num_groups": 32, "layers_per_block": 3}
    card = small_card(config={"network": net})
    asset = write(tmp_path / "large" / "model.safetensors", build(zoo, card).state_dict())
    body = card.model_copy(update={"weights": asset}).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "large" / CARD_FILE).write_text(yaml.safe_dump(body))
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    grown, used, weights = map(int, done.stdout.split())
    assert weights > 40 << 20
    assert grown <= 1.2 * weights
    # Laid out for the kernels one tensor after the other; an image takes some memory too.
    assert used <= 1.2 * weights + (16 << 20)
