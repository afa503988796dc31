"""The diffusion generator: a network, a noise schedule, and the walk from noise to data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genzoo.denoiser import SPREAD, Condition, Denoiser, Prediction
from genzoo.editing import Edit, Walk, tail
from genzoo.errors import OptionError
from genzoo.frozen import Frozen
from genzoo.layout import channels_last
from genzoo.noise import Noise
from genzoo.schedule import ScheduleConfig
from genzoo.scheduler import Denoise, Grid
from genzoo_plugins.diffusion.plain_unet import PlainDiffusionUNet, PlainDiffusionUNetConfig
from genzoo_plugins.diffusion.unet import GuidedUNetConfig, UNet2D, UNet2DConfig
from genzoo_plugins.diffusion.walker import DiffusionOptions, Walker


class UNetChoice(UNet2DConfig):
    """The U-Net of DDPM, in the field's own config keys."""

    kind: Literal["unet"] = "unet"


class GuidedUNetChoice(GuidedUNetConfig):
    """The same with the options that OpenAI's checkpoints have beyond it."""

    kind: Literal["guided-unet"] = "guided-unet"


class PlainUNetChoice(PlainDiffusionUNetConfig):
    """The plain U-Net of the segmentation lineage, in its diffusion form."""

    kind: Literal["plain-unet"] = "plain-unet"


class DiffusionConfig(Frozen, defer_build=False):
    """A diffusion model's architecture.

    Attributes:
        network: the U-Net; its in_channels and out_channels count channels after patching. Twice as many out_channels
            hold a learned variance too (Nichol & Dhariwal 2021, eq. 15), which no scheduler here reads.
        schedule: the noise schedule.
        prediction: what the network predicts.
        spread: the data's deviation as "edm" takes it, 0.5 in its paper; no other prediction reads it.
        patch: pixels are folded into channels by this factor (pixel-unshuffle) before they are diffused: noise is
            Gaussian in either arrangement, so the model is the same, but the network works on a patch^2 smaller grid.
        num_classes: classes that can be asked for; 0 for none.
        null_class: the network's class embedding has one row more, for "no class", as guidance needs.
        clip: x_0 is clamped to [-clip, clip] after guidance; null leaves it.
    """

    network: Annotated[UNetChoice | GuidedUNetChoice | PlainUNetChoice, Field(discriminator="kind")]
    schedule: ScheduleConfig = ScheduleConfig()
    prediction: Prediction = "eps"
    spread: Annotated[float, Field(gt=0, le=1e3)] = SPREAD
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
        if net.in_channels % self.patch**2 or net.out_channels not in (net.in_channels, 2 * net.in_channels):
            raise ValueError(
                f"network.in_channels={net.in_channels} and out_channels={net.out_channels} must be equal (or "
                f"out_channels twice as many, for a learned variance), and a multiple of patch^2={self.patch**2}"
            )
        kind = self.schedule.kind
        if kind in ("flow", "edm") and getattr(net, "time_embedding_type", None) == "learned":
            raise ValueError(f"network.time_embedding_type 'learned' knows whole times from 0 on; {kind!r} has others")
        if net.sample_size is None:
            raise ValueError("network.sample_size is missing: it gives the size of an image")
        return self


class Diffusion(Walker):
    """A denoising diffusion model (Ho et al. 2020; Song et al. 2021), conditional where its config names classes."""

    Config: ClassVar[type[Frozen]] = DiffusionConfig
    control: ClassVar[Mapping[str, Sequence[float]]] = {"guidance": (1.0, 1.5, 2.0, 3.0, 5.0)}
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        network: nn.Module
        if isinstance(config.network, UNet2DConfig):
            network = UNet2D(config.network)
        else:
            network = PlainDiffusionUNet(config.network)
        self.clip = config.clip
        self.denoiser = Denoiser(network, config.schedule.build(), config.prediction, config.patch, config.spread)
        channels_last(self)

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

    def conditions(self, labels: tuple[int, ...] | None) -> tuple[Condition, Condition | None]:
        """(condition, null condition) for class numbers, one a sample."""
        if labels is None:
            return {}, None
        wanted = torch.tensor(labels, device=self.device)
        null = {"class_labels": torch.full_like(wanted, self.num_classes)} if self.config.null_class else None
        return {"class_labels": wanted}, null

    def guided(self, options: DiffusionOptions, grid: Grid | None = None) -> Denoise:
        """(x_t, t) -> x_0 with the labels, guidance and clipping inside, for a walk over ``grid``."""
        return self.steered(options, *self.conditions(options.labels), grid)  # type: ignore[arg-type]

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        # Drawn in the images' own arrangement, so that the same seed starts alike whatever the patch.
        start = self.fold(noise.start(*self.shape))
        for x in self.walk(start, noise, options, *self.conditions(options.labels)):
            yield self.unfold(x)

    def edit(self, noise: Noise, options: Any, edit: Edit) -> Iterator[Tensor]:
        scheduler = self.scheduler(options)
        grid = tail(scheduler.grid(self.denoiser.schedule, options.steps), edit.strength)
        if grid is None:
            # As it was given, not as a model of half the precision would keep it.
            yield edit.images.to(noise.device)
            return
        image = self.fold(edit.images.to(noise.device, noise.dtype))
        start = self.fold(noise.start(*self.shape))
        mask = None if edit.mask is None else self.fold(edit.mask.to(noise.device).expand_as(edit.images))

        def plain(label: int | str | None) -> Denoise:
            return self.steered(options.model_copy(update={"guidance": "none"}), self.named(label, noise), None)

        walk = Walk(
            scheduler=scheduler,
            grid=grid,
            noise=noise,
            start=start,
            image=image,
            mask=mask,
            afresh=edit.strength == 1,
            wanted=lambda: self.guided(options, grid),
            plain=plain,
        )
        for x in edit.editor.edit(walk):
            yield self.unfold(x)

    def named(self, label: int | str | None, noise: Noise) -> Condition:
        """The condition that every sample has one label; without one, the null condition."""
        if label is not None:
            return self.conditions(self.label_numbers(label, noise))[0]
        if not self.num_classes:
            return {}
        _, null = self.conditions((0,) * len(noise))
        if null is None:
            raise OptionError("this model learned no null class: say what the image shows, as inversion:source=3")
        return null
