"""Blobs of light on a ring, one place for each class: a plugin for genzoo, whole.

One module is enough to begin with. This one imports torch, so that every genzoo command does; with the class in a
second module, named in ``register`` as "hello_model:Blobs", ``genzoo list`` stays as quick as it is.
"""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field

import genzoo
from genzoo.registry import Registrar


class BlobsConfig(genzoo.Frozen):
    """The architecture: what a card fixes. Bounded, so that no card can ask for a terabyte."""

    size: Annotated[int, Field(ge=8, le=256)] = 28


class BlobsOptions(genzoo.Options):
    """What may differ from call to call: ``-O spread=0.2`` at the command line. ``labels`` is there already."""

    spread: Annotated[float, Field(ge=0, le=1, description="how far a blob strays from its class's place")] = 0.1


class Blobs(genzoo.Generator):
    """A Gaussian blob per image: its class chooses a place on a ring, its noise moves it from there."""

    Config = BlobsConfig
    Options = BlobsOptions
    config: BlobsConfig
    num_classes = 10

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.config.size, self.config.size

    def sample(self, noise: genzoo.Noise, options: BlobsOptions) -> Iterator[torch.Tensor]:
        angle = 2 * math.pi / self.num_classes * torch.tensor(options.labels, device=self.device)
        # Row i of the noise belongs to seed i alone: that keeps a picture the same in any batch.
        place = torch.stack([angle.cos(), angle.sin()], 1) / 2 + options.spread * noise.start(2)
        axis = torch.linspace(-1, 1, self.config.size, device=self.device)
        x, y = place[:, 0, None, None], place[:, 1, None, None]
        squared = (axis[None, None, :] - x) ** 2 + (axis[None, :, None] - y) ** 2
        yield 2 * torch.exp(-squared / 0.1)[:, None] - 1  # (N, 1, size, size) in [-1, 1]


@genzoo.hookimpl
def register(zoo: Registrar) -> None:
    zoo.generator("blobs", "hello_zoo:Blobs")
    zoo.card(
        {
            "name": "blobs.hello",
            "summary": "Blobs of light on a ring, one place for each class; without weights.",
            "generator": "blobs",
            "shape": [1, 28, 28],
            "config": {"size": 28},
            "options": {"spread": 0.15},
            "licence": "MIT",
            "paper": "none",
        }
    )
