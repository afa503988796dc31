"""The two generators of CycleGAN and pix2pix, under the names that published checkpoints use.

``Resnet`` is the network of Johnson et al. 2016 as Zhu et al. 2017 (CycleGAN, arXiv:1703.10593, appendix 7.2) set it
up; ``UNet`` that of Isola et al. 2017 (pix2pix, arXiv:1611.07004, appendix 6.1). Both keep height and width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genzoo.frozen import Frozen, Size


class CycleGANConfig(Frozen):
    """Which of the two, and how large.

    Attributes:
        network: "resnet" or "unet".
        depth: residual blocks of a resnet (6 or 9 in the papers), halvings of a U-Net (7 for 128 pixels, 8 for 256).
        width: channels of the first layer.
        norm: "instance" (no parameters) or "batch".
        dropout: whether the network was trained with dropout, which moves names; it is off when images are made.
        image_size: the size that it was made for; a resnet takes any multiple of 4, a U-Net of 2^depth.
    """

    network: Literal["resnet", "unet"] = "resnet"
    depth: Annotated[int, Field(ge=1, le=32)] = 9
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    in_channels: Annotated[int, Field(ge=1, le=256)] = 3
    out_channels: Annotated[int, Field(ge=1, le=256)] = 3
    norm: Literal["instance", "batch"] = "instance"
    dropout: bool = False
    image_size: Size = 256

    @model_validator(mode="after")
    def _fits(self) -> CycleGANConfig:
        if self.network == "unet" and not 5 <= self.depth <= 10:
            raise ValueError(f"depth {self.depth} is not possible for a U-Net; 5 to 10 are")
        if self.image_size % self.unit:
            raise ValueError(f"image_size {self.image_size} is not a multiple of {self.unit}")
        return self

    @property
    def unit(self) -> int:
        """What height and width must be a multiple of."""
        return 4 if self.network == "resnet" else 1 << self.depth


def make_norm(config: CycleGANConfig, channels: int) -> nn.Module:
    """A norm: of each image by itself, or with the statistics of training."""
    return nn.BatchNorm2d(channels) if config.norm == "batch" else nn.InstanceNorm2d(channels)


class Block(nn.Module):
    """x + F(x), F two reflected 3x3 convolutions with norms. Takes and returns (N, channels, H, W)."""

    def __init__(self, config: CycleGANConfig, channels: int) -> None:
        super().__init__()
        biased = config.norm == "instance"

        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=biased), make_norm(config, channels)]

        between: list[nn.Module] = [nn.ReLU(), *([nn.Dropout(0.5)] if config.dropout else [])]
        self.conv_block = nn.Sequential(*half(), *between, *half())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class Resnet(nn.Module):
    """Two halvings, residual blocks, two doublings. (N, in, H, W) in [-1, 1] -> (N, out, H, W) in [-1, 1]."""

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        width, biased = config.width, config.norm == "instance"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(config.in_channels, width, 7, bias=biased),
            make_norm(config, width),
            nn.ReLU(),
        ]
        for channels in (width, 2 * width):
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=biased),
                make_norm(config, 2 * channels),
                nn.ReLU(),
            ]
        layers += [Block(config, 4 * width) for _ in range(config.depth)]
        for channels in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=biased),
                make_norm(config, channels // 2),
                nn.ReLU(),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, config.out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        images: Tensor = self.model(x)
        return images


class Level(nn.Module):
    """One level of the U: down, what lies below, up; beside its input, except at the top."""

    def __init__(
        self, config: CycleGANConfig, outside: int, inside: int, below: Level | None, *, top: int | None = None
    ) -> None:
        super().__init__()
        biased, self.is_top = config.norm == "instance", top is not None
        down: list[nn.Module] = [nn.Conv2d(top or outside, inside, 4, stride=2, padding=1, bias=biased)]
        up: list[nn.Module] = [
            nn.ReLU(),
            nn.ConvTranspose2d(
                inside if below is None else 2 * inside, outside, 4, stride=2, padding=1, bias=biased or self.is_top
            ),
        ]
        if self.is_top:
            up.append(nn.Tanh())
        else:
            down.insert(0, nn.LeakyReLU(0.2))
            up.append(make_norm(config, outside))
            if below is not None:
                down.append(make_norm(config, inside))
        self.model = nn.Sequential(*down, *([below] if below is not None else []), *up)

    def forward(self, x: Tensor) -> Tensor:
        # The published code activates x in place, so its skip carries the activated map. The ReLU that reads it
        # next gives the same of either, for the leak keeps the sign.
        made: Tensor = self.model(x)
        return made if self.is_top else torch.cat([x, made], 1)


class UNet(nn.Module):
    """The U-Net of pix2pix. (N, in, H, W) in [-1, 1] -> (N, out, H, W) in [-1, 1]."""

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__()
        width = config.width
        level = Level(config, 8 * width, 8 * width, None)
        for _ in range(config.depth - 5):
            level = Level(config, 8 * width, 8 * width, level)
        for times in (4, 2, 1):
            level = Level(config, times * width, 2 * times * width, level)
        self.model = Level(config, config.out_channels, width, level, top=config.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        images: Tensor = self.model(x)
        return images
