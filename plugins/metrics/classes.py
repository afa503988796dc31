"""Which classes do the pictures show? The extractor's classifier says so, of generated and of real images alike."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from genzoo.metric import Estimate, Features, Metric
from genzoo.results import Theme
from genzoo.uncertainty import binomial_cdf


def predicted(seen: Features) -> Tensor | None:
    """The class that the classifier sees in each image, int64 (N,); None where the extractor has no opinion."""
    return None if seen.logits is None else seen.logits.argmax(1)


def entropy(counts: Tensor) -> float:
    """Of the distribution behind (K,) counts, in nats, with Miller's correction for their number (Miller 1955).

    The plain estimate is (K - 1) / 2n too small, K being the classes that occur.
    """
    n = counts.sum()
    shares = counts[counts > 0].double() / n
    return float(-(shares * shares.log()).sum() + (len(shares) - 1) / (2 * n))


class ClassEntropy(Metric):
    """exp(H - H'), H being the entropy of the predicted classes and H' that of real images' predicted classes.

    exp(H) is the effective number of classes (Jost 2006): nine of ten equally common classes give 90 %, and so do ten
    of which some are rare. More than 100 % means classes that are more evenly common than in the data.
    """

    title: ClassVar[str] = "Effective classes"
    paper: ClassVar[str] = "https://doi.org/10.1111/j.2006.0030-1299.14714.x"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "higher"
    theme: ClassVar[Theme] = "diversity"
    about: ClassVar[str] = (
        "Over how many classes the pictures spread, by the entropy of the recognised classes; 100 % is as many as in "
        "the data. By class: the share of the pictures recognised as it."
    )

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        mine, real = predicted(fake), predicted(reference)
        if mine is None or real is None or fake.logits is None:
            return None
        classes = fake.logits.shape[1]
        data = entropy(torch.bincount(real, minlength=classes))
        shares = torch.bincount(mine, minlength=classes).double() / len(mine)
        return Estimate.jackknifed(
            len(fake),
            lambda rows: 100 * math.exp(entropy(torch.bincount(mine[rows], minlength=classes)) - data),
            by_class=tuple((100 * shares).tolist()),
        )


class DroppedClasses(Metric):
    """Classes of the data that are all but missing: mode dropping, counted (after Srivastava et al. 2017).

    A class counts where the share of pictures recognised as it is below ``share`` of its share of real images, and
    significantly: so few would come of a model just at that bound with a probability of at most 2.5 % over all classes
    together (exact binomial tests, Bonferroni). The interval runs to the number of classes of which the same tests do
    not say that they are above the bound.

    None where even a class without any picture would not count: then there are too few images to tell.
    """

    title: ClassVar[str] = "Dropped classes"
    paper: ClassVar[str] = "https://arxiv.org/abs/1705.07761"
    better: ClassVar[str] = "lower"
    theme: ClassVar[Theme] = "diversity"
    about: ClassVar[str] = "Classes of the data that the pictures hardly ever show, as far as their number can tell."
    pooled: ClassVar[bool] = True

    share: Annotated[float, Field(gt=0, lt=1, description="of a class's share of the data")] = 0.1

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        mine, real = predicted(fake), predicted(reference)
        if mine is None or real is None or fake.logits is None:
            return None
        classes, n = fake.logits.shape[1], len(fake)
        common = (torch.bincount(real, minlength=classes) / len(real)).tolist()
        counts = torch.bincount(mine, minlength=classes).tolist()
        bounds = {c: self.share * share for c, share in enumerate(common) if share}
        chance = 0.025 / len(bounds)
        if not any(binomial_cdf(0, n, bound) <= chance for bound in bounds.values()):
            return None
        dropped = [c for c, bound in bounds.items() if binomial_cdf(counts[c], n, bound) <= chance]
        kept = [c for c, bound in bounds.items() if counts[c] and 1 - binomial_cdf(counts[c] - 1, n, bound) <= chance]
        return Estimate(
            value=len(dropped),
            low=len(dropped),
            high=len(bounds) - len(kept),
            n=n,
            by_class=tuple(float(c in dropped) for c in range(classes)),
        )
