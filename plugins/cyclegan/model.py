"""CycleGAN as a generator: one pass from an image to an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from genzoo.errors import OptionError
from genzoo.frozen import Frozen
from genzoo.generator import Generator
from genzoo.noise import Noise
from genzoo_plugins.cyclegan.network import CycleGANConfig, Resnet, UNet


class CycleGAN(Generator):
    """An image translator (Zhu et al. 2017; Isola et al. 2017): ``generate(images=...)``, with images in [-1, 1]."""

    Config: ClassVar[type[Frozen]] = CycleGANConfig
    takes_images: ClassVar[bool] = True
    usage: ClassVar[str] = (
        "photos = torch.zeros(1, {shape})  # (N, {shape}) in [-1, 1], of any size that fits\n"
        "images = model.generate(images=photos)  # the same size, in [-1, 1]"
    )
    config: CycleGANConfig

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__(config)
        self.network = Resnet(config) if config.network == "resnet" else UNet(config)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.out_channels, self.config.image_size, self.config.image_size

    @property
    def given_shape(self) -> tuple[int, int, int]:
        return self.config.in_channels, self.config.image_size, self.config.image_size

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        images, unit, channels = noise.given, self.config.unit, self.config.in_channels
        if images is None or images.ndim != 4 or images.shape[1] != channels:
            raise OptionError(f"images must be (N, {channels}, H, W)")
        if not images.shape[0] or any(side < unit or side % unit for side in images.shape[2:]):
            raise OptionError(
                f"images of {tuple(images.shape[2:])} pixels: height and width must be multiples of {unit}"
            )
        yield self.network(images)
