"""Manifests: what a folder of samples is to hold and holds, and on what its bytes depend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from genzoo import cards
from genzoo.cards import Asset, Line, Sha256
from genzoo.errors import GenzooError, explain, quoted
from genzoo.files import open_regular, write_whole
from genzoo.frozen import Frozen, Version
from genzoo.noise import SEED_LIMIT
from genzoo.record import Environment

MOST_IMAGES = 10_000_000
MAX_MANIFEST = 4 << 30

Count = Annotated[int, Field(ge=1, le=MOST_IMAGES)]


class Settings(Frozen):
    """What the bytes of every file depend on, beside the machine.

    Attributes:
        model: the card's name, or the name that it was loaded by.
        weights: sha256 of the file that the card pins; without one, of the tensors as they were loaded.
        config: the generator's architecture.
        options: of the generator, defaults filled in.
        labels: taken in turn; empty where each seed draws its own class.
        seed, count: the images are those of the seeds from ``seed`` on.
        shard: images a shard.
        batch: images per network call; a short one is padded, so that pixels do not depend on where a shard ends.
        format: how a shard lies on disk.
        dtype, device: of the network's numbers, and where they are.
    """

    model: Line
    weights: Sha256
    config: cards.Settings
    options: cards.Settings
    labels: tuple[Line, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    count: Count
    shard: Annotated[int, Field(ge=1, le=100_000)] = 1000
    batch: Annotated[int, Field(ge=1, le=65536)] = 64
    format: Literal["safetensors", "png"] = "safetensors"
    dtype: Line = "float32"
    device: Line = "cpu"


class Manifest(Frozen):
    """What a folder of samples holds.

    Attributes:
        version: of this schema.
        settings: what was asked for.
        environment: the machine and its software: elsewhere, or with other threads, pixels may differ by rounding.
        count: the images there are: none until all of them are.
        files: every file, pinned; empty until all are there.
    """

    version: Version = 1
    settings: Settings
    environment: Environment
    count: Annotated[int, Field(ge=0, le=MOST_IMAGES)] = 0
    files: tuple[Asset, ...] = ()


def read_manifest(path: Path) -> Manifest:
    """A manifest; raises GenzooError that says what is wrong with it."""
    with open_regular(path) as file:
        raw = file.read(MAX_MANIFEST + 1)
    if len(raw) > MAX_MANIFEST:
        raise GenzooError(f"{path}: more than {MAX_MANIFEST} bytes; not a manifest of samples")
    try:
        return Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise GenzooError(explain(error, f"{path} cannot be read as a manifest of samples")) from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all."""
    write_whole(path, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def differences(begun: Manifest, wanted: Manifest) -> list[str]:
    """In words, what of that on which the bytes depend is not the same."""
    there, here = _on_which_bytes_depend(begun), _on_which_bytes_depend(wanted)
    return [
        f"{key} {quoted(there.get(key))} there, {quoted(here.get(key))} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def _on_which_bytes_depend(manifest: Manifest) -> dict[str, Any]:
    settings = manifest.settings.model_dump(mode="json")
    options = {f"option {key}": value for key, value in settings.pop("options").items()}
    environment = manifest.environment
    machine = environment.model_dump(include={"device", "processor", "threads", "platform"})
    versions = {f"version of {name}": environment.versions.get(name) for name in ("genzoo", "torch")}
    return {**settings, **options, **machine, **versions}
