"""One batch of what a generator was asked for, and how a model makes it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genzoo.editing import Edit
from genzoo.errors import OptionError, quoted
from genzoo.layout import lay_out
from genzoo.noise import Noise
from genzoo.options import Options
from genzoo.state import layers

if TYPE_CHECKING:
    from genzoo.generator import Generator

#: Images per network call where the caller does not say: large enough to fill a CPU, small enough for any memory.
DEFAULT_BATCH = 64


def batch_size(batch: int | None) -> int:
    """Images per network call: as many as the caller says, or ``DEFAULT_BATCH``; raises OptionError for less than 1."""
    size = DEFAULT_BATCH if batch is None else batch
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise OptionError(f"batch={quoted(batch)} is out of range; give 1 or more")
    return size


@dataclass(frozen=True)
class Part:
    """One batch of what was asked for.

    Attributes:
        noise: its random streams.
        options: the family's options, with the batch's own labels.
        keep: how many of its rows were asked for; the rest only fill it.
        edit: how given images are to be changed, where they are.
    """

    noise: Noise
    options: Options
    keep: int
    edit: Edit | None

    def steps(self, model: Generator) -> Iterator[Tensor]:
        """The model's own images as they come into being."""
        if self.edit is None:
            return model.sample(self.noise, self.options)
        return model.edit(self.noise, self.options, self.edit)

    def shown(self, images: Tensor) -> Tensor:
        """The rows that were asked for, float32 in [-1, 1]."""
        out = images[: self.keep].float().clamp(-1, 1)
        return out if self.edit is None else self.edit.kept(out)

    def result(self, model: Generator) -> Tensor:
        """The finished images, float32 (keep, C, H, W) in [-1, 1], on the CPU."""
        with evaluating(model), torch.inference_mode():
            # Of all but the last step nothing is kept, made presentable or even looked at.
            last = deque(self.steps(model), maxlen=1).pop()
            images = self.shown(last).cpu()
        return images.clone()

    def trajectory(self, model: Generator) -> Iterator[Tensor]:
        """The images after every step, float32 (keep, C, H, W) in [-1, 1], on the model's device."""
        steps = self.steps(model)
        while True:
            # The mode is set around every step, so that a consumer's code between two steps never runs inside it.
            with evaluating(model), torch.inference_mode():
                images = next(steps, None)
                if images is None:
                    return
                shown = self.shown(images)
            yield shown.clone()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode inside the block, each in its own former mode afterwards."""
    lay_out(module)
    training = [m for m in layers(module) if m.training]
    # Setting the mode of every module takes a tenth of a small network's own time, and this stands around every step.
    if training:
        module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True
