"""The head of a safetensors file: which tensors it holds and where, checked to the last byte.

It is read here and not by the format's own library, which lets a key stand twice (the last wins), unprintable names
and shapes beyond any memory. Whatever passes here, it reads alike.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import torch

from genzoo.errors import WeightsError
from genzoo.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file; raises WeightsError that says what is wrong with it."""
    with open_regular(path, WeightsError) as file:
        return header_of(file, path)


def header_of(file: BinaryIO, path: Path) -> Header:
    """The same of an open file, which is left at the end of its header; ``path`` is how it is named in messages."""
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
