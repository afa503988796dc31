"""How a StyleGAN is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.adversarial import AdversarialConfig, AdversarialRecipe
from genzoo.data import Images
from genzoo.errors import TrainingError
from genzoo.frozen import Frozen, Share
from genzoo.losses import non_saturating
from genzoo.recipe import Trained
from genzoo_plugins.stylegan.augment import Augment, AugmentConfig
from genzoo_plugins.stylegan.discriminator import Discriminator, DiscriminatorConfig
from genzoo_plugins.stylegan.model import StyleGAN
from genzoo_plugins.stylegan.network import StyleGANConfig
from genzoo_plugins.stylegan.path_length import PathLength

Every = Annotated[int, Field(ge=1, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


class StyleGANRecipeConfig(AdversarialConfig):
    """Settings of the recipe, beside those of every adversarial one.

    Attributes:
        model: the architecture of the generator.
        discriminator: that of the discriminator.
        options: defaults for the resulting card, as truncation.
        path_length: weight of path-length regularisation (Karras et al. 2020), 0 for none; on half a batch.
        path_every: steps between its terms, and their scale.
        mixing: share of training images with styles of two latents, so that neighbouring layers do not come to rely on
            having the same (Karras et al. 2019).
        augment: differentiable augmentation.
        mean_decay: decay of the mean latent.
    """

    model: StyleGANConfig
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    options: dict[str, int | float | str] = Field(default_factory=dict)
    beta1: Share = 0.0
    beta2: Share = 0.99
    r1: Weight = 1.0
    r1_every: Every = 16
    path_length: Weight = 0.0
    path_every: Every = 4
    mixing: Share = 0.5
    augment: AugmentConfig = AugmentConfig()
    mean_decay: Share = 0.995


class StyleGANRecipe(AdversarialRecipe):
    """Karras et al. 2020: the non-saturating loss, both regularisers lazy, adaptive augmentation, mixed styles."""

    Config: ClassVar[type[Frozen]] = StyleGANRecipeConfig
    config: StyleGANRecipeConfig
    model: StyleGAN
    loss = non_saturating

    def __init__(self, config: StyleGANRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        super().__init__(config, images, steps=steps, device=device)
        self.augment = Augment(config.augment).to(device)
        self.path_length = PathLength().to(device)

    def make_generator(self) -> StyleGAN:
        return StyleGAN(self.config.model)

    def make_discriminator(self) -> nn.Module:
        try:
            return Discriminator(self.config.model, self.config.discriminator)
        except ValueError as error:
            raise TrainingError(str(error)) from None

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {**super().parts(), "augment": self.augment, "path_length": self.path_length}

    def draw(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        return self._images(self._latents(labels, size, noise), noise)

    def _latents(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        """w (N, layers, latent) of fresh noise, some of them mixed."""
        config, layers = self.config.model, self.config.model.layers
        z = torch.randn(2, size, config.latent, generator=noise).to(self.device)
        mixed = torch.rand(size, generator=noise) < self.config.mixing
        cut = torch.randint(1, layers, (size,), generator=noise)
        first = self.model.network.map(z[0], labels)
        self.model.track(first.detach(), labels, self.config.mean_decay)
        w = first[:, None].expand(-1, layers, -1)
        if not self.config.mixing:
            return w
        second = self.model.network.map(z[1], labels)[:, None]
        swap = mixed[:, None] & (torch.arange(layers) >= cut[:, None])
        return torch.where(swap[:, :, None].to(self.device), second, w)

    def _images(self, w: Tensor, noise: torch.Generator) -> Tensor:
        """Images of w, with fresh noise in the layers."""
        sides = self.config.model.noise_sides
        layer_noise = [torch.randn(len(w), 1, side, side, generator=noise).to(self.device) for side in sides]
        images: Tensor = self.model.network(w, layer_noise)
        return images

    def shown(self, images: Tensor, noise: torch.Generator) -> Tensor:
        augmented: Tensor = self.augment(images, noise)
        return augmented

    def after_discriminator(self, real_logits: Tensor) -> dict[str, float]:
        self.augment.adapt(real_logits)
        return {"real_sign": float(real_logits.sign().mean()), "augment": float(self.augment.probability)}

    def regularise(self, labels: Tensor | None, step: int, size: int, noise: torch.Generator) -> Tensor | None:
        config = self.config
        if not config.path_length or step % config.path_every:
            return None
        half = max(1, size // 2)
        w = self._latents(None if labels is None else labels[:half], half, noise)
        images = self._images(w, noise)
        y = torch.randn(images.shape, generator=noise).to(self.device)
        penalty: Tensor = self.path_length(images, w, y)
        return config.path_length * config.path_every * penalty

    def trained(self) -> Trained:
        return Trained(
            self.average,
            {
                "summary": "A small style-based GAN",
                "generator": "stylegan",
                "config": self.config.model.model_dump(mode="json"),
                "options": dict(self.config.options),
                "paper": "https://arxiv.org/abs/1912.04958",
            },
        )
