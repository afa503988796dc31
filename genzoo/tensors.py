"""Files of tensors: safetensors only, checked to the last byte of the header, mapped into memory and not copied.

The header is read here and not by the format's own library, which lets a key stand twice (the last wins), unprintable
names, bytes in BOOL that are neither 0 nor 1, and shapes beyond any memory. Whatever passes here, it reads alike.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from genzoo.cards import Asset
from genzoo.digests import State, digest, remembered
from genzoo.errors import WeightsError
from genzoo.files import open_regular, sha256_of, whole_file
from genzoo.pages import give_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader
    from pathlib import Path

#: Where torch's own memory begins, in bytes.
ALIGNMENT = 64

MAX_HEADER = 32 << 20
MAX_TENSORS = 100_000
MAX_RANK = 16
MAX_EXTENT = 1 << 40
MAX_NAME = 500

#: What the header says of each tensor.
_ENTRY = frozenset({"dtype", "shape", "data_offsets"})

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Slot(NamedTuple):
    """Where a tensor lies in its file: its bytes are [begin, end) from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What the head of a safetensors file says.

    Attributes:
        slots: the tensors, by name.
        metadata: the file's own words.
        size: the bytes that the whole file must have.
    """

    slots: Mapping[str, Slot]
    metadata: Mapping[str, str]
    size: int


class Mapped:
    """A safetensors file in memory: a private mapping, whose pages are read when they are used.

    Args:
        file: open at any place, and kept open here too.
        path: how it is named in messages.
        header: its own.
    """

    def __init__(self, file: BufferedReader, path: Path, header: Header) -> None:
        self.path, self.header, self.state = path, header, State.of(file)
        self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self._written = self._last_written()
        self.mapping = self._mapping()

    def _mapping(self) -> mmap.mmap:
        # Private: what is written to a tensor never reaches the file.
        return mmap.mmap(self._handle, self.header.size, access=mmap.ACCESS_COPY)

    def _last_written(self) -> tuple[int, int]:
        # Without the time of the last status change, which the removal of a name moves too.
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Raise WeightsError if the file itself was written to since it was read."""
        if self._last_written() != self._written:
            raise WeightsError(f"{self.path}: changed after it was loaded; load it again")

    @cached_property
    def finite(self) -> bool:
        """Whether no tensor of the file holds NaN or infinity; remembered from one process to the next."""
        return remembered(self.state, "finite", lambda: str(self._is_finite())) == "True"

    def _is_finite(self) -> bool:
        # In a mapping of its own: what was written to the tensors is not in the file.
        mapping = self._mapping()
        address = _address(mapping)

        def sound(slot: Slot) -> bool:
            found = not slot.dtype.is_floating_point or is_finite(_view(mapping, slot))
            give_back(mapping, address, slot.begin, slot.end)
            return found

        found = all(sound(slot) for slot in self.header.slots.values())
        self.check()
        return found

    def holds(self, slot: Slot, tensor: Tensor) -> bool:
        """Whether a tensor is a view of the one that lies there, from its first number on."""
        return tensor.data_ptr() == self._address + slot.begin

    def release(self, slot: Slot) -> None:
        """Give the pages of a tensor that was copied back, if nobody wrote to them; see ``check``."""
        self.check()
        give_back(self.mapping, self._address, slot.begin, slot.end)

    @cached_property
    def _address(self) -> int:
        return _address(self.mapping)


class Tensors(dict[str, Tensor]):
    """Tensors by name, with what their files said.

    They are views of a private mapping of the file: read when they are used, and a write to one stays in this process.
    A file that is overwritten in place afterwards, by whatever program, may change them, as it may what is made of them
    without a copy; replace it by another file of its name instead, as everything here does.

    Attributes:
        metadata: the file's own words.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (),
        metadata: Mapping[str, str] | None = None,
        places: Mapping[str, tuple[Mapped, Slot]] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.metadata = dict(metadata or {})
        self._places = dict(places or {})

    def release(self, name: str) -> None:
        """Give the memory of a tensor that was copied elsewhere back; it is read from the file again if it is used.

        Raises WeightsError if the file itself was written to since it was read: the copy may be of either.
        """
        if (place := self._place(name)) is not None:
            mapped, slot = place
            mapped.release(slot)

    def finite(self, name: str) -> bool:
        """Whether a tensor is known to hold neither NaN nor infinity, because no tensor of its file does.

        Not known of a tensor that was put in the place of the file's, or written to. (Writes through ``.data``, which
        torch does not count, go unseen.)
        """
        place, tensor = self._place(name), self.get(name)
        # What was made in inference mode counts no writes.
        if place is None or tensor is None or tensor.is_inference() or tensor._version > 0:
            return False
        return place[0].finite

    def _place(self, name: str) -> tuple[Mapped, Slot] | None:
        """Where a tensor lies in its file; None of one that is no view of the file's."""
        place, tensor = self._places.get(name), self.get(name)
        return place if place and tensor is not None and place[0].holds(place[1], tensor) else None

    def renamed(self, names: Mapping[str, str]) -> Tensors:
        """The same tensors under new names; those that ``names`` (old -> new) does not hold are left out."""
        return Tensors(
            {names[old]: tensor for old, tensor in self.items() if old in names},
            self.metadata,
            {names[old]: place for old, place in self._places.items() if old in names},
        )

    def joined(self, other: Tensors) -> Tensors:
        """These and the other's; a name of both is an error."""
        if both := sorted(self.keys() & other.keys()):
            raise WeightsError(f"tensor {both[0]!r} stands in two files")
        return Tensors({**self, **other}, {**self.metadata, **other.metadata}, {**self._places, **other._places})


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file; raises WeightsError that says what is wrong with it."""
    with open_regular(path, WeightsError) as file:
        return _header(file, path)


def read(path: Path, pinned: Asset | None = None) -> Tensors:
    """The tensors of a safetensors file, mapped into memory.

    Args:
        path: the file.
        pinned: the size and sha256 that it must have.

    Raises WeightsError that says what is wrong and what to do.
    """
    if not path.exists():
        raise WeightsError(
            f"{path}: the weights are missing; reinstall the package that brings them, or pull them again"
        )
    with open_regular(path, WeightsError) as file:
        if pinned is not None:
            size = os.fstat(file.fileno()).st_size
            if size != pinned.size:
                raise WeightsError(f"{path}: {size} bytes where its card says {pinned.size}; fetch or reinstall it")
            found = digest(file)
            if found != pinned.sha256:
                raise WeightsError(f"{path}: changed: sha256 {found} where its card says {pinned.sha256}; reinstall it")
        header = _header(file, path)
        mapped = Mapped(file, path, header)
    tensors = {name: _view(mapped.mapping, slot) for name, slot in header.slots.items()}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
            raise WeightsError(f"{path}: {name}: a truth value must be 0 or 1")
    return Tensors(tensors, header.metadata, {name: (mapped, slot) for name, slot in header.slots.items()})


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Asset:
    """Write tensors whole or not at all; returns the file's pin, with its bare name.

    The same tensors and metadata give the same bytes, and most tensors begin at a round address. (The format's own
    library writes metadata in an order that differs from one process to the next.)
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    # Whatever is a multiple of 64 bytes goes first, so that its neighbours stay aligned.
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT > 0, -tensors[name].itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(sorted((metadata or {}).items()))} if metadata else {}
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in names:
            raise WeightsError(f"{path}: {name}: {tensor.dtype} cannot be written")
        place = [end, end := end + tensor.nbytes]
        entries[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    head = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-(8 + len(head)) % ALIGNMENT)
    with whole_file(path) as part:
        with open(part, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name in order:
                flat = tensors[name].detach().cpu().contiguous().flatten()
                if len(flat):
                    file.write(flat.view(torch.uint8).numpy().data)
        _header_of(part, path)
    return Asset(file=path.name, sha256=sha256_of(path), size=path.stat().st_size)


def _header_of(part: Path, path: Path) -> None:
    """What is written must be read: names and extents are checked before the file takes its place."""
    try:
        read_header(part)
    except WeightsError as error:
        raise WeightsError(str(error).replace(str(part), str(path))) from None


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds neither NaN nor infinity; makes no copy of its size."""
    if not tensor.numel():
        return True
    if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return all(bool(part.float().isfinite().all()) for part in torch.split(tensor.flatten(), 1 << 20))
    low, high = torch.aminmax(tensor)
    return bool(low.isfinite()) and bool(high.isfinite())


def _address(mapping: mmap.mmap) -> int:
    return torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr()


def _view(mapping: mmap.mmap, slot: Slot) -> Tensor:
    if slot.begin == slot.end:
        return torch.empty(slot.shape, dtype=slot.dtype)
    size = slot.dtype.itemsize
    if slot.begin % size:  # files of old writers: a view would not be aligned
        return torch.frombuffer(bytearray(mapping[slot.begin : slot.end]), dtype=slot.dtype).view(slot.shape)
    count = (slot.end - slot.begin) // size
    return torch.frombuffer(mapping, dtype=slot.dtype, count=count, offset=slot.begin).view(slot.shape)


def _header(file: BinaryIO, path: Path) -> Header:
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8:
        raise WeightsError(f"{path}: cut short: {size} bytes, and the smallest safetensors file has 10; fetch it again")
    if length > MAX_HEADER:
        raise WeightsError(f"{path}: not a safetensors file: its header would have {length} bytes")
    if length > size - 8:
        raise WeightsError(f"{path}: cut short: {size} bytes, and its header alone needs {8 + length}; fetch it again")
    raw = file.read(length)
    entries = _parse(raw, path)
    metadata = _metadata(entries.pop("__metadata__", {}), path)
    if len(entries) > MAX_TENSORS:
        raise WeightsError(f"{path}: {len(entries)} tensors; at most {MAX_TENSORS} are read")
    slots = {name: _slot(name, entry, 8 + length, path) for name, entry in entries.items()}
    here = 8 + length
    for name, slot in sorted(slots.items(), key=lambda item: (item[1].begin, item[1].end)):
        if slot.begin != here:
            raise WeightsError(f"{path}: tensor {name!r} begins at byte {slot.begin}, where {here} is free")
        here = slot.end
    if size != here:
        what = "cut short" if size < here else "too long"
        raise WeightsError(f"{path}: {what}: {size} bytes where its header says {here}; fetch it again")
    return Header(slots, metadata, here)


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise WeightsError(f"{path}: {twice[:80]!r} stands in its header twice")
        return out

    def refuse(word: str) -> None:
        raise ValueError(word)

    # The format's own reader wants the brace first.
    if raw[:1] != b"{":
        raise WeightsError(f"{path}: not a safetensors file: its header is not a JSON mapping")
    try:
        entries: dict[str, Any] = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise WeightsError(f"{path}: not a safetensors file: its header is not JSON") from None
    return entries


def _metadata(given: Any, path: Path) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise WeightsError(f"{path}: its metadata is not a mapping of text to text")
    return given


def _slot(name: str, entry: Any, start: int, path: Path) -> Slot:
    def wrong(what: str) -> WeightsError:
        return WeightsError(f"{path}: tensor {name[:80]!r}: {what}")

    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise wrong("a name is 1 to 500 printable characters")
    if name.startswith("/") or (".." in name and ".." in name.replace("\\", "/").split("/")):
        raise wrong("a name must not look like a path that leaves its folder")
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise wrong("its entry must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise wrong(f"dtype {str(dtype)[:40]!r} is not read; known: {', '.join(DTYPES)}")
    for what, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or [n for n in value if type(n) is not int or not 0 <= n <= MAX_EXTENT]:
            raise wrong(f"{what} must be a list of whole numbers from 0 to 2^40")
    if len(shape) > MAX_RANK or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"shape has at most {MAX_RANK} numbers, and data_offsets are [begin, end]")
    extent = math.prod(shape)
    # The strides of a tensor without elements are worked out all the same.
    if (extent or math.prod(n or 1 for n in shape)) > MAX_EXTENT:
        raise wrong(f"shape {shape} is beyond any memory")
    if extent * DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
        raise wrong(
            f"shape {shape} of {dtype} needs {extent * DTYPES[dtype].itemsize} bytes, not {offsets[1] - offsets[0]}"
        )
    return Slot(DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])
