"""What metrics share that compare the vectors of generated images with those of real ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from genzoo.errors import OptionError
from genzoo.metric import Estimate, Features, Metric


class TwoSample(Metric):
    """A statistic of two sets of vectors, with an interval by jackknife over the generated ones.

    Attributes:
        share: whether it is a mean of values in [0, 1].
    """

    share: ClassVar[bool] = False

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        if min(len(fake), len(reference)) < self.least:
            raise OptionError(f"{self.title} needs at least {self.least} images; give a larger -n")
        return Estimate.jackknifed(len(fake), self.over(fake.vectors, reference.vectors), share=self.share)

    @property
    def least(self) -> int:
        """The fewest images of either kind for which it is defined."""
        return 2

    @abstractmethod
    def over(self, fake: Tensor, real: Tensor) -> Callable[[Tensor], float]:
        """From vectors (N, D), (M, D): the statistic as a function of row numbers of ``fake``.

        What those rows do not change is worked out here, once.
        """

    def value(self, fake: Tensor, real: Tensor) -> float:
        """The statistic of all vectors (N, D), (M, D)."""
        return self.over(fake, real)(torch.arange(len(fake)))
