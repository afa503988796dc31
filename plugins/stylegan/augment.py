"""Differentiable augmentation of what the discriminator sees, real and fake alike.

S. Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020 (arXiv:2006.10738): the
generator learns through the augmentation, so that it does not learn to make augmented images. T. Karras et al.,
"Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv:2006.06676): each transformation is
applied with a probability p < 1, which keeps it from leaking into the images, and p follows how far the discriminator
overfits. Nothing is mirrored or turned: shoes all point one way in Fashion-MNIST, and that is part of the data.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.frozen import Frozen, Share

__all__ = ["Augment", "AugmentConfig"]


class AugmentConfig(Frozen):
    """Settings of the augmentation.

    Attributes:
        probability: of each transformation; where it starts, if it adapts.
        target: what the mean sign of the logits of real images is steered to (r_t of arXiv:2006.06676, section 3);
            null keeps the probability as it is.
        horizon: images in which the probability can go from 0 to 1.
        limit: the largest probability; from about 0.8 on transformations leak (the same paper, section 2.2).
        translate: by at most so much of the side, in whole pixels.
        cutout: side of the square that is blanked, as a share of the image's.
        brightness: added, at most.
        contrast: the factor around an image's mean is at most 1 + contrast and at least 1 - contrast.
        fill: what stands in blank places; -1 is black.
    """

    probability: Share = 0.0
    target: Annotated[float, Field(ge=-1, le=1)] | None = 0.6
    horizon: Annotated[int, Field(ge=1, le=10**9)] = 200_000
    limit: Share = 0.8
    translate: Share = 0.125
    cutout: Share = 0.3
    brightness: Share = 0.2
    contrast: Share = 0.3
    fill: Annotated[float, Field(ge=-1, le=1)] = -1.0


class Augment(nn.Module):
    """The augmentation with its probability, a buffer, so that a resumed run goes on with it."""

    probability: Tensor

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("probability", torch.tensor(min(config.probability, config.limit), dtype=torch.float32))

    def forward(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """(N, C, H, W) with every image changed in its own way; at probability 0 the images themselves.

        Args:
            images: real ones in [-1, 1]; what comes out may reach beyond, and is differentiable in them.
            noise: where the draws come from. It is advanced alike whatever the probability.
        """
        # One row of numbers per image: four that decide whether, six that decide how, all uniform in [0, 1).
        draws = torch.rand(len(images), 10, generator=noise)
        p = float(self.probability)
        if p == 0:
            return images
        chosen, (brightness, contrast, down, right, top, left) = draws[:, :4] < p, (2 * draws[:, 4:] - 1).unbind(1)
        config, device = self.config, images.device
        factor = (contrast * config.contrast * chosen[:, 0]).view(-1, 1, 1, 1).to(images)
        images = images + factor * (images - images.mean(dim=(1, 2, 3), keepdim=True))
        images = images + (brightness * config.brightness * chosen[:, 1]).view(-1, 1, 1, 1).to(images)
        side = images.shape[-1]
        images = self._translate(images, (down * chosen[:, 2]).to(device), (right * chosen[:, 2]).to(device))
        hole = round(config.cutout * side)
        if hole:
            blank = _span(top, hole, side)[:, :, None] & _span(left, hole, side)[:, None, :] & chosen[:, 3, None, None]
            images = images.masked_fill(blank[:, None].to(device), config.fill)
        return images

    def _translate(self, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Shift by ``down`` and ``right`` (N,), in units of the largest shift."""
        n, _, height, width = images.shape
        reach = round(self.config.translate * width)
        if not reach:
            return images
        # Rounding halves half as likely at both ends; a little more than the reach makes all whole shifts alike likely.
        shift_y, shift_x = ((0.5 + reach) * torch.stack([down, right])).round().clamp(-reach, reach).long()
        rows = torch.arange(height, device=images.device) - shift_y[:, None]
        columns = torch.arange(width, device=images.device) - shift_x[:, None]
        outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        index = index.view(n, 1, -1).expand(-1, images.shape[1], -1)
        moved = images.flatten(2).gather(2, index).view_as(images)
        return moved.masked_fill(outside[:, None], self.config.fill)

    @torch.no_grad()
    def adapt(self, real_logits: Tensor) -> None:
        """Move the probability by one batch: up where D is too sure of real images, down where it is not."""
        config = self.config
        if config.target is None:
            return
        sign = float(real_logits.sign().mean()) - config.target
        step = len(real_logits) / config.horizon
        self.probability.add_(step if sign > 0 else -step).clamp_(0, config.limit)


def _span(where: Tensor, length: int, side: int) -> Tensor:
    """(N, side) truth: a run of ``length`` places whose centre lies anywhere on the side; ``where`` is in [-1, 1)."""
    centre = ((where + 1) / 2 * side).floor().long()[:, None]
    places = torch.arange(side) - centre + length // 2
    return (places >= 0) & (places < length)
