"""Guidance for conditional diffusion models."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from genzoo.denoiser import Condition, Denoiser
from genzoo.errors import OptionError
from genzoo.guidance import Guidance
from genzoo.scheduler import Denoise


class Unguided(Guidance):
    """The conditional model as it is."""

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        return lambda x, t: denoiser(x, t, condition)

    @property
    def evaluations(self) -> int:
        return 1


class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): eps = eps_null + s (eps_cond - eps_null).

    x_0 is affine in eps at a given x_t and t, so the same holds for x_0, which is where it is applied. Scale 1 is the
    plain conditional model and 0 the unconditional one, each at one evaluation.
    """

    scale: Annotated[float, Field(ge=-100, le=100, description="1 is the plain conditional model, 0 the free one")] = (
        2.0
    )
    batched: Annotated[bool, Field(description="both branches in one evaluation of twice the batch")] = True

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        if self.scale == 1:
            return lambda x, t: denoiser(x, t, condition)
        if not condition:
            raise OptionError("this model is unconditional, so there is nothing to guide; leave guidance at 1")
        if null is None:
            raise OptionError("this model learned no null class, so only guidance=1 works")
        if self.scale == 0:
            return lambda x, t: denoiser(x, t, null)
        both = {key: torch.cat([null[key], condition[key]]) for key in condition}

        def guided(x: Tensor, t: float) -> Tensor:
            if self.batched:
                free, wanted = denoiser(torch.cat([x, x]), t, both).chunk(2)
            else:
                free, wanted = denoiser(x, t, null), denoiser(x, t, condition)
            return torch.lerp(free, wanted, self.scale)

        return guided

    @property
    def evaluations(self) -> int:
        return 1 if self.scale in (0, 1) else 2
