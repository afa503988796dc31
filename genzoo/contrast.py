"""Guidance by contrast: what the model makes of a condition, moved away from what it makes of another or of none.

It acts on x_0, which is affine in eps, v and the velocity at a given x_t and t; a method that is not affine says in
which of them it acts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from genzoo.denoiser import Condition, Denoiser
from genzoo.errors import OptionError
from genzoo.guidance import Guidance
from genzoo.scheduler import Denoise, Level

#: (x_t, level, x_0 without condition, x_0 with it) -> x_0.
Mix = Callable[[Tensor, Level, Tensor, Tensor], Tensor]


class Contrast(Guidance):
    """Two evaluations, or one of twice the batch, and a mix of them. Scale 1 is the plain conditional model, at one."""

    scale: Annotated[float, Field(ge=-100, le=100, description="1 is the plain conditional model")] = 2.0
    batched: Annotated[bool, Field(description="both branches in one evaluation of twice the batch")] = True

    @abstractmethod
    def mixer(self) -> Mix:
        """The mix for one walk; what it must remember between calls lives in it, and ends with the walk."""

    def opposite(self, condition: Condition, null: Condition | None) -> Condition:
        """The condition to move away from."""
        if not condition:
            raise OptionError("this model is unconditional, so there is nothing to guide; leave guidance at 1")
        if null is None:
            raise OptionError("this model learned no null class, so only guidance=1 works")
        return null

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 1:
            return lambda x, t: denoiser(x, t, condition)
        return self.mixed(denoiser, condition, self.opposite(condition, null))

    def mixed(self, denoiser: Denoiser, condition: Condition, other: Condition) -> Denoise:
        """(x_t, t) -> the mix of both branches."""
        both = {key: torch.cat([other[key], condition[key]]) for key in condition}
        mix = self.mixer()

        def guided(x: Tensor, t: float) -> Tensor:
            if self.batched:
                free, wanted = denoiser(torch.cat([x, x]), t, both).chunk(2)
            else:
                free, wanted = denoiser(x, t, other), denoiser(x, t, condition)
            return mix(x, Level(t, *denoiser.schedule.level(t)), free, wanted)

        return guided

    @property
    def evaluations(self) -> int:
        return 1 if self.scale == 1 else 2


class ClassifierFree(Contrast):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): eps = eps_null + s (eps_cond - eps_null).

    x_0 is affine in eps at a given x_t and t, so the same holds for x_0, which is where it is applied. Scale 1 is the
    plain conditional model and 0 the unconditional one, each at one evaluation.
    """

    scale: Annotated[float, Field(ge=-100, le=100, description="1 is the plain conditional model, 0 the free one")] = (
        2.0
    )

    def mixer(self) -> Mix:
        return lambda x, level, free, wanted: torch.lerp(free, wanted, self.scale)

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale != 0:
            return super().__call__(denoiser, condition, null)
        other = self.opposite(condition, null)
        return lambda x, t: denoiser(x, t, other)

    @property
    def evaluations(self) -> int:
        return 1 if self.scale in (0, 1) else 2
