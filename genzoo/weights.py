"""Weights into models: everything that is loaded is checked before it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from genzoo.cards import Card
from genzoo.documents import DocumentError
from genzoo.documents import load as load_document
from genzoo.errors import CardError, OptionError, UnknownName, WeightsError, explain, shorten
from genzoo.formats import Files, LocalFiles, recognise
from genzoo.hollow import Hollow, unfilled
from genzoo.layout import laid_out, lay_out_later, lies_well
from genzoo.sources import find_source
from genzoo.state import State, layers
from genzoo.tensors import Tensors, is_finite, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genzoo.generator import Generator
    from genzoo.registry import Zoo

__all__ = ["CARD_FILE", "MAX_PARAMETERS", "assign", "build", "find_card", "load_generator", "read", "write"]

# Whoever imports torch here is about to read a card.
Card.model_rebuild()

#: The largest number of parameters that a config may ask for: far above any model here, far below a machine's memory.
MAX_PARAMETERS = 8 * 10**9

#: The most numbers that an image may have.
MAX_PIXELS = 1 << 28

CARD_FILE = "card.yaml"

NONFINITE = "NaN or infinity"

#: The types among which a network's numbers may be converted: what one cannot hold is found after the conversion.
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_WIDE = (*_NARROW, torch.float64)


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, finite: bool = True, trainable: bool | None = None
) -> None:
    """Put tensors into a module, strictly: every name, shape and dtype must fit, or nothing changes.

    The tensors themselves become the parameters where the dtype fits; those that are mapped from a file (``Tensors``)
    are then read when they are first used, and laid out for the kernels before the first call.

    Args:
        module: parameters may be on the meta device.
        tensors: by the module's own names.
        source: how the file is named in messages.
        finite: refuse NaN and infinity.
        trainable: whether the parameters take part in training; None leaves that as it is.

    Raises WeightsError that lists all mismatches at once.
    """
    state = State(module)
    wanted = state.tensors
    wrong = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in tensors]
    fits = {}
    for name, tensor in tensors.items():
        if (like := wanted.get(name)) is None:
            wrong.append(f"unexpected {name} {tuple(tensor.shape)}")
        elif tensor.shape != like.shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, not {tuple(like.shape)}")
        elif tensor.dtype != like.dtype and not (tensor.dtype in _NARROW and like.dtype in _WIDE):
            wrong.append(f"{name} is {tensor.dtype}, not {like.dtype}")
        else:
            fits[name] = like
    mapped = tensors if isinstance(tensors, Tensors) else None
    fitted, later = {}, {}
    for name, like in fits.items():
        made = tensor = tensors[name]
        strides = like.stride()
        # One tensor after the other, and its pages given back: never two copies of all of them at a time.
        if tensor.dtype != like.dtype and not wrong:
            made = laid_out(tensor, strides, like.dtype)
        elif not lies_well(tensor, strides):
            later[name] = strides
        known = mapped is not None and made is tensor and mapped.finite(name)
        if finite and tensor.is_floating_point() and not known and not is_finite(made):
            beyond = f"numbers beyond the range of {like.dtype}"
            wrong.append(f"{name} holds {beyond if is_finite(tensor) else NONFINITE}")
        if mapped is not None and made is not tensor:
            mapped.release(name)
        fitted[name] = made
    _refuse(wrong, source)
    state.replace(fitted, trainable)
    lay_out_later(state, later, mapped)


def floating(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the first tensor that holds floats a network can be in; float32 where there is none."""
    return next((tensor.dtype for tensor in tensors.values() if tensor.dtype in _WIDE), torch.float32)


def _refuse(wrong: list[str], source: str) -> None:
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        way = "; genzoo.load(..., allow_nonfinite=True) takes them" if all(w.endswith(NONFINITE) for w in wrong) else ""
        raise WeightsError(f"{source}: {len(wrong)} tensors do not fit the model: {shown}{way}")


def build(zoo: Zoo, card: Card, *, materialise: bool = True, dtype: torch.dtype = torch.float32) -> Generator:
    """The card's generator: with fresh weights where ``materialise``, else with parameters on the meta device.

    Raises CardError for a config that the generator refuses, or that asks for more than ``MAX_PARAMETERS``.
    """
    model = _hollow(zoo, card)
    if materialise or unfilled(model):
        model = type(model)(model.config)
    model.card, model.zoo = card, zoo
    return model if model.dtype == dtype else model.to(dtype)


def _hollow(zoo: Zoo, card: Card) -> Generator:
    """The card's generator without memory: what asks for too much, or for other images, is refused for nothing."""
    what = f"config of {card.name}"
    try:
        cls = zoo.find("generator", card.generator)
    except UnknownName as error:
        raise CardError(f"card {card.name}: {error}; where another package brings it, install that") from None
    try:
        config = cls.Config.model_validate_json(json.dumps(card.config), strict=True)
    except ValidationError as error:
        raise CardError(explain(error, what, cls.Config)) from None
    with Hollow(MAX_PARAMETERS, what):
        model: Generator = cls(config)
    _check_images(card, model)
    return model


def _check_images(card: Card, model: Generator) -> None:
    if tuple(model.shape) != tuple(card.shape):
        raise CardError(f"card {card.name}: shape is {card.shape}, but its config makes images of {model.shape}")
    channels, height, width = model.shape
    if channels * height * width > MAX_PIXELS:
        raise CardError(f"card {card.name}: images of {model.shape} are beyond the {MAX_PIXELS} numbers that are made")
    if card.classes and len(card.classes) != model.num_classes:
        raise CardError(f"card {card.name}: {len(card.classes)} classes, but its config has {model.num_classes}")


def is_path(zoo: Zoo, name: str) -> bool:
    """Whether a model's name is a path, and not a name of the catalogue or of the Hub."""
    if name.startswith("hf:") or find_source(zoo, name) is not None:
        return False
    # No name of the catalogue has a slash: what has one is a path without reading it.
    if "/" in name or os.sep in name:
        return True
    return name not in zoo.shelf and (name in (".", "..") or os.path.exists(name))


def find_card(zoo: Zoo, name: str, **hub: Any) -> tuple[Card, Path]:
    """A card and the folder of its files, by a catalogue's name, a path, or a repository on the Hub.

    ``hub`` are the keyword arguments of ``genzoo.hub.pull``.
    """
    if (elsewhere := find_source(zoo, name)) is not None:
        source, rest = elsewhere
        return source.card(rest, **hub), Path()
    if not name.startswith("hf:"):
        _refuse_hub_options(name, **hub)
    if is_path(zoo, name) and (Path(name) / CARD_FILE).exists():
        return _read_card(Path(name)), Path(name)
    if name.startswith("hf:") or is_path(zoo, name):
        files = _files(name, **hub)
        return recognise(zoo, files)[0], files.path(files.names[0]).parent
    return zoo.card(name), zoo.root(name)


def find_weights(zoo: Zoo, name: str, **hub: Any) -> tuple[Card, Tensors | None, str]:
    """A card, the tensors that belong to it (None where it has none), and how their file is named in messages."""
    if name.startswith("hf:") or (is_path(zoo, name) and not (Path(name) / CARD_FILE).exists()):
        files = _files(name, **hub)
        card, tensors = recognise(zoo, files)
        return card, tensors, files.source
    card, root = find_card(zoo, name, **hub)
    if card.weights is None:
        return card, None, name
    path = inside(root, card.weights.file)
    return card, read(path, card.weights), str(path)


def _files(name: str, **hub: Any) -> Files:
    if name.startswith("hf:"):
        from genzoo.hub import pull

        return pull(name, **hub)
    _refuse_hub_options(name, **hub)
    return LocalFiles(Path(name))


def _refuse_hub_options(name: str, **hub: Any) -> None:
    """A revision or token that would be passed over in silence is an error."""
    for option in ("revision", "token"):
        if hub.get(option) is not None:
            raise OptionError(
                f"{name}: {option} is for models on the Hub, named hf:owner/repo, and this is none; leave {option} out"
            )


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
    target, wanted = usable_device(device), _dtype(dtype)
    if (elsewhere := find_source(zoo, name)) is not None:
        builder, rest = elsewhere
        return builder.load(rest, device=target, dtype=wanted, **hub)
    card, tensors, source = find_weights(zoo, name, **hub)
    if tensors is None:
        # A plugin may offer an untrained model by a name of its own; a folder that lost its weights looks like a
        # trained one, and would answer with noise.
        if is_path(zoo, name) and State(_hollow(zoo, card)).tensors:
            raise WeightsError(f"{source}: {CARD_FILE} names no weights; add weights: with file, size and sha256 to it")
        return _ready(build(zoo, card, dtype=wanted).requires_grad_(False), target)
    model = build(zoo, card, materialise=False, dtype=wanted)
    assign(model, tensors, source, finite=not allow_nonfinite, trainable=False)
    return _ready(model, target)


def _ready(model: Generator, device: torch.device) -> Generator:
    # A model that is there already is not walked through in vain.
    placed = model if model.device == device else model.to(device=device)
    if type(placed).eval is not nn.Module.eval:
        return placed.eval()
    for layer in layers(placed):
        # As eval() does, which asks of each layer whether the attribute is a weight of its.
        if type(layer).train is nn.Module.train:
            vars(layer)["training"] = False
        else:
            layer.train(False)
    return placed


def inside(root: Path, name: str) -> Path:
    """A file in a folder; one that is really somewhere else, by a link, is refused."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise WeightsError(f"{path}: a link that leaves {root}; put the file itself there")
    return path


def usable_device(device: torch.device | str | None) -> torch.device:
    """A device that is there, the CPU for None; raises OptionError."""
    try:
        found = torch.device(device or "cpu")
        if found.type != "cpu":  # which is always there
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        # torch goes on to list all that could have been meant.
        told = shorten(str(error).splitlines()[0].partition(". ")[0], 160)
        raise OptionError(f"device {device!r} is not usable here: {told}; try cpu") from None
    return found


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
    names |= {"float16": torch.float16, "fp16": torch.float16, "float64": torch.float64}
    if dtype is not None and dtype not in names:
        raise OptionError(f"dtype {dtype!r} is unknown; known: {', '.join(names)}")
    return names[dtype or "float32"]
