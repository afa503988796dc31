"""Did the model learn its training images by heart?"""

from __future__ import annotations

from typing import ClassVar

import torch

from genzoo.metric import Estimate, Features, Metric, Reference
from genzoo.neighbours import nearest
from genzoo.results import Theme
from genzoo.uncertainty import shuffled, wilson_of_mean


class Copying(Metric):
    """Share of generated images that are copies: max(0, 2 s - 1), where a share s is nearer to a training image than to
    a held-out one (Platzer & Reutterer 2021).

    As many of either are searched, drawn at random, so s is 1/2 of a model that copied nothing, be it good or bad, and
    (1 + p) / 2 of one that copied a share p of its images; below 1/2 it says nothing. The three samples are those of
    Meehan et al. 2020 (arXiv:2004.05675), who ask whether generated images are nearer to training images than held-out
    images are; but that is also true of a guided model, which keeps to what is typical, and false of a poor one that
    copies. Only the training images at hand are searched: of a model that copies others, nothing is seen.

    Images that share their nearest real image are one draw, not several: the standard error is clustered by it (Liang &
    Zeger 1986), and the interval of a collapsed model wide. None where the reference has no training images.
    """

    title: ClassVar[str] = "Copies"
    paper: ClassVar[str] = "https://arxiv.org/abs/2104.00635"
    unit: ClassVar[str] = "%"
    better: ClassVar[str] = "lower"
    theme: ClassVar[Theme] = "diversity"
    # A collapsed model makes the same images in every repetition: only together are they seen to be one draw.
    pooled: ClassVar[bool] = True
    about: ClassVar[str] = (
        "How many pictures seem to be copied: as far as more of them lie nearer to a training picture than to all of "
        "as many that no model saw. Read it beside the diversity: of a model that makes few different pictures, some "
        "that happen to lie near a training picture count for many."
    )

    def __call__(self, fake: Features, reference: Features) -> Estimate | None:
        train = reference.train if isinstance(reference, Reference) else None
        if train is None:
            return None
        count = min(len(train), len(reference))
        seen, unseen = (real.vectors[shuffled(len(real))[:count]] for real in (train, reference))
        to_seen, which_seen = nearest(fake.vectors, seen)
        to_unseen, which_unseen = nearest(fake.vectors, unseen)
        copied = (to_seen < to_unseen).double() + (to_seen == to_unseen).double() / 2
        share = float(copied.mean())
        clusters = torch.where(to_seen < to_unseen, which_seen, count + which_unseen)
        error = float(torch.bincount(clusters, weights=copied - share).norm()) / len(fake)
        low, high = wilson_of_mean(share, error, int((torch.bincount(clusters) > 0).sum()))
        value, low, high = (100 * max(0.0, 2 * part - 1) for part in (share, low, high))
        return Estimate(value=value, low=low, high=high, n=len(fake))
