"""Data sets: images in memory as bytes, with labels, and the order in which training sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genzoo.errors import DataError
from genzoo.frozen import Frozen

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Images:
    """A split of a data set.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), class numbers; all 0 where the data has no classes.
        classes: names of the classes; empty where it has none.
        name, split: what it is.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    split: Split

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(f"{self.name}: images must be uint8 (N, C, H, W) with N labels")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.pixels.shape
        return c, h, w

    def floats(self, index: Tensor | Sequence[int] | slice = slice(None)) -> Tensor:
        """float32 (n, C, H, W) in [-1, 1]."""
        return self.pixels[index].float() / 127.5 - 1


class Dataset(Frozen, ABC):
    """A source of images. Its fields are its settings, as ``path``."""

    @abstractmethod
    def load(self, split: Split) -> Images:
        """The split, in memory. Raises DataError that says how to get the data."""


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a function of seed and epoch, so that a resumed run needs no state."""
    stream = torch.Generator().manual_seed((seed * 1_000_003 + epoch + 1) % 2**32)
    return torch.randperm(length, generator=stream)


class Batches:
    """Which images step k sees: shuffled epochs laid end to end and cut into batches.

    Args:
        length: images in the data set.
        batch: images a step.
        seed: of the order.
    """

    def __init__(self, length: int, batch: int, seed: int) -> None:
        self.length, self.batch, self.seed = length, batch, seed
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, step: int) -> Tensor:
        first = step * self.batch
        parts = []
        while first < (step + 1) * self.batch:
            epoch, inside = divmod(first, self.length)
            take = min(self.length - inside, (step + 1) * self.batch - first)
            parts.append(self._order(epoch)[inside : inside + take])
            first += take
        return torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = epoch_order(self.length, self.seed, epoch)
        return self._orders[epoch]
