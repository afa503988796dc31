"""The diffusion generator: a network, a noise schedule, and the walk from noise to data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genzoo.denoiser import Condition, Denoiser, Prediction
from genzoo.frozen import Frozen, Real
from genzoo.generator import Generator, Options
from genzoo.guidance import Guidance
from genzoo.noise import Noise
from genzoo.registry import default_zoo
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Denoise, Grid, Level, Scheduler
from genzoo_plugins.diffusion.plain_unet import PlainDiffusionUNet, PlainDiffusionUNetConfig
from genzoo_plugins.diffusion.unet import UNet2D, UNet2DConfig


class UNetChoice(UNet2DConfig):
    """The U-Net of DDPM, in the field's own config keys."""

    kind: Literal["unet"] = "unet"


class PlainUNetChoice(PlainDiffusionUNetConfig):
    """The plain U-Net of the segmentation lineage, in its diffusion form."""

    kind: Literal["plain-unet"] = "plain-unet"


class DiffusionConfig(Frozen):
    """A diffusion model's architecture.

    Attributes:
        network: the U-Net; its in_channels and out_channels count channels after patching.
        schedule: the noise schedule.
        prediction: what the network predicts.
        patch: pixels are folded into channels by this factor (pixel-unshuffle) before they are diffused: noise is
            Gaussian in either arrangement, so the model is the same, but the network works on a patch^2 smaller grid.
        num_classes: classes that can be asked for; 0 for none.
        null_class: the network's class embedding has one row more, for "no class", as guidance needs.
        clip: x_0 is clamped to [-clip, clip] after guidance; null leaves it.
    """

    network: Annotated[UNetChoice | PlainUNetChoice, Field(discriminator="kind")]
    schedule: ScheduleConfig = ScheduleConfig()
    prediction: Prediction = "eps"
    patch: Annotated[int, Field(ge=1, le=16)] = 1
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    null_class: bool = True
    clip: Annotated[float, Field(gt=0, le=1e6)] | None = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> DiffusionConfig:
        net = self.network
        rows = self.num_classes + (1 if self.null_class and self.num_classes else 0)
        if (net.num_class_embeds or 0) != rows:
            raise ValueError(
                f"network.num_class_embeds is {net.num_class_embeds}; num_classes={self.num_classes} with "
                f"null_class={self.null_class} needs {rows or None}"
            )
        if net.in_channels % self.patch**2 or net.in_channels != net.out_channels:
            raise ValueError(
                f"network.in_channels={net.in_channels} and out_channels={net.out_channels} must be equal, and a "
                f"multiple of patch^2={self.patch**2}"
            )
        if net.sample_size is None:
            raise ValueError("network.sample_size is missing: it gives the size of an image")
        return self


class DiffusionOptions(Options):
    """What a diffusion model can be asked per call."""

    steps: Annotated[int, Field(ge=1, le=100_000, description="steps of the scheduler")] = 50
    scheduler: Annotated[
        str | Scheduler, Field(description="a scheduler's name, with options as ddim:eta=0.5,spacing=trailing")
    ] = "ddim"
    guidance: Annotated[
        Real | str | Guidance, Field(description="the scale of classifier-free guidance, or a guidance's name")
    ] = 1.0


class Diffusion(Generator):
    """A denoising diffusion model (Ho et al. 2020; Song et al. 2021), conditional where its config names classes."""

    Config: ClassVar[type[Frozen]] = DiffusionConfig
    Options: ClassVar[type[Options]] = DiffusionOptions
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        network: nn.Module
        if isinstance(config.network, UNetChoice):
            network = UNet2D(config.network)
        else:
            network = PlainDiffusionUNet(config.network)
        self.denoiser = Denoiser(network, config.schedule.build(), config.prediction, config.patch)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def shape(self) -> tuple[int, int, int]:
        net, patch = self.config.network, self.config.patch
        size = net.sample_size
        height, width = (size, size) if isinstance(size, int) or size is None else size
        return net.in_channels // patch**2, (height or 0) * patch, (width or 0) * patch

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    def fold(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C patch^2, H / patch, W / patch)."""
        folded = F.pixel_unshuffle(images, self.config.patch) if self.config.patch > 1 else images
        return folded.contiguous(memory_format=torch.channels_last)

    def unfold(self, folded: Tensor) -> Tensor:
        """The inverse of ``fold``."""
        return F.pixel_shuffle(folded, self.config.patch) if self.config.patch > 1 else folded

    def scheduler(self, options: DiffusionOptions) -> Scheduler:
        """The scheduler that the options name."""
        if isinstance(options.scheduler, Scheduler):
            return options.scheduler
        found: Scheduler = (self.zoo or default_zoo()).make("scheduler", options.scheduler)
        return found

    def guidance(self, options: DiffusionOptions) -> Guidance:
        """The guidance that the options name; a number is the scale of classifier-free guidance."""
        chosen = options.guidance
        if isinstance(chosen, Guidance):
            return chosen
        zoo = self.zoo or default_zoo()
        found: Guidance = zoo.make("guidance", chosen if isinstance(chosen, str) else f"cfg:scale={float(chosen)}")
        return found

    def conditions(self, labels: tuple[int, ...] | None) -> tuple[Condition, Condition | None]:
        """(condition, null condition) for class numbers, one a sample."""
        if labels is None:
            return {}, None
        wanted = torch.tensor(labels, device=self.device)
        null = {"class_labels": torch.full_like(wanted, self.num_classes)} if self.config.null_class else None
        return {"class_labels": wanted}, null

    def guided(self, options: DiffusionOptions, grid: Grid | None = None) -> Denoise:
        """(x_t, t) -> x_0 with condition, guidance and clipping inside, for a walk over ``grid``."""
        condition, null = self.conditions(options.labels)  # type: ignore[arg-type]
        guidance, clip = self.guidance(options), self.config.clip
        if grid is not None:
            guidance = guidance.over(grid)
        denoise = guidance(self.denoiser, condition, null)
        # A scheduler that clips by itself needs x_0 as the network gave it.
        if clip is None or guidance.clips or getattr(self.scheduler(options), "clip", None) is not None:
            return denoise
        # After guidance, which extrapolates: clipping its two branches first would bias what it extrapolates from.
        return lambda x, t: denoise(x, t).clamp(-clip, clip)

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        scheduler = self.scheduler(options)
        grid = scheduler.grid(self.denoiser.schedule, options.steps)
        # Drawn in the images' own arrangement, so that the same seed starts alike whatever the patch.
        start = self.fold(noise.start(*self.shape))
        for x in scheduler.walk(self.guided(options, grid), start, grid, noise):
            yield self.unfold(x)

    def nfe(self, options: Any) -> float:
        scheduler = self.scheduler(options)
        schedule = self.denoiser.schedule
        grid = scheduler.grid(schedule, options.steps)
        guidance = self.guidance(options).over(grid)
        return sum(guidance.evaluations_at(Level(t, *schedule.level(t))) for t in scheduler.evaluated(grid))
