"""Files of tensors: safetensors only, checked before they are used, mapped into memory and not copied."""

from __future__ import annotations

import json
import mmap
import os
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.cards import Asset
from genzoo.digests import State, digest, remembered
from genzoo.errors import WeightsError
from genzoo.files import open_regular, sha256_of, whole_file
from genzoo.header import DTYPES, Header, Slot, header_of, read_header
from genzoo.pages import give_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader
    from pathlib import Path

#: Where torch's own memory begins, in bytes.
ALIGNMENT = 64


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
        header = header_of(file, path)
        mapped = Mapped(file, path, header)
    tensors = {name: _view(mapped.mapping, slot) for name, slot in header.slots.items()}
    for name, tensor in tensors.items():
        # The format's own library takes any byte for one.
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
        _check_written(part, path)
    return Asset(file=path.name, sha256=sha256_of(path), size=path.stat().st_size)


def _check_written(part: Path, path: Path) -> None:
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
