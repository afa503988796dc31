"""Cards: what the catalogue knows of a model. Light: never imports torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from genzoo.documents import Document, DocumentError, load
from genzoo.errors import CardError
from genzoo.frozen import Frozen, Seq, Size, Version
from genzoo.milestones import Milestone

#: One line of text without control characters and overrides of the reading direction: inert in a terminal.
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=400, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]*$"),
]
Name = Annotated[str, StringConstraints(max_length=80, pattern=r"^[a-z0-9][a-z0-9-]*$")]
CardName = Annotated[str, StringConstraints(max_length=120, pattern=r"^[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _inside(value: str) -> str:
    parts = value.split("/")
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,200}", value) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be a path inside the plugin's folder, of letters, digits and . _ - /")
    return value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them, which is how they travel; anything else could not be written to a file."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be plain data: {str(error).splitlines()[0]}") from None
    return plain


#: A path inside a folder.
Inside = Annotated[str, AfterValidator(_inside)]

#: Settings whose keys another class checks.
Settings = Annotated[dict[str, Any], AfterValidator(_plain)]


class Asset(Frozen):
    """A file that ships with a plugin, pinned.

    Attributes:
        file: its path inside the plugin's folder.
        sha256: of its bytes, checked whenever it is loaded.
        size: in bytes.
    """

    file: Inside
    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=1 << 44)]


class Training(Frozen):
    """How the weights came to be: enough to make them again.

    Attributes:
        recipe: the recipe's path inside the plugin's folder.
        seed, steps, batch: as the recipe says.
        images: training images seen, counted with repetition.
        minutes: wall-clock time of the run.
        hardware: what it ran on.
        versions: of what matters, as torch.
        curve: what was measured on the way, where anything was.
    """

    recipe: Inside
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    steps: Annotated[int, Field(ge=1, le=10**9)]
    batch: Size
    images: Annotated[int, Field(ge=1, le=10**12)]
    minutes: Annotated[float, Field(gt=0, le=1e7)]
    hardware: Line
    versions: Annotated[dict[Line, Line], Field(max_length=20)]
    curve: Seq[Milestone] = ()


class Measured(Frozen):
    """One published number: never without its n, interval, extractor and settings."""

    metric: Name
    value: Annotated[float, Field(ge=-1e12, le=1e12)]
    low: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    high: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    n: Annotated[int, Field(ge=1, le=10**9)]
    extractor: Line | None = None
    settings: Line
    command: Line


class Card(Frozen):
    """What the catalogue knows of one model.

    Attributes:
        name: ``family.tag``, as ``ddpm.fashion-mnist``.
        summary: one sentence.
        generator: the registered generator that the config and weights belong to.
        shape: (C, H, W) of an image.
        classes: names of the classes, in the order of their numbers; empty where it is unconditional.
        config: the generator's architecture, checked by its ``Config``.
        options: this model's defaults for the generator's ``Options``.
        weights: the safetensors file; absent for a model that needs none.
        data: the registered data set that it was trained on.
        guides: the card that this one exists to guide, being weaker: of the same shape and classes. What takes all
            models, as ``genzoo compare`` without names, leaves it out (see ``Zoo.contenders``).
        licence, paper: of the weights, and where the method was published.
        training, results: how it was made, and what it reaches.
    """

    name: CardName
    summary: Line
    generator: Name
    shape: Annotated[tuple[Size, Size, Size], Field(strict=False)]
    classes: Seq[Line] = ()
    config: Settings = Field(default_factory=dict)
    options: Settings = Field(default_factory=dict)
    weights: Asset | None = None
    data: Name | None = None
    guides: CardName | None = None
    licence: Line
    paper: Line
    training: Training | None = None
    results: Seq[Measured] = ()

    def check_guided(self, guided: Card) -> None:
        """Raises CardError where ``guided``, the card that this one is to guide, makes other images than this one."""
        if guided.name == self.name:
            raise CardError(f"{self.name} cannot guide itself; name a better model under guides, or leave it out")
        if self.shape != guided.shape or (self.classes and self.classes != guided.classes):
            raise CardError(f"{self.name} and {guided.name}, which it guides, are not of the same shape and classes")


class Catalogue(Frozen):
    """A file of cards."""

    version: Version
    cards: Seq[Card]


def catalogue_path() -> Path:
    """registry.yaml: inside an installed package, or at the top of a checkout."""
    home = Path(__file__).parent
    packaged = home / "registry.yaml"
    return packaged if packaged.exists() else home.parent / "registry.yaml"


def read_catalogue(path: Path) -> tuple[Card, ...]:
    """The cards of a registry.yaml; raises CardError that names file, line and key of whatever is wrong."""
    try:
        document = load(path)
        if not isinstance(document.data, dict):
            raise document.error((), "a catalogue is a mapping with the keys version and cards")
        cards = document.read(Catalogue).cards
        _refuse_doubles(document, cards)
    except DocumentError as error:
        raise CardError(str(error)) from None
    return cards


def _refuse_doubles(document: Document, cards: tuple[Card, ...]) -> None:
    seen: dict[str, int] = {}
    for i, card in enumerate(cards):
        if card.name in seen:
            first = document.line(("cards", seen[card.name], "name"))
            raise document.error(("cards", i, "name"), f"name: {card.name!r} is taken by the card in line {first}")
        seen[card.name] = i
