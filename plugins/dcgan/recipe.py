"""How a DCGAN is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.errors import TrainingError
from genzoo.frozen import Frozen
from genzoo.recipe import Batch, LearningRate, Recipe, Trained, update_average
from genzoo_plugins.dcgan.losses import LOSSES, r1_penalty
from genzoo_plugins.dcgan.model import DCGAN
from genzoo_plugins.dcgan.network import DCGANConfig, Discriminator

Share = Annotated[float, Field(ge=0, le=1)]


class DCGANRecipeConfig(Frozen):
    """Settings of the recipe.

    Attributes:
        model: the architecture of both nets.
        loss: the adversarial loss.
        rate, rate_d: learning rates of the generator and the discriminator (the generator's, where absent).
        beta1, beta2: of both Adams; the paper's beta1 is 0.5.
        r1: gamma of the gradient penalty on real images (Mescheder et al. 2018), 0 for none.
        r1_every: steps between penalties; the penalty is scaled by it (lazy regularisation, Karras et al. 2020).
        average: decay of the generator's moving average.
    """

    model: DCGANConfig
    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    rate: LearningRate
    rate_d: LearningRate | None = None
    beta1: Share = 0.5
    beta2: Share = 0.999
    r1: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    r1_every: Annotated[int, Field(ge=1, le=1000)] = 1
    average: Share = 0.999


class DCGANRecipe(Recipe):
    """One discriminator step and one generator step on every batch."""

    Config: ClassVar[type[Frozen]] = DCGANRecipeConfig

    def __init__(self, config: DCGANRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        model = DCGAN(config.model)
        if model.shape != images.shape:
            raise TrainingError(f"the model makes images of {model.shape}, but {images.name} holds {images.shape}")
        if model.num_classes and model.num_classes != len(images.classes):
            raise TrainingError(
                f"num_classes is {model.num_classes}, but {images.name} has {len(images.classes)} classes"
            )
        self.config, self.steps, self.device = config, steps, device
        layout = torch.channels_last
        self.model = model.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.discriminator = Discriminator(config.model).to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.loss = LOSSES[config.loss]
        self.optimizer = self._adam(self.model, config.rate)
        self.optimizer_d = self._adam(self.discriminator, config.rate_d or config.rate)

    def _adam(self, module: nn.Module, rate: LearningRate) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(module.parameters(), lr=rate.peak, betas=betas, fused=True)

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {
            "model": self.model,
            "average": self.average,
            "discriminator": self.discriminator,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

    def _fake(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        z = torch.randn(size, self.config.model.latent, generator=noise).to(self.device)
        images: Tensor = self.model.network(z, labels)
        return images

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        config = self.config
        config.rate.apply(self.optimizer, batch.step, self.steps)
        (config.rate_d or config.rate).apply(self.optimizer_d, batch.step, self.steps)
        labels = batch.labels if self.model.num_classes else None
        real = batch.images.contiguous(memory_format=torch.channels_last)
        fake = self._fake(labels, len(real), noise)
        values = self._step_d(real, fake.detach(), labels, batch.step)
        # The same fake images judge the generator: the discriminator has just moved, which is the paper's alternation.
        self.discriminator.requires_grad_(False)
        loss = self.loss.generator(self.discriminator(fake, labels))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.discriminator.requires_grad_(True)
        update_average(self.average, self.model, config.average, batch.step)
        return {"loss": float(loss.detach()), **values}

    def _step_d(self, real: Tensor, fake: Tensor, labels: Tensor | None, step: int) -> dict[str, float]:
        lazy = self.config.r1 > 0 and step % self.config.r1_every == 0
        real = real.requires_grad_(lazy)
        real_logits = self.discriminator(real, labels)
        fake_logits = self.discriminator(fake, labels)
        loss = self.loss.discriminator(real_logits, fake_logits)
        total = loss
        if lazy:
            total = loss + 0.5 * self.config.r1 * self.config.r1_every * r1_penalty(real_logits, real)
        self.optimizer_d.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
        return {
            "loss_d": float(loss.detach()),
            "real_logit": float(real_logits.detach().mean()),
            "fake_logit": float(fake_logits.detach().mean()),
        }

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

    def preview(self) -> Tensor:
        count = self.model.num_classes
        labels = [i % count for i in range(40)] if count else None
        images: Tensor = self.average.generate(range(40), labels=labels)
        return images
