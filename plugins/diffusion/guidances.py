"""Guidance for conditional diffusion models that is none; what there is beside it lies in the core and in plugins."""

from __future__ import annotations

from genzoo.denoiser import Condition, Denoiser
from genzoo.guidance import Guidance
from genzoo.scheduler import Denoise


class Unguided(Guidance):
    """The conditional model as it is."""

    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        return lambda x, t: denoiser(x, t, condition)

    @property
    def evaluations(self) -> int:
        return 1
