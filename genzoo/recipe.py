"""Recipes: how one family is trained. The loop, the data, checkpoints and logs belong to ``genzoo.train``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genzoo.data import Images
from genzoo.errors import TrainingError
from genzoo.frozen import Frozen

if TYPE_CHECKING:
    from genzoo.generator import Generator


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        images: float32 (B, C, H, W) in [-1, 1], on the recipe's device.
        labels: int64 (B,).
        step: its number, from 0.
    """

    images: Tensor
    labels: Tensor
    step: int


@dataclass(frozen=True)
class Trained:
    """What a recipe made.

    Attributes:
        module: the weights to keep (an average of them, where the recipe keeps one).
        card: what a card needs to know to build it again: generator, config, options, paper, summary. Empty where it is
            no generator.
        metadata: text that travels in the file beside the tensors.
    """

    module: nn.Module
    card: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


class Recipe(ABC):
    """One way of training. Its state is ``parts``; everything random comes from the generator that ``step`` is given.

    Args:
        config: the recipe's settings.
        images: the training data, for its shape and classes.
        steps: how many steps the run has, for learning-rate schedules.
        device: where to train.
    """

    Config: ClassVar[type[Frozen]]

    @abstractmethod
    def __init__(self, config: Any, images: Images, *, steps: int, device: torch.device) -> None: ...

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """Everything that a checkpoint must hold."""

    @abstractmethod
    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        """One update; returns what to log. A number that is not finite stops the run."""

    @abstractmethod
    def trained(self) -> Trained:
        """The result as it stands."""

    def preview(self) -> Tensor | None:
        """Images (N, C, H, W) in [-1, 1] that show how it stands, or None."""
        return None


def check_fit(model: Generator, images: Images) -> None:
    """Raise TrainingError where a generator's images or classes are not those of the data that it would learn from."""
    if model.shape != images.shape:
        raise TrainingError(f"the model makes images of {model.shape}, but {images.name} holds {images.shape}")
    if model.num_classes and model.num_classes != len(images.classes):
        raise TrainingError(f"num_classes is {model.num_classes}, but {images.name} has {len(images.classes)} classes")


class LearningRate(Frozen):
    """Learning rate over a run: a linear warm-up, then constant, cosine to zero, or constant with a linear end.

    ``trapezoid`` stays constant until the last ``decay`` share of the steps and then falls linearly to zero
    (Zhai et al. 2022): unlike a cosine it need not know the length of the run until then.
    """

    peak: Annotated[float, Field(gt=0, le=1)]
    warmup: Annotated[int, Field(ge=0, le=10**6)] = 0
    shape: Literal["constant", "cosine", "trapezoid"] = "constant"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.3

    def at(self, step: int, steps: int) -> float:
        """The rate of step ``step`` of ``steps``."""
        rate = self.peak * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.shape == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
        elif self.shape == "trapezoid":
            rate *= min(1.0, max(steps - step, 0) / max(self.decay * steps, 1))
        return rate


def descend(
    loss: Tensor, optimizer: torch.optim.Optimizer, rate: float, clip_norm: float | None = None
) -> dict[str, float]:
    """One step of an optimizer down a loss.

    Where several processes train, their gradients are averaged within ``backward``, see ``distributed.Replicas``: what
    is clipped is the gradient of the whole batch.

    Args:
        loss: a scalar, with its graph.
        optimizer: its parameters' earlier gradients are dropped.
        rate: the learning rate of this step, for all its parameters.
        clip_norm: the largest total norm of the gradients; None leaves them as they are.

    Returns:
        What to log: the ``gradient_norm`` before clipping, where they are clipped.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    told = {}
    if clip_norm is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        told["gradient_norm"] = clip_gradients(parameters, clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return told


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights: a <- d a + (1 - d) w, with d = min(decay, (1 + step) / (10 + step)).

    The ramp keeps the first averages from remembering the random start. Buffers (batch-norm statistics) are copied.
    """
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in current.parameters()], 1 - d)
    for mine, theirs in zip(average.buffers(), current.buffers(), strict=True):
        mine.copy_(theirs)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the block, where ``precision`` is "bf16"; off for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale the gradients down to a total norm of at most ``limit``; returns the norm that they had."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
