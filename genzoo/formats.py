"""Formats: layouts of weights found in the wild, each read into a card and tensors."""

from __future__ import annotations

import json
import math
import os
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from genzoo.cards import Card
from genzoo.errors import CardError, WeightsError, explain, shorten
from genzoo.files import open_regular
from genzoo.header import Header, Slot, read_header
from genzoo.plugins import PluginError
from genzoo.tensors import Tensors, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from genzoo.registry import Zoo

#: The most bytes of a JSON or text file that are read.
MAX_TEXT = 4 << 20

#: The most files of a folder that are looked at.
MAX_FILES = 10_000

#: Suffixes of files that hold pickles.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".onnx")


class FormatError(WeightsError):
    """A folder of no known layout, or of a known one with something that is not supported; the message names it."""


class Files(ABC):
    """The files of one model, wherever they are; each is fetched and checked when it is asked for.

    Attributes:
        source: how they are named in messages, as ``hf:google/ddpm-cifar10-32``.
        title: a short name, as ``ddpm-cifar10-32``.
        names: what there is: relative paths with ``/``, sorted.
    """

    source: str
    title: str
    names: tuple[str, ...]

    @abstractmethod
    def path(self, name: str) -> Path:
        """A local file with the content of ``name``, checked as far as its origin allows."""

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def text(self, name: str) -> str:
        """The content of a text file."""
        with open_regular(self.path(name), WeightsError) as file:
            raw = file.read(MAX_TEXT + 1)
        if len(raw) > MAX_TEXT:
            raise CardError(f"{self.source}: {name}: more than {MAX_TEXT} bytes; that is no settings file")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CardError(f"{self.source}: {name}: not UTF-8 text (byte {error.start})") from None

    def json(self, name: str, *, infinite: bool = False) -> dict[str, Any]:
        """A JSON file that holds a mapping: plain data, no key twice, no NaN, and infinity only where it may be."""
        return parse_json(self.text(name), f"{self.source}: {name}", infinite=infinite)

    def header(self, name: str) -> Header:
        """What the head of a safetensors file says."""
        return read_header(self.path(name))

    def tensors(self, name: str) -> Tensors:
        """The tensors of a safetensors file."""
        return read(self.path(name))


class LocalFiles(Files):
    """A folder on this machine, or one file of it."""

    def __init__(self, path: Path) -> None:
        self.source, folder = str(path), path
        if path.is_dir():
            self.names = tuple(sorted(_walk(path)))
        elif path.is_symlink() or path.exists():
            folder, self.names = path.parent, (path.name,)
        else:
            raise WeightsError(f"{path}: no such file or folder; name a model as family.tag, a path, or hf:owner/repo")
        self.folder = folder
        self.title = path.resolve().name.removesuffix(".safetensors")

    def path(self, name: str) -> Path:
        path = self.folder / name
        real = path.resolve()
        if not any(real.is_relative_to(home) for home in self._homes):
            raise WeightsError(f"{path}: a link that leaves {self.folder}; put the file itself there")
        return path

    @cached_property
    def _homes(self) -> tuple[Path, ...]:
        """The folders that real paths must stay in.

        In a Hub cache a snapshot's files are links to its neighbours, or into the store that all repositories share.
        """
        folder = self.folder.resolve()
        for parent in (folder, *folder.parents):
            if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
                repository = parent.parent.parent
                return repository, repository.parent / "blobs"
        return (folder,)


class Format(ABC):
    """A layout of weights found in the wild. Subclasses are made without arguments and keep nothing.

    Attributes:
        library: what the Hub calls the library that the layout is of.
        keeps_options: whether the card's options (steps, scheduler) are written with the model.
    """

    library: ClassVar[str] = "genzoo"
    keeps_options: ClassVar[bool] = True

    @abstractmethod
    def detect(self, files: Files) -> str | None:
        """None where the files are laid out so; else, in a few words, what is missing.

        Reads small files only, and never raises for files of another layout.
        """

    @abstractmethod
    def read(self, files: Files) -> tuple[Card, Tensors]:
        """The card that describes the model, and its tensors under the generator's own names.

        Raises FormatError that names what is not supported.
        """

    def write(self, card: Card, tensors: Mapping[str, Tensor], folder: Path, zoo: Zoo) -> None:
        """Write a model in this layout, so that ``read`` and the layout's own library load it.

        What the card names, as a scheduler, is looked up in the zoo.

        Raises FormatError where the layout cannot hold the model, or is only read.
        """
        raise FormatError("this layout is read, and not written; genzoo and diffusers are written")

    def example(self, card: Card, name: str, zoo: Zoo) -> str:
        """Python by which the layout's own library makes the same pixels of a model that ``write`` took with that zoo.

        ``name`` is the folder, or the repository on the Hub. "" where the library is genzoo, or cannot be asked for
        them.
        """
        return ""


class BareFormat(Format):
    """A layout of one safetensors file that comes without settings: names and shapes say it all."""

    def detect(self, files: Files) -> str | None:
        try:
            return self.lacks(files.header(bare_checkpoint(files)).slots)
        except WeightsError as error:
            return str(error)

    @abstractmethod
    def lacks(self, slots: Mapping[str, Slot]) -> str | None:
        """None where the tensors are laid out so; else, in a few words, what is missing."""


def recognise(zoo: Zoo, files: Files) -> tuple[Card, Tensors]:
    """The model in ``files``, by the first registered format that fits; FormatError says what each one missed."""
    missed = []
    for kind, name in zoo.entries:
        if kind != "format":
            continue
        try:
            form: Format = zoo.find("format", name)()
        except PluginError as error:
            missed.append(f"{name}: {error}")
            continue
        lacks = form.detect(files)
        if lacks is None:
            try:
                return form.read(files)
            except ValidationError as error:
                raise FormatError(explain(error, f"{files.source}: its card")) from None
        missed.append(f"{name}: {lacks}")
    pickles = [name for name in files.names if name.endswith(PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in files.names):
        raise FormatError(
            f"{files.source}: {pickles[0]} holds a pickle, which can run code; make a safe copy with "
            f"genzoo convert {pickles[0]} OUT.safetensors and load that"
        )
    raise FormatError(
        f"{files.source}: of no known layout; tried {'; '.join(missed) or 'none: no format is installed'}"
    )


def bare_checkpoint(files: Files) -> str:
    """The one safetensors file of a model that comes without settings; FormatError where there is none.

    A folder with settings is of a layout that reads those: its weights, perhaps gigabytes, are not fetched to find out.
    """
    found = [name for name in files.names if name.endswith(".safetensors")]
    settings = [name for name in files.names if name.endswith(".json")]
    if len(found) != 1 or settings:
        raise FormatError(f"{settings[0]} beside it" if len(found) == 1 else f"{len(found)} safetensors files, not one")
    return found[0]


def parse_json(text: str, source: str, *, infinite: bool = False) -> dict[str, Any]:
    """A JSON mapping; raises CardError that names source and line. ``infinite`` lets infinity stand."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in pairs:
            if key in out:
                raise CardError(f"{source}: key {key[:80]!r} stands there twice")
            out[key] = value
        return out

    def constant(word: str) -> float:
        if infinite and word != "NaN":
            return float(word)
        raise CardError(f"{source}: {word} is no number that can be used")

    def real(word: str) -> float:
        number = float(word)
        if math.isinf(number):
            raise CardError(f"{source}: {shorten(word, 40)} is beyond the range of numbers")
        return number

    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_float=real)
    except json.JSONDecodeError as error:
        raise CardError(f"{source}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise CardError(f"{source}: not readable: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise CardError(f"{source}: a mapping is expected, not {type(found).__name__}")
    return found


def card_of(files: Files, generator: str, what: str, **known: Any) -> Card:
    """The card of a model that was found in ``files``.

    Args:
        generator: the registered family.
        what: the model in a few words, as "A DCGAN".
        known: the card's further fields: shape, config and paper, and options where it has any.
    """
    return Card(
        name=card_name(generator, files.title),
        summary=shorten(f"{what}, from {files.source}", 400),
        generator=generator,
        licence=licence(files),
        **known,
    )


def card_name(family: str, title: str) -> str:
    """A card's name for a model found under ``title``."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
    return f"{family}.{slug or 'model'}"


def licence(files: Files) -> str:
    """The licence in the front matter of a README.md, or ``unknown``."""
    if "README.md" not in files:
        return "unknown"
    try:
        text = files.text("README.md")
    except (CardError, WeightsError):
        return "unknown"
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    pattern = r"^license:[ \t]*[\"']?([A-Za-z0-9 .+_-]{1,60}?)[\"']?[ \t]*$"
    found = re.search(pattern, front.group(1), re.MULTILINE) if front else None
    return found.group(1) if found else "unknown"


def _walk(folder: Path) -> list[str]:
    """Relative names of the files in a folder and two levels below it; hidden ones are passed over."""
    found: list[str] = []
    for here, folders, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < 2 else []
        found += [(Path(here) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
        if len(found) > MAX_FILES:
            break
    return found[:MAX_FILES]
