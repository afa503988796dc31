"""How a shard of samples lies on disk: as tensors in one file, or as pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from genzoo.errors import GenzooError
from genzoo.files import open_regular
from genzoo.images import UNREADABLE, save_png
from genzoo.tensors import read, write


class ShardFormat(ABC):
    """How the images of a shard become files."""

    @abstractmethod
    def files(self, number: int, seeds: Sequence[int]) -> list[str]:
        """Names of a shard's files."""

    @abstractmethod
    def write(self, folder: Path, number: int, seeds: Sequence[int], pixels: Tensor, labels: Sequence[int]) -> None:
        """Write a shard's files, each whole or not at all.

        Args:
            folder: where.
            number: the shard's.
            seeds: of its images.
            pixels: uint8 (N, C, H, W).
            labels: class numbers; empty for a model without classes.
        """

    @abstractmethod
    def holds(self, folder: Path, number: int, seeds: Sequence[int]) -> bool:
        """Whether the shard's files are there and readable."""


class TensorShards(ShardFormat):
    """One safetensors file a shard: images uint8 (N, C, H, W), seeds int64 (N,), and labels int64 (N,) of classes."""

    def files(self, number: int, seeds: Sequence[int]) -> list[str]:
        return [f"shard-{number:05d}.safetensors"]

    def write(self, folder: Path, number: int, seeds: Sequence[int], pixels: Tensor, labels: Sequence[int]) -> None:
        tensors = {"images": pixels, "seeds": torch.tensor(seeds)}
        if labels:
            tensors["labels"] = torch.tensor(labels)
        write(folder / self.files(number, seeds)[0], tensors)

    def holds(self, folder: Path, number: int, seeds: Sequence[int]) -> bool:
        try:
            found = read(folder / self.files(number, seeds)[0])
        except (GenzooError, OSError):
            return False
        return "images" in found and "seeds" in found and found["seeds"].tolist() == list(seeds)


class Pictures(ShardFormat):
    """One PNG an image, named by its seed, all in one folder as most tools read them; its text names seed and class."""

    def files(self, number: int, seeds: Sequence[int]) -> list[str]:
        return [f"{seed:010d}.png" for seed in seeds]

    def write(self, folder: Path, number: int, seeds: Sequence[int], pixels: Tensor, labels: Sequence[int]) -> None:
        for i, name in enumerate(self.files(number, seeds)):
            label = {"genzoo:label": str(labels[i])} if labels else {}
            save_png(folder / name, pixels[i], {"genzoo:seed": str(seeds[i]), **label})

    def holds(self, folder: Path, number: int, seeds: Sequence[int]) -> bool:
        try:
            for name in self.files(number, seeds):
                with open_regular(folder / name) as file, Image.open(file) as picture:
                    picture.verify()
        except (GenzooError, *UNREADABLE):
            return False
        return True


SHARD_FORMATS: Mapping[str, ShardFormat] = {"safetensors": TensorShards(), "png": Pictures()}
