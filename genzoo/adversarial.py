"""How GANs are trained: what their recipes share, whatever the two networks are."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.frozen import Frozen, Share
from genzoo.generator import Generator
from genzoo.losses import AdversarialLoss, r1_penalty
from genzoo.recipe import Batch, LearningRate, Recipe, check_fit, descend, update_average


class AdversarialConfig(Frozen):
    """Settings that every adversarial recipe has; the defaults are Adam's own, and no penalty.

    Attributes:
        rate, rate_d: learning rates of the generator and the discriminator (the generator's, where absent).
        beta1, beta2: of both Adams.
        r1: gamma of the gradient penalty on real images (Mescheder et al. 2018), 0 for none.
        r1_every: steps between penalties; the penalty is scaled by it (lazy regularisation, Karras et al. 2020).
        average: decay of the generator's moving average.
    """

    rate: LearningRate
    rate_d: LearningRate | None = None
    beta1: Share = 0.9
    beta2: Share = 0.999
    r1: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    r1_every: Annotated[int, Field(ge=1, le=1000)] = 1
    average: Share = 0.999


class AdversarialRecipe(Recipe):
    """One discriminator step and one generator step on every batch.

    A family says what its two networks are (``make_generator``, ``make_discriminator``), what it minimises (``loss``)
    and how fake images are drawn (``draw``); what else it does has a method that does nothing here (``shown``,
    ``regularise``, ``after_discriminator``). Regularisers join the loss of the step that they fall on: Adam takes no
    additional step, and its rates need no correction for one.

    Attributes:
        loss: what both sides minimise.
        model, average: the generator, and the moving average of it that is kept in the end.
        discriminator: called as ``discriminator(images, labels)``, giving logits (N,).
    """

    loss: AdversarialLoss

    def __init__(self, config: AdversarialConfig, images: Images, *, steps: int, device: torch.device) -> None:
        self.config, self.steps, self.device = config, steps, device
        model = self.make_generator()
        check_fit(model, images)
        discriminator = self.make_discriminator()
        self.model = model.to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.discriminator = discriminator.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = self._adam(self.model, config.rate)
        self.optimizer_d = self._adam(self.discriminator, config.rate_d or config.rate)

    def _adam(self, module: nn.Module, rate: LearningRate) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(module.parameters(), lr=rate.peak, betas=betas, fused=True)

    # -- what a family says ------------------------------------------------------------------------------------------

    @abstractmethod
    def make_generator(self) -> Generator:
        """The generator with its first weights; it is made before the discriminator."""

    @abstractmethod
    def make_discriminator(self) -> nn.Module:
        """The discriminator with its first weights."""

    @abstractmethod
    def draw(self, labels: Tensor | None, size: int, noise: torch.Generator) -> Tensor:
        """Fake images (size, C, H, W) of these classes, with their graph."""

    def shown(self, images: Tensor, noise: torch.Generator) -> Tensor:
        """What the discriminator is shown of images, real or fake, as after augmentation."""
        return images

    def regularise(self, labels: Tensor | None, step: int, size: int, noise: torch.Generator) -> Tensor | None:
        """What joins the generator's loss at this step, weighted; None where nothing does."""
        return None

    def after_discriminator(self, real_logits: Tensor) -> dict[str, float]:
        """What follows from the logits (N,) of real images, without graph; returns what to log."""
        return {}

    # -- what every family does --------------------------------------------------------------------------------------

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {
            "model": self.model,
            "average": self.average,
            "discriminator": self.discriminator,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        config, size = self.config, len(batch.images)
        labels = batch.labels if self.model.num_classes else None
        fake = self.draw(labels, size, noise)
        values = self._step_discriminator(batch.images, fake.detach(), labels, batch.step, noise)
        # The same fake images judge the generator, by the discriminator that has just moved.
        self.discriminator.requires_grad_(False)
        loss = self.loss.generator(self.discriminator(self.shown(fake, noise), labels))
        regulariser = self.regularise(labels, batch.step, size, noise)
        total = loss if regulariser is None else loss + regulariser
        descend(total, self.optimizer, config.rate.at(batch.step, self.steps))
        self.discriminator.requires_grad_(True)
        update_average(self.average, self.model, config.average, batch.step)
        return {"loss": float(loss.detach()), **values}

    def _step_discriminator(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, step: int, noise: torch.Generator
    ) -> dict[str, float]:
        config = self.config
        lazy = config.r1 > 0 and step % config.r1_every == 0
        # The penalty is on the gradient where the discriminator really looks: at the images that it is shown.
        real = self.shown(real, noise).contiguous(memory_format=torch.channels_last).requires_grad_(lazy)
        real_logits = self.discriminator(real, labels)
        fake_logits = self.discriminator(self.shown(fake, noise), labels)
        loss = total = self.loss.discriminator(real_logits, fake_logits)
        if lazy:
            total = loss + 0.5 * config.r1 * config.r1_every * r1_penalty(real_logits, real)
        descend(total, self.optimizer_d, (config.rate_d or config.rate).at(step, self.steps))
        real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
        return {
            "loss_d": float(loss.detach()),
            "real_logit": float(real_logits.mean()),
            "fake_logit": float(fake_logits.mean()),
            **self.after_discriminator(real_logits),
        }

    def preview(self) -> Tensor:
        count = self.model.num_classes
        labels = [i % count for i in range(40)] if count else None
        images: Tensor = self.average.generate(range(40), labels=labels)
        return images
