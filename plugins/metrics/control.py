"""Does a model make what it was asked for?"""

from __future__ import annotations

from typing import ClassVar

from genzoo.metric import Estimate, Features, Metric
from genzoo.uncertainty import wilson


class LabelAccuracy(Metric):
    """Share of images that the extractor's classifier recognises as the class that was asked for.

    Bounded by the classifier: real test images reach its own test accuracy, which the report prints beside it.
    """

    title: ClassVar[str] = "Label accuracy"
    paper: ClassVar[str] = "https://arxiv.org/abs/1905.10887"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "higher"
    about: ClassVar[str] = "How often a picture is recognised as the class that was asked for."

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        if fake.labels is None or fake.logits is None:
            return None
        hits = int((fake.logits.argmax(1) == fake.labels).sum())
        low, high = wilson(hits, len(fake))
        return Estimate(value=100 * hits / len(fake), low=100 * low, high=100 * high, n=len(fake))
