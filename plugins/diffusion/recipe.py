"""How a diffusion model is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.denoiser import SPREAD, Prediction, target, variance
from genzoo.frozen import Frozen, Share
from genzoo.recipe import Batch, LearningRate, Recipe, Trained, autocast, check_fit, descend, update_average
from genzoo_plugins.diffusion.model import Diffusion, DiffusionConfig


class DiffusionRecipeConfig(Frozen):
    """Settings of the recipe.

    Attributes:
        model: the architecture.
        options: defaults for the resulting card, as steps and guidance.
        rate: the learning rate over the run.
        weight_decay, clip_norm: of AdamW, and of the gradients.
        condition_dropout: share of labels replaced by the null class (Ho & Salimans 2022, algorithm 1).
        min_snr: gamma of the min-SNR weighting (Hang et al. 2023); null weighs every time alike in the prediction's
            own terms.
        average: decay of the weights' moving average.
        precision: bf16 runs the network in mixed precision, for devices that have it.
    """

    model: DiffusionConfig
    options: dict[str, int | float | str] = Field(default_factory=dict)
    rate: LearningRate
    weight_decay: Share = 0.0
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    condition_dropout: Share = 0.1
    min_snr: Annotated[float, Field(gt=0, le=1e6)] | None = None
    average: Share = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"


def min_snr_weight(
    alpha: Tensor, sigma: Tensor, gamma: float, prediction: Prediction, spread: float = SPREAD
) -> Tensor:
    """Weight of the squared error in the prediction's terms that equals min(SNR, gamma) in terms of x_0.

    With SNR = alpha^2 / sigma^2: x0: min(SNR, gamma); eps: that over SNR; v: that over SNR + 1 (Hang et al. 2023,
    section 3.4); flow: that over (alpha / sigma + 1)^2; edm: that times c_out^2.
    """
    snr = (alpha / sigma) ** 2
    capped = snr.clamp(max=gamma)
    if prediction == "eps":
        # min(SNR, gamma) / SNR tends to 1 at pure noise, where SNR is 0.
        return torch.where(snr > 0, capped / snr.clamp(min=1e-30), torch.ones_like(snr))
    if prediction == "flow":
        return capped / (alpha / sigma + 1) ** 2
    if prediction == "edm":
        return capped * (sigma * spread) ** 2 / variance(alpha, sigma, spread)
    return capped / (snr + 1) if prediction == "v" else capped


class DiffusionRecipe(Recipe):
    """Denoising score matching: E || prediction(alpha x_0 + sigma eps, t) - target ||^2 (DDPM, eq. 14)."""

    Config: ClassVar[type[Frozen]] = DiffusionRecipeConfig

    def __init__(self, config: DiffusionRecipeConfig, images: Images, *, steps: int, device: torch.device) -> None:
        model = Diffusion(config.model)
        check_fit(model, images)
        self.config, self.steps, self.device = config, steps, device
        self.model = model.to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.rate.peak, weight_decay=config.weight_decay, fused=True
        )

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "average": self.average, "optimizer": self.optimizer}

    def loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        """The weighted loss of one batch, a scalar."""
        denoiser, config = self.model.denoiser, self.config
        x0 = self.model.fold(batch.images)
        length, size = denoiser.schedule.length, len(x0)
        t = torch.randint(1, length + 1, (size,), generator=noise).double()
        eps = torch.randn(x0.shape, generator=noise).to(x0)
        dropped = torch.rand(size, generator=noise) < config.condition_dropout
        alpha, sigma = (level.view(-1, 1, 1, 1).float().to(x0.device) for level in denoiser.schedule.levels(t))
        with autocast(self.device, config.precision):
            output = denoiser.predict(alpha * x0 + sigma * eps, t, self._condition(batch.labels, dropped))
        told = (denoiser.prediction, denoiser.spread)
        error = (output.float() - target(x0, eps, alpha, sigma, *told)) ** 2
        if config.min_snr is not None:
            error = error * min_snr_weight(alpha, sigma, config.min_snr, *told)
        return error.mean()

    def _condition(self, labels: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        count = self.model.num_classes
        if not count:
            return {}
        if not self.config.model.null_class:
            return {"class_labels": labels}
        return {"class_labels": torch.where(dropped.to(labels.device), count, labels)}

    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        config, loss = self.config, self.loss(batch, noise)
        told = descend(loss, self.optimizer, config.rate.at(batch.step, self.steps), config.clip_norm)
        update_average(self.average, self.model, config.average, batch.step)
        return {"loss": float(loss.detach()), **told}

    def trained(self) -> Trained:
        return Trained(
            self.average,
            {
                "summary": "A denoising diffusion model",
                "generator": "diffusion",
                "config": self.config.model.model_dump(mode="json"),
                "options": dict(self.config.options),
                "paper": "https://arxiv.org/abs/2006.11239",
            },
        )

    def preview(self) -> Tensor:
        count = self.model.num_classes
        options: dict[str, Any] = {"steps": min(20, self.model.denoiser.schedule.length)}
        if count:
            options["labels"] = [i % count for i in range(40)]
        if count and self.config.model.null_class:
            options["guidance"] = 2.0
        return self.average.generate(range(40), **options)
