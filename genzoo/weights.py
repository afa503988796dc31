"""Weights into models: everything that is loaded is checked before it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genzoo.cards import Card
from genzoo.documents import DocumentError
from genzoo.documents import load as load_document
from genzoo.errors import CardError, OptionError, WeightsError, explain
from genzoo.formats import Files, LocalFiles, recognise
from genzoo.tensors import ALIGNMENT, Tensors, is_finite, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genzoo.generator import Generator
    from genzoo.registry import Zoo

__all__ = ["CARD_FILE", "MAX_PARAMETERS", "assign", "build", "find_card", "load_generator", "read", "write"]

#: The largest number of parameters that a config may ask for: far above any model here, far below a machine's memory.
MAX_PARAMETERS = 8 * 10**9

#: The most numbers that an image may have.
MAX_PIXELS = 1 << 28

CARD_FILE = "card.yaml"

#: The types among which a network's numbers may be converted: what one cannot hold is found after the conversion.
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_WIDE = (*_NARROW, torch.float64)


class Hollow(TorchFunctionMode):
    """Modules that are made inside have parameters without memory, on the meta device, and real buffers.

    A parameter begins with ``torch.empty`` (or random numbers) and is filled in place, which costs nothing on the meta
    device; what is worked out from the config (tables, masks) begins with ``arange``, ``zeros`` and the like, and must
    be real, for no file holds it. Numbers are counted as they are asked for, so that a config that asks for too many is
    refused before any of them exists.
    """

    _UNFILLED = (torch.empty, torch.randn, torch.rand)
    _FILLED = (torch.zeros, torch.ones, torch.full, torch.eye)

    def __init__(self, most: int, what: str) -> None:
        super().__init__()
        self.most, self.what, self.count = most, what, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func not in self._UNFILLED and func not in self._FILLED:
            return func(*args, **given)
        planned = func(*args, **{key: value for key, value in given.items() if key != "generator"} | {"device": "meta"})
        self.count += planned.numel()
        if self.count > self.most:
            raise CardError(f"{self.what} asks for more than {self.most:.3g} numbers, which is the most that is built")
        wanted = given.get("device")
        if func in self._UNFILLED and (wanted is None or torch.device(wanted).type == "meta"):
            return planned
        return func(*args, **given)


def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, finite: bool = True) -> None:
    """Put tensors into a module, strictly: every name, shape and dtype must fit, or nothing changes.

    The tensors themselves become the parameters where dtype and memory format fit; those that are mapped from a file
    (``Tensors``) are then read when they are first used.

    Args:
        module: parameters may be on the meta device.
        tensors: by the module's own names.
        source: how the file is named in messages.
        finite: refuse NaN and infinity.

    Raises WeightsError that lists all mismatches at once.
    """
    wanted = module.state_dict()
    wrong = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in tensors]
    fits = []
    for name, tensor in tensors.items():
        if name not in wanted:
            wrong.append(f"unexpected {name} {tuple(tensor.shape)}")
        elif tensor.shape != wanted[name].shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
        elif tensor.dtype != wanted[name].dtype and not (tensor.dtype in _NARROW and wanted[name].dtype in _WIDE):
            wrong.append(f"{name} is {tensor.dtype}, not {wanted[name].dtype}")
        else:
            fits.append(name)
    fitted = {}
    for name in fits:
        # One tensor after the other, and its pages given back: never two copies of all of them at a time.
        tensor = tensors[name]
        made = tensor if wrong else _fitted(tensor, wanted[name])
        if finite and tensor.is_floating_point() and not is_finite(made):
            beyond = f"numbers beyond the range of {wanted[name].dtype}"
            wrong.append(f"{name} holds {beyond if is_finite(tensor) else 'NaN or infinity'}")
        if isinstance(tensors, Tensors) and made is not tensor:
            tensors.release(name)
        fitted[name] = made
    _refuse(wrong, source)
    module.load_state_dict(fitted, strict=True, assign=True)


def _refuse(wrong: list[str], source: str) -> None:
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise WeightsError(f"{source}: {len(wrong)} tensors do not fit the model: {shown}")


def _fitted(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the dtype and memory format of ``like``: itself where both are so already.

    A view of a file begins at any address, and kernels sum in another order where that is not a round one; so that the
    pixels depend on the weights alone, and not on the layout of the file, such a view is copied.
    """
    if tensor.dtype == like.dtype and tensor.stride() == like.stride() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    # Strides, because for kernels of one pixel the memory format alone is ambiguous.
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=tensor.device).copy_(tensor)


def build(zoo: Zoo, card: Card, *, materialise: bool = True, dtype: torch.dtype = torch.float32) -> Generator:
    """The card's generator: with fresh weights where ``materialise``, else with parameters on the meta device.

    Raises CardError for a config that the generator refuses, or that asks for more than ``MAX_PARAMETERS``.
    """
    cls = zoo.find("generator", card.generator)
    what = f"config of {card.name}"
    try:
        config = cls.Config.model_validate_json(json.dumps(card.config), strict=True)
    except ValidationError as error:
        raise CardError(explain(error, what, cls.Config)) from None
    # First without memory, whatever is wanted: what asks for too much, or for other images, is refused for nothing.
    with Hollow(MAX_PARAMETERS, what):
        model: Generator = cls(config)
    _check_images(card, model)
    if materialise or _unfilled(model):
        model = cls(config)
    model.card, model.zoo = card, zoo
    return model.to(dtype)


def _check_images(card: Card, model: Generator) -> None:
    if tuple(model.shape) != tuple(card.shape):
        raise CardError(f"card {card.name}: shape is {card.shape}, but its config makes images of {model.shape}")
    channels, height, width = model.shape
    if channels * height * width > MAX_PIXELS:
        raise CardError(f"card {card.name}: images of {model.shape} are beyond the {MAX_PIXELS} numbers that are made")
    if card.classes and len(card.classes) != model.num_classes:
        raise CardError(f"card {card.name}: {len(card.classes)} classes, but its config has {model.num_classes}")


def _unfilled(model: nn.Module) -> bool:
    """Whether a tensor that no file would fill has no memory: a buffer outside the state dict, or an attribute."""
    kept = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    loose = [buffer for buffer in model.buffers() if id(buffer) not in kept]
    loose += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return any(tensor.is_meta for tensor in loose)


def is_path(zoo: Zoo, name: str) -> bool:
    """Whether a model's name is a path, and not a name of the catalogue or of the Hub."""
    if name.startswith("hf:") or name in zoo.shelf:
        return False
    return "/" in name or os.sep in name or name in (".", "..") or Path(name).exists()


def find_card(zoo: Zoo, name: str, **hub: Any) -> tuple[Card, Path]:
    """A card and the folder of its files, by a catalogue's name, a path, or a repository on the Hub.

    ``hub`` are the keyword arguments of ``genzoo.hub.pull``.
    """
    if is_path(zoo, name) and (Path(name) / CARD_FILE).exists():
        return _read_card(Path(name)), Path(name)
    if name.startswith("hf:") or is_path(zoo, name):
        files = _files(zoo, name, **hub)
        return recognise(zoo, files)[0], files.path(files.names[0]).parent
    return zoo.card(name), zoo.root(name)


def find_weights(zoo: Zoo, name: str, **hub: Any) -> tuple[Card, Tensors | None, str]:
    """A card, the tensors that belong to it (None where it has none), and how their file is named in messages."""
    if name.startswith("hf:") or (is_path(zoo, name) and not (Path(name) / CARD_FILE).exists()):
        files = _files(zoo, name, **hub)
        card, tensors = recognise(zoo, files)
        return card, tensors, files.source
    card, root = find_card(zoo, name)
    if card.weights is None:
        return card, None, card.name
    path = inside(root, card.weights.file)
    return card, read(path, card.weights), str(path)


def _files(zoo: Zoo, name: str, **hub: Any) -> Files:
    if name.startswith("hf:"):
        from genzoo.hub import pull

        return pull(name, **hub)
    return LocalFiles(Path(name))


def _read_card(folder: Path) -> Card:
    try:
        return load_document(folder / CARD_FILE).read(Card)
    except DocumentError as error:
        raise CardError(str(error)) from None


def load_generator(
    zoo: Zoo,
    name: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    allow_nonfinite: bool = False,
    **hub: Any,
) -> Generator:
    """See ``Zoo.load``."""
    target, wanted = _device(device), _dtype(dtype)
    card, tensors, source = find_weights(zoo, name, **hub)
    if tensors is None:
        return _ready(build(zoo, card, dtype=wanted), target)
    model = build(zoo, card, materialise=False, dtype=wanted)
    assign(model, tensors, source, finite=not allow_nonfinite)
    return _ready(model, target)


def _ready(model: Generator, device: torch.device) -> Generator:
    return model.to(device=device).eval().requires_grad_(False)


def inside(root: Path, name: str) -> Path:
    """A file in a folder; one that is really somewhere else, by a link, is refused."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise WeightsError(f"{path}: a link that leaves {root}; put the file itself there")
    return path


def _device(device: torch.device | str | None) -> torch.device:
    try:
        found = torch.device(device or "cpu")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {device!r} is not usable here: {str(error).splitlines()[0]}; try cpu") from None
    return found


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
    names |= {"float16": torch.float16, "fp16": torch.float16, "float64": torch.float64}
    if dtype is not None and dtype not in names:
        raise OptionError(f"dtype {dtype!r} is unknown; known: {', '.join(names)}")
    return names[dtype or "float32"]
