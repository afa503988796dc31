"""genzoo: a zoo of generative image models behind one interface, with one honest measurement.

Importing this package does not import torch; the names below that need it import it at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genzoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from genzoo.cards import Card as Card
    from genzoo.data import Dataset as Dataset
    from genzoo.data import Images as Images
    from genzoo.denoiser import Denoiser as Denoiser
    from genzoo.editing import Editor as Editor
    from genzoo.errors import GenzooError as GenzooError
    from genzoo.formats import Format as Format
    from genzoo.frozen import Frozen as Frozen
    from genzoo.generator import Generator as Generator
    from genzoo.guidance import Guidance as Guidance
    from genzoo.metric import Estimate as Estimate
    from genzoo.metric import Extractor as Extractor
    from genzoo.metric import Metric as Metric
    from genzoo.noise import Noise as Noise
    from genzoo.options import Options as Options
    from genzoo.recipe import Recipe as Recipe
    from genzoo.registry import Zoo as Zoo
    from genzoo.schedule import NoiseSchedule as NoiseSchedule
    from genzoo.scheduler import Scheduler as Scheduler

__version__ = "0.1.0"

_HOMES = {
    "Card": "cards",
    "Dataset": "data",
    "Images": "data",
    "Denoiser": "denoiser",
    "Editor": "editing",
    "Estimate": "metric",
    "Format": "formats",
    "Extractor": "metric",
    "Frozen": "frozen",
    "Generator": "generator",
    "GenzooError": "errors",
    "Guidance": "guidance",
    "Metric": "metric",
    "Noise": "noise",
    "NoiseSchedule": "schedule",
    "Options": "options",
    "Recipe": "recipe",
    "Scheduler": "scheduler",
    "Zoo": "registry",
}

__all__ = [
    "Card",
    "Dataset",
    "Denoiser",
    "Editor",
    "Estimate",
    "Extractor",
    "Format",
    "Frozen",
    "Generator",
    "GenzooError",
    "Guidance",
    "Images",
    "Metric",
    "Noise",
    "NoiseSchedule",
    "Options",
    "Recipe",
    "Scheduler",
    "Zoo",
    "hookimpl",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"genzoo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def load(
    name: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    allow_nonfinite: bool = False,
) -> Generator:
    """The model of that name, with verified weights, in evaluation mode; see ``Zoo.load``."""
    from genzoo.registry import default_zoo

    return default_zoo().load(
        name,
        device=device,
        dtype=dtype,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        allow_nonfinite=allow_nonfinite,
    )


def list_models(pattern: str = "*") -> list[str]:
    """Names of the catalogue's models that match a glob, sorted."""
    from genzoo.registry import default_zoo

    return [card.name for card in default_zoo().cards(pattern)]
