"""Sources: models under names of their own, as ``diffusers:PATH``, that another library builds and runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from genzoo.cards import Card
    from genzoo.generator import Generator
    from genzoo.registry import Zoo


class Source(ABC):
    """Where the names with a registered prefix lead. Subclasses are made without arguments and keep nothing."""

    @abstractmethod
    def card(self, name: str, **hub: Any) -> Card:
        """The card of ``name``, which is without the prefix; weights need not be read for it.

        ``hub`` are the keyword arguments of ``Zoo.load`` that are about the Hub. Raises GenzooError.
        """

    @abstractmethod
    def load(self, name: str, *, device: torch.device, dtype: torch.dtype, **hub: Any) -> Generator:
        """The model, on the device and in evaluation mode, with its card. Raises GenzooError."""


def find_source(zoo: Zoo, name: str) -> tuple[Source, str] | None:
    """(source, the name within it) where a registered prefix stands before a colon; else None."""
    prefix, colon, rest = name.partition(":")
    if not colon or ("source", prefix) not in zoo.entries:
        return None
    return zoo.find("source", prefix)(), rest
