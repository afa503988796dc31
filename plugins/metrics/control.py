"""Does a model make what it was asked for?"""

from __future__ import annotations

from typing import ClassVar

import torch

from genzoo.metric import Estimate, Features, Metric
from genzoo.results import Theme
from genzoo.uncertainty import wilson


class LabelAccuracy(Metric):
    """Share of images that the extractor's classifier recognises as the class that was asked for.

    Bounded by the classifier: the row of real images, which are held-out ones, tells how often it recognises those. A
    model may well exceed it, by pictures that are more typical of their class than real ones are.
    """

    title: ClassVar[str] = "Label accuracy"
    paper: ClassVar[str] = "https://arxiv.org/abs/1905.10887"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "higher"
    theme: ClassVar[Theme] = "control"
    alone: ClassVar[bool] = True
    about: ClassVar[str] = "How often a picture is recognised as the class that was asked for."

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        if fake.labels is None or fake.logits is None:
            return None
        right = fake.logits.argmax(1) == fake.labels
        classes = fake.logits.shape[1]
        asked = torch.bincount(fake.labels, minlength=classes).tolist()
        met = torch.bincount(fake.labels[right], minlength=classes).tolist()
        low, high = wilson(sum(met), len(fake))
        return Estimate(
            value=100 * sum(met) / len(fake),
            low=100 * low,
            high=100 * high,
            n=len(fake),
            by_class=tuple(100 * hits / count if count else None for hits, count in zip(met, asked, strict=True)),
        )
