"""Guidance: how a condition steers a denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from genzoo.denoiser import Condition, Denoiser
from genzoo.frozen import Frozen
from genzoo.scheduler import Denoise, Grid, Level

if TYPE_CHECKING:
    from genzoo.registry import Zoo


class Guidance(Frozen, ABC):
    """Denoiser in, denoiser out. Frozen: its fields are settings."""

    def __eq__(self, other: Any) -> bool:
        """By the fields alone, as the hash is: what ``within`` and ``over`` tell a guidance is no setting of it."""
        return type(self) is type(other) and dict(self) == dict(other)

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
        """Evaluations of the network per call and image, batched or not; the most, where they depend on the level."""

    def evaluations_at(self, level: Level) -> int:
        """Evaluations of a call at one level."""
        return self.evaluations

    def within(self, zoo: Zoo) -> Guidance:
        """This guidance for a model whose names are looked up in ``zoo``: itself, unless it names things as well."""
        return self

    def over(self, grid: Grid) -> Guidance:
        """This guidance for a walk over ``grid``: itself, unless it depends on the walk's times."""
        return self

    @property
    def clips(self) -> bool:
        """Whether it clamps x_0 by itself, inside; it is then not clamped again."""
        return False
