"""How a StyleGAN is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.errors import TrainingError
from genzoo.frozen import Frozen
from genzoo.recipe import Batch, LearningRate, Recipe, Trained, update_average
from genzoo_plugins.stylegan.augment import Augment, AugmentConfig
from genzoo_plugins.stylegan.discriminator import Discriminator, DiscriminatorConfig
from genzoo_plugins.stylegan.losses import PathLength, discriminator_loss, generator_loss, r1_penalty
from genzoo_plugins.stylegan.model import StyleGAN
from genzoo_plugins.stylegan.network import StyleGANConfig

Share = Annotated[float, Field(ge=0, le=1)]
Every = Annotated[int, Field(ge=1, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


class StyleGANRecipeConfig(Frozen):
    """Settings of the recipe.

    Attributes:
        model: the architecture of the generator.
        discriminator: that of the discriminator.
        options: defaults for the resulting card, as truncation.
        rate, rate_d: learning rates of the generator and the discriminator (the generator's, where absent).
        beta1, beta2: of both Adams.
        r1: gamma of the gradient penalty on real images (Mescheder et al. 2018), 0 for none.
        r1_every: steps between penalties; the penalty is scaled by it (lazy regularisation, Karras et al. 2020).
        path_length: weight of path-length regularisation (the same paper), 0 for none; on half a batch.
        path_every: steps between its terms, and their scale.
        mixing: share of training images with styles of two latents, so that neighbouring layers do not come to rely on
            having the same (Karras et al. 2019).
        augment: differentiable augmentation.
        average: decay of the generator's moving average.
        mean_decay: decay of the mean latent.
    """

    model: StyleGANConfig
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    options: dict[str, int | float | str] = Field(default_factory=dict)
    rate: LearningRate
    rate_d: LearningRate | None = None
    beta1: Share = 0.0
    beta2: Share = 0.99
    r1: Weight = 1.0
    r1_every: Every = 16
    path_length: Weight = 0.0
    path_every: Every = 4
    mixing: Share = 0.5
    augment: AugmentConfig = AugmentConfig()
    average: Share = 0.999
    mean_decay: Share = 0.995


class StyleGANRecipe(Recipe):
    """One discriminator step and one generator step on every batch.

    Both regularisers join the loss of the step that they fall on: Adam takes no additional step, and its rates need no
    correction for one.
    """

    Config: ClassVar[type[Frozen]] = StyleGANRecipeConfig

    def __init__(self, config: StyleGANRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        model = StyleGAN(config.model)
        if model.shape != images.shape:
            raise TrainingError(f"the model makes images of {model.shape}, but {images.name} holds {images.shape}")
        if model.num_classes and model.num_classes != len(images.classes):
            raise TrainingError(
                f"num_classes is {model.num_classes}, but {images.name} has {len(images.classes)} classes"
            )
        try:
            discriminator = Discriminator(config.model, config.discriminator)
        except ValueError as error:
            raise TrainingError(str(error)) from None
        self.config, self.steps, self.device = config, steps, device
        self.model = model.to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.discriminator = discriminator.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.augment = Augment(config.augment).to(device)
        self.path_length = PathLength().to(device)
        self.optimizer = self._adam(self.model, config.rate)
        self.optimizer_d = self._adam(self.discriminator, config.rate_d or config.rate)

    def _adam(self, module: nn.Module, rate: LearningRate) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(module.parameters(), lr=rate.peak, betas=betas, eps=1e-8, fused=True)

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {
            "model": self.model,
            "average": self.average,
            "discriminator": self.discriminator,
            "augment": self.augment,
            "path_length": self.path_length,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

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

    def _draw(self, w: Tensor, noise: torch.Generator) -> Tensor:
        """Images of w, with fresh noise in the layers."""
        sides = self.config.model.noise_sides
        layer_noise = [torch.randn(len(w), 1, side, side, generator=noise).to(self.device) for side in sides]
        images: Tensor = self.model.network(w, layer_noise)
        return images

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        config = self.config
        config.rate.apply(self.optimizer, batch.step, self.steps)
        (config.rate_d or config.rate).apply(self.optimizer_d, batch.step, self.steps)
        labels = batch.labels if self.model.num_classes else None
        fake = self._draw(self._latents(labels, len(batch.images), noise), noise)
        values = self._step_d(batch.images, fake.detach(), labels, batch.step, noise)
        # The same fake images judge the generator, by the discriminator that has just moved.
        self.discriminator.requires_grad_(False)
        loss = total = generator_loss(self.discriminator(self.augment(fake, noise), labels))
        if config.path_length and batch.step % config.path_every == 0:
            total = loss + config.path_length * config.path_every * self._path_length(labels, len(fake), noise)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.discriminator.requires_grad_(True)
        update_average(self.average, self.model, config.average, batch.step)
        return {"loss": float(loss.detach()), **values}

    def _step_d(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, step: int, noise: torch.Generator
    ) -> dict[str, float]:
        config = self.config
        lazy = config.r1 > 0 and step % config.r1_every == 0
        # The penalty is on the gradient where the discriminator really looks: at the augmented images.
        real = self.augment(real, noise).contiguous(memory_format=torch.channels_last).requires_grad_(lazy)
        real_logits = self.discriminator(real, labels)
        fake_logits = self.discriminator(self.augment(fake, noise), labels)
        loss = total = discriminator_loss(real_logits, fake_logits)
        if lazy:
            total = loss + 0.5 * config.r1 * config.r1_every * r1_penalty(real_logits, real)
        self.optimizer_d.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
        real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
        self.augment.adapt(real_logits)
        return {
            "loss_d": float(loss.detach()),
            "real_logit": float(real_logits.mean()),
            "fake_logit": float(fake_logits.mean()),
            "real_sign": float(real_logits.sign().mean()),
            "augment": float(self.augment.probability),
        }

    def _path_length(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        half = max(1, size // 2)
        w = self._latents(None if labels is None else labels[:half], half, noise)
        images = self._draw(w, noise)
        y = torch.randn(images.shape, generator=noise).to(self.device)
        penalty: Tensor = self.path_length(images, w, y)
        return penalty

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

    def preview(self) -> Tensor:
        count = self.model.num_classes
        labels = [i % count for i in range(40)] if count else None
        images: Tensor = self.average.generate(range(40), labels=labels)
        return images
