"""How a DCGAN is trained."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genzoo.adversarial import AdversarialConfig, AdversarialRecipe
from genzoo.data import Images
from genzoo.frozen import Frozen, Share
from genzoo.losses import LOSSES
from genzoo.recipe import Trained
from genzoo_plugins.dcgan.model import DCGAN
from genzoo_plugins.dcgan.network import DCGANConfig, Discriminator


class DCGANRecipeConfig(AdversarialConfig):
    """Settings of the recipe, beside those of every adversarial one.

    Attributes:
        model: the architecture of both nets.
        loss: the adversarial loss.
        beta1: the paper's is 0.5.
    """

    model: DCGANConfig
    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    beta1: Share = 0.5


class DCGANRecipe(AdversarialRecipe):
    """Radford, Metz & Chintala 2016, with the loss and the penalty that the settings choose."""

    Config: ClassVar[type[Frozen]] = DCGANRecipeConfig
    config: DCGANRecipeConfig
    model: DCGAN

    def __init__(self, config: DCGANRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        super().__init__(config, images, steps=steps, device=device)
        self.loss = LOSSES[config.loss]

    def make_generator(self) -> DCGAN:
        model: DCGAN = DCGAN(self.config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def make_discriminator(self) -> nn.Module:
        return Discriminator(self.config.model)

    def draw(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        z = torch.randn(size, self.config.model.latent, generator=noise).to(self.device)
        images: Tensor = self.model.network(z, labels)
        return images

    def trained(self) -> Trained:
        return Trained(
            self.average,
            {
                "summary": "A deep convolutional GAN",
                "generator": "dcgan",
                "config": self.config.model.model_dump(mode="json"),
                "options": {},
                "paper": "https://arxiv.org/abs/1511.06434",
            },
        )
