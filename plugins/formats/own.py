"""genzoo's own layout: one safetensors file and the card that describes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from genzoo.cards import Card
from genzoo.documents import DocumentError, load, parse
from genzoo.errors import CardError, explain, faults, is_newer, newer, quoted
from genzoo.files import write_whole
from genzoo.formats import Files, Format, FormatError, parse_json
from genzoo.registry import Zoo
from genzoo.tensors import Tensors, read, write

#: The version of the layout that is written and read.
VERSION = 1


class Own(Format):
    """``model.safetensors`` beside ``config.json`` (or ``card.yaml``), or one safetensors file that holds its card.

    ``config.json`` is ``{"library_name": "genzoo", "version": 1, "card": {...}}``; a file's metadata holds the card as
    JSON under ``genzoo.card``.
    """

    def detect(self, files: Files) -> str | None:
        if "card.yaml" in files:
            return None
        if "config.json" in files:
            try:
                found = files.json("config.json").get("library_name")
            except CardError as error:
                return str(error)
            return None if found == "genzoo" else "config.json is not genzoo's"
        if len(files.names) == 1 and files.names[0].endswith(".safetensors"):
            return None if "genzoo.card" in files.header(files.names[0]).metadata else "the file holds no genzoo.card"
        return "no config.json"

    def read(self, files: Files) -> tuple[Card, Tensors]:
        if "card.yaml" in files:
            card = load(files.path("card.yaml")).read(Card)
        elif "config.json" in files:
            found = files.json("config.json")
            version = found.get("version")
            if is_newer(version, VERSION):
                raise FormatError(f"{files.source}: config.json: version {newer(version, VERSION)}")
            if type(version) is not int or version != VERSION:
                given = quoted(version, 30)
                raise FormatError(f"{files.source}: config.json: version {given} is not read; {VERSION} is")
            card = _card(found.get("card"), f"{files.source}: config.json", files.text("config.json"), ("card",))
        else:
            tensors = files.tensors(files.names[0])
            where, text = f"{files.source}: genzoo.card", tensors.metadata["genzoo.card"]
            card = _card(parse_json(text, where), where, text)
            # A card cannot pin the file that it is in, and no other is meant.
            return card.model_copy(update={"weights": None}), tensors
        if card.weights is None:
            return card, Tensors()
        if card.weights.file not in files:
            raise FormatError(f"{files.source}: {card.weights.file} is missing; fetch the model again")
        return card, read(files.path(card.weights.file), card.weights)

    def write(self, card: Card, tensors: Mapping[str, Tensor], folder: Path, zoo: Zoo) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        words = {"format": "pt"}
        if tensors:
            # The card inside cannot pin the file that it is in.
            bare = card.model_copy(update={"weights": None})
            words["genzoo.card"] = json.dumps(_data(bare), sort_keys=True)
            card = card.model_copy(update={"weights": write(folder / "model.safetensors", tensors, words)})
        config = {"library_name": "genzoo", "version": VERSION, "card": _data(card)}
        write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _data(card: Card) -> Any:
    return card.model_dump(mode="json", exclude_defaults=True)


def _card(data: Any, where: str, text: str, path: tuple[str, ...] = ()) -> Card:
    """The card in JSON data; ``text`` is what it was read from, and ``path`` where in it."""
    try:
        return Card.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        line = ""
        # A second reader, which knows the line of every key: only there is something to tell. It takes less than JSON.
        with contextlib.suppress(DocumentError):
            line = f":{parse(text, where).line((*path, *faults(error)[0]['loc']))}"
        raise CardError(explain(error, f"{where}{line}: card", Card)) from None
