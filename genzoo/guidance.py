"""Guidance: how a condition steers a denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod

from genzoo.denoiser import Condition, Denoiser
from genzoo.frozen import Frozen
from genzoo.scheduler import Denoise


class Guidance(Frozen, ABC):
    """Denoiser in, denoiser out. Frozen: its fields are settings."""

    @abstractmethod
    def __call__(self, denoiser: Denoiser, condition: Condition, null: Condition | None) -> Denoise:
        """A guided (x_t, t) -> x_0.

        Args:
            denoiser: the model.
            condition: what is wanted, one row a sample.
            null: what stands for "no condition", of the same shapes; None where the model learned none.
        """

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Evaluations of the network per call and image, batched or not."""
