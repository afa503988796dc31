"""genzoo: a zoo of generative image models behind one interface, with one honest measurement.

Importing this package does not import torch; the names below that need it import it at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genzoo.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from genzoo.cards import Card
    from genzoo.data import Dataset, Images
    from genzoo.denoiser import Denoiser
    from genzoo.errors import GenzooError
    from genzoo.generator import Generator, Options
    from genzoo.guidance import Guidance
    from genzoo.metric import Estimate, Extractor, Metric
    from genzoo.noise import Noise
    from genzoo.recipe import Recipe
    from genzoo.registry import Zoo
    from genzoo.schedule import NoiseSchedule
    from genzoo.scheduler import Scheduler

__version__ = "0.1.0"

_HOMES = {
    "Card": "cards",
    "Dataset": "data",
    "Images": "data",
    "Denoiser": "denoiser",
    "Estimate": "metric",
    "Extractor": "metric",
    "Frozen": "frozen",
    "Generator": "generator",
    "GenzooError": "errors",
    "Guidance": "guidance",
    "Metric": "metric",
    "Noise": "noise",
    "NoiseSchedule": "schedule",
    "Options": "generator",
    "Recipe": "recipe",
    "Scheduler": "scheduler",
    "Zoo": "registry",
}

__all__ = [*sorted(_HOMES), "hookimpl", "list_models", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"genzoo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def load(name: str, *, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None) -> Generator:
    """The model of that name, with verified weights, in evaluation mode; see ``Zoo.load``."""
    from genzoo.registry import default_zoo

    return default_zoo().load(name, device=device, dtype=dtype)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the catalogue's models that match a glob, sorted."""
    from genzoo.registry import default_zoo

    return [card.name for card in default_zoo().cards(pattern)]
