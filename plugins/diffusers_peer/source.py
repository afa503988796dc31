"""Pipelines by a folder or a repository, as diffusers itself loads them: safetensors only, and no code but its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from genzoo.cards import Card
from genzoo.errors import GenzooError, WeightsError, cause
from genzoo.formats import Files, LocalFiles, card_name, licence
from genzoo.hub import HubFiles, pull
from genzoo.sources import Source
from genzoo_plugins.diffusers_peer.model import Pipeline, image_shape

INDEX = "model_index.json"

#: Libraries whose classes a pipeline's index may name.
TRUSTED = ("diffusers", "transformers")

PAPER = "https://github.com/huggingface/diffusers"


class Diffusers(Source):
    """``diffusers:FOLDER`` and ``diffusers:owner/repo``. A path begins with ``.`` or ``/``, or is a folder here."""

    def card(self, name: str, **hub: Any) -> Card:
        files = files_of(name, hub)
        index = checked_index(files)
        shape = image_shape(lambda part: settings_of(files, index, part))
        return Card(
            name=card_name("diffusers", files.title),
            summary=f"{index['_class_name']} of diffusers, as that library runs it",
            generator="diffusers-pipeline",
            shape=shape,
            licence=licence(files),
            paper=PAPER,
        )

    def load(self, name: str, *, device: torch.device, dtype: torch.dtype, **hub: Any) -> Pipeline:
        diffusers = library()
        diffusers.utils.logging.disable_progress_bar()
        card = self.card(name, **hub)  # checks the index, before diffusers reads it
        files, given = files_of(name, hub), {}
        if isinstance(files, HubFiles):
            # The commit whose index was checked, wherever the branch has gone since.
            given = {"revision": files.listing.commit, "cache_dir": files.access.cache}
            given |= {key: hub[key] for key in ("local_files_only", "token") if hub.get(key)}
        try:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False, low_cpu_mem_usage=False, **given
            )
        except Exception as error:  # diffusers raises OSError, ValueError, and whatever a component raises
            raise WeightsError(f"diffusers:{name}: diffusers cannot load it: {cause(error)}") from None
        model = Pipeline(pipeline)
        model.card = card
        return model.to(device, dtype).eval().requires_grad_(False)


def library() -> Any:
    """diffusers; raises GenzooError where it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise GenzooError(f"diffusers is not usable here: {error}; pip install 'genzoo[diffusers]'") from None
    return diffusers


def is_folder(name: str) -> bool:
    """Whether a name is a path here, and not a repository of the Hub."""
    return name.startswith((".", os.sep, "~")) or Path(name).is_dir()


def files_of(name: str, hub: dict[str, Any]) -> Files:
    """The files of a folder or a repository."""
    return LocalFiles(Path(name)) if is_folder(name) else pull(f"hf:{name}", **hub)


def checked_index(files: Files) -> dict[str, Any]:
    """The pipeline's index; raises WeightsError where it is none, or names code that is not diffusers' own."""
    if INDEX not in files:
        raise WeightsError(f"{files.source}: no {INDEX}, so it is no pipeline; without diffusers: it may still load")
    index = files.json(INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or not hasattr(library(), name):
        shown = json.dumps(name)[:80]
        raise WeightsError(f"{files.source}: {INDEX} names {shown}, which is no pipeline of diffusers; nothing is run")
    for part, where in index.items():
        if part.startswith("_") or not isinstance(where, list):
            continue
        if len(where) != 2 or where[0] not in (*TRUSTED, None) or (where[0] is None) != (where[1] is None):
            raise WeightsError(f"{files.source}: {INDEX}: {part} is not of {' or '.join(TRUSTED)}; nothing is run")
    return index


def settings_of(files: Files, index: dict[str, Any], part: str) -> dict[str, Any] | None:
    """The settings of a pipeline's part; None where it has none of that name."""
    if not isinstance(index.get(part), list) or f"{part}/config.json" not in files:
        return None
    return files.json(f"{part}/config.json")
