"""Weights: safetensors only, and everything that is loaded is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from genzoo.cards import Asset, Card
from genzoo.documents import DocumentError
from genzoo.documents import load as load_document
from genzoo.errors import CardError, OptionError, WeightsError, explain
from genzoo.files import open_regular, sha256_of, whole_file

if TYPE_CHECKING:
    from genzoo.generator import Generator
    from genzoo.registry import Zoo

#: The largest number of parameters that a config may ask for: far above any model here, far below a machine's memory.
MAX_PARAMETERS = 8 * 10**9

CARD_FILE = "card.yaml"


def read(path: Path, pinned: Asset | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        path: the file.
        pinned: the size and sha256 that it must have.

    Raises WeightsError that says what is wrong and what to do.
    """
    if not path.exists():
        raise WeightsError(f"{path}: the weights are missing; reinstall the package that brings them")
    with open_regular(path, WeightsError) as file:
        raw = file.read()
    if pinned is not None:
        import hashlib

        if len(raw) != pinned.size:
            raise WeightsError(f"{path}: {len(raw)} bytes where its card says {pinned.size}; fetch or reinstall it")
        found = hashlib.sha256(raw).hexdigest()
        if found != pinned.sha256:
            raise WeightsError(f"{path}: changed: sha256 {found} where its card says {pinned.sha256}; reinstall it")
    _check_header(raw, path)
    try:
        return load_bytes(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not a safetensors file: {error}") from None


def _check_header(raw: bytes, path: Path) -> None:
    """What the format's own reader lets pass: a key twice (the last would win), unprintable names."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise WeightsError(f"{path}: cut short: {len(raw)} bytes, and its header alone needs {8 + length}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        doubled = {key for key in keys if keys.count(key) > 1} if len(set(keys)) != len(keys) else set()
        if doubled:
            raise WeightsError(f"{path}: {sorted(doubled)[0]!r} stands in its header twice")
        return dict(pairs)

    try:
        header = json.loads(raw[8 : 8 + length], object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise WeightsError(f"{path}: not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: not a safetensors file: its header is not a mapping")
    odd = [name for name in header if not name.isprintable() or not name]
    if odd:
        raise WeightsError(f"{path}: tensor name {odd[0]!r} is not printable")


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Asset:
    """Write tensors whole or not at all; returns the file's pin, with its bare name."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as part:
        save_file(plain, part, dict(metadata or {}))
    return Asset(file=path.name, sha256=sha256_of(path), size=path.stat().st_size)


def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, finite: bool = True) -> None:
    """Put tensors into a module, strictly: every name, shape and dtype must fit, or nothing changes.

    Args:
        module: parameters may be on the meta device.
        tensors: by the module's own names.
        source: how the file is named in messages.
        finite: refuse NaN and infinity.

    Raises WeightsError that lists all mismatches at once.
    """
    wanted = module.state_dict()
    wrong = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in tensors]
    for name, tensor in tensors.items():
        if name not in wanted:
            wrong.append(f"unexpected {name} {tuple(tensor.shape)}")
        elif tensor.shape != wanted[name].shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
        elif tensor.is_floating_point() != wanted[name].is_floating_point() or tensor.dtype == torch.float64:
            wrong.append(f"{name} is {tensor.dtype}, not {wanted[name].dtype}")
        elif finite and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise WeightsError(f"{source}: {len(wrong)} tensors do not fit the model: {shown}")
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    module.load_state_dict(cast, strict=True, assign=True)


def build(zoo: Zoo, card: Card, *, materialise: bool = True) -> Generator:
    """The card's generator: without weights on the meta device, or with fresh ones where ``materialise``.

    Raises CardError for a config that the generator refuses, or that asks for more than ``MAX_PARAMETERS``.
    """
    cls = zoo.find("generator", card.generator)
    try:
        config = cls.Config.model_validate_json(json.dumps(card.config), strict=True)
    except ValidationError as error:
        raise CardError(explain(error, f"config of {card.name}")) from None
    with torch.device("meta"):
        model: Generator = cls(config)
    count = sum(p.numel() for p in model.parameters())
    if count > MAX_PARAMETERS:
        raise CardError(f"config of {card.name} asks for {count:.3g} parameters; at most {MAX_PARAMETERS:.3g} are built")
    if materialise:
        model = cls(config)
    model.card, model.zoo = card, zoo
    if tuple(model.shape) != tuple(card.shape):
        raise CardError(f"card {card.name}: shape is {card.shape}, but its config makes images of {model.shape}")
    if card.classes and len(card.classes) != model.num_classes:
        raise CardError(f"card {card.name}: {len(card.classes)} classes, but its config has {model.num_classes}")
    return model


def find_card(zoo: Zoo, name: str) -> tuple[Card, Path]:
    """A card and the folder of its files, by a catalogue's name or by the path of a folder that training wrote."""
    if "/" in name or name in (".", ".."):
        folder = Path(name)
        try:
            return load_document(folder / CARD_FILE).read(Card), folder
        except DocumentError as error:
            raise CardError(str(error)) from None
    return zoo.card(name), zoo.root(name)


def load_generator(
    zoo: Zoo, name: str, *, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> Generator:
    """See ``Zoo.load``."""
    card, root = find_card(zoo, name)
    target, wanted = _device(device), _dtype(dtype)
    # Checked on the meta device first, so that a card that asks for too much, or for another shape, costs nothing.
    build(zoo, card, materialise=False)
    model = build(zoo, card)
    if card.weights is not None:
        path = root / card.weights.file
        assign(model, read(path, card.weights), str(path))
    return model.to(device=target, dtype=wanted).eval().requires_grad_(False)


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
