"""DCGAN as a generator: one pass from a latent vector to an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from genzoo.frozen import Frozen
from genzoo.generator import Generator, Options
from genzoo.noise import Noise
from genzoo_plugins.dcgan.network import DCGANConfig, Network


class DCGAN(Generator):
    """A deep convolutional GAN (Radford, Metz & Chintala 2016), class-conditional where its config names classes."""

    Config: ClassVar[type[Frozen]] = DCGANConfig
    Options: ClassVar[type[Options]] = Options
    config: DCGANConfig

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__(config)
        self.network = Network(config)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.channels, self.config.image_size, self.config.image_size

    @property
    def num_classes(self) -> int:
        return self.config.num_classes or 0

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        labels = None if options.labels is None else torch.tensor(options.labels, device=self.device)
        yield self.network(noise.start(self.config.latent), labels)
