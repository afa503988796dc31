"""Extractors turn images into features; metrics turn two sets of features into a number with its uncertainty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.frozen import Frozen, Seq


@dataclass(frozen=True)
class Features:
    """What an extractor saw in N images.

    Attributes:
        vectors: float32 (N, D).
        logits: float32 (N, K), the extractor's opinion of the class; None where it has none.
        labels: int64 (N,), the classes that were asked for (or are true, for data); None where there are none.
    """

    vectors: Tensor
    logits: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Tensor | slice) -> Features:
        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return Features(self.vectors[rows], pick(self.logits), pick(self.labels))


@dataclass(frozen=True)
class Reference(Features):
    """What models are held against: features of real images, with true labels.

    Attributes:
        train: features of the images that the models may have been trained on, for a check on copies; None where they
            are not at hand.
    """

    train: Features | None = None


class Extractor(ABC):
    """Images -> features. A result names its extractor and digest; those of two extractors never share a column.

    Attributes:
        name: as people know it, with what matters of it.
        width: D, the length of a feature vector.
        classes: names of the classes that it tells apart; empty where it tells none.
    """

    name: str
    width: int
    classes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def digest(self) -> str:
        """A sha256 of whatever its answers depend on, weights above all."""

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Features of float32 (N, C, H, W) in [-1, 1], without labels."""

    def reference(self, dataset: str, split: str) -> Features | None:
        """Features of a data set's split that ship with the extractor, or None."""
        return None

    def over(self, images: Tensor, batch: int = 256) -> Features:
        """``extract`` in batches, without gradients."""
        with torch.inference_mode():
            parts = [self.extract(part) for part in torch.split(images, batch)]
        logits = None if parts[0].logits is None else torch.cat([p.logits for p in parts if p.logits is not None])
        return Features(torch.cat([part.vectors for part in parts]), logits)


class Estimate(Frozen):
    """A number with its uncertainty.

    Attributes:
        value: the estimate.
        low, high: a 95 % interval; None where none is known, never a guess.
        n: generated images it rests on.
        by_class: the value in each class, null where unknown; empty for a metric that has none.
    """

    value: Annotated[float, Field(ge=-1e12, le=1e12)]
    low: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    high: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    n: Annotated[int, Field(ge=1, le=10**9)]
    by_class: Seq[float | None] = ()


class Metric(Frozen, ABC):
    """Samples and a reference -> a number. Frozen: its fields are settings.

    Attributes:
        title: for a table's head.
        paper: where it was defined.
        unit: of the value, as "%"; empty for a bare number.
        better: "lower" or "higher".
        pooled: whether it wants the images of all repetitions at once, rather than one value for each.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    unit: ClassVar[str] = ""
    better: ClassVar[str]
    about: ClassVar[str] = ""
    pooled: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, fake: Features, reference: Reference) -> Estimate | None:
        """The estimate, or None where the metric does not apply (as label accuracy to an unconditional model)."""
