"""Extractors turn images into features; metrics turn two sets of features into a number with its uncertainty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.frozen import Frozen, Seq
from genzoo.results import Theme
from genzoo.uncertainty import jackknife


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

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """All parts, one after the other; with logits or labels where every part has them."""

        def together(tensors: Sequence[Tensor | None]) -> Tensor | None:
            known = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(known) if len(known) == len(tensors) else None

        vectors = torch.cat([part.vectors for part in parts])
        return Features(vectors, together([part.logits for part in parts]), together([part.labels for part in parts]))


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

    Any module becomes one in a few lines, registered by ``zoo.extractor("mine", "my_package.eyes:Mine")``::

        class Mine(genzoo.Extractor):
            name, width = "mine (512 wide, 64x64 bicubic)", 512
            digest = "9f86d081..."  # sha256 of its weights

            @functools.cached_property
            def network(self):  # at the first image, not when the zoo lists it
                return my_network().eval()

            def extract(self, images):
                images = F.interpolate(images, (64, 64), mode="bicubic").clamp(-1, 1).expand(-1, 3, -1, -1)
                return Features(self.network(images))

    Attributes:
        name: as people know it, with what matters of it, as how it resizes.
        width: D, the length of a feature vector.
        classes: names of the classes that it tells apart, in the order of its logits; these must be the data set's for
            the metrics of classes to make sense, and an extractor with others gives no logits. Empty where it tells
            none.
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
        return Features.joined(parts)


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

    @classmethod
    def jackknifed(
        cls, n: int, value: Callable[[Tensor], float], by_class: Seq[float | None] = (), *, share: bool = False
    ) -> Estimate:
        """A statistic of n images, with the jackknife's interval where they are enough for one.

        Args:
            n: generated images.
            value: the statistic over a tensor of row numbers, int64.
            by_class: as above.
            share: whether it is a mean of values in [0, 1]; so is its interval, then.
        """
        whole = value(torch.arange(n))
        low, high = jackknife(n, value, whole, share=share) or (None, None)
        return cls(value=whole, low=low, high=high, n=n, by_class=by_class)


class Metric(Frozen, ABC):
    """Samples and a reference -> a number. Frozen: its fields are settings.

    Attributes:
        title: for a table's head.
        paper: where it was defined.
        unit: of the value, as "%"; empty for a bare number.
        better: "lower" or "higher".
        theme: what it tells of: the report makes a table of each.
        pooled: whether it wants the images of all repetitions at once, rather than one value for each.
        alone: whether it looks at the images alone, and at no reference.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    unit: ClassVar[str] = ""
    better: ClassVar[str]
    theme: ClassVar[Theme] = "quality"
    about: ClassVar[str] = ""
    pooled: ClassVar[bool] = False
    alone: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, fake: Features, reference: Reference) -> Estimate | None:
        """The estimate, or None where the metric does not apply (as label accuracy to an unconditional model)."""
