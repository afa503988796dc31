"""The subject of a measurement: a model with its options, its pictures, and what turning an option does to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from genzoo import evaluate
from genzoo.errors import OptionError
from genzoo.evaluate import Evaluator
from genzoo.events import Event
from genzoo.generator import Generator as Model
from genzoo.results import Setting, Sweep

T = TypeVar("T")

#: What a control curve shows, as far as it is measured at all: control, the quality that it costs, and the variety.
CONTROL_METRICS = ("label-accuracy", "frechet", "recall")


#: A part of the work: events on the way, and its outcome.
Work = Generator[Event, None, T]


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        name: names it to people.
        model: itself.
        options: per call, where they are not its defaults.
        batch, exact: of generating.
    """

    name: str
    model: Model
    options: Mapping[str, Any]
    batch: int
    exact: bool

    def pictures(self, what: str, seeds: Sequence[int], labels: Sequence[int] | None, **turned: Any) -> Work[Tensor]:
        """uint8 images (N, C, H, W) of seeds and labels, one an image, with options turned; ``what`` tells of it."""
        what, parts, done = f"{self.name}: {what}", list[Tensor](), 0
        yield Event(what, 0, len(seeds))
        options = {**self.options, **turned, "batch": self.batch, "exact": self.exact}
        for images in evaluate.pictures(self.model, seeds, labels, name=self.name, **options):
            parts.append(images)
            done += len(images)
            yield Event(what, done, len(seeds))
        return torch.cat(parts)

    def sweeps(self, evaluator: Evaluator, seeds: Sequence[int], pixels: Tensor) -> Work[tuple[Sweep, ...]]:
        """A control curve for each option that the family says to turn.

        Args:
            evaluator: the comparison's, of whose metrics the ``CONTROL_METRICS`` are taken.
            seeds: of each point.
            pixels: the images of those seeds at the subject's own options, uint8 (N, C, H, W): where these are a point
                of the curve, nothing is generated again.
        """
        metrics = {name: metric for name, metric in evaluator.metrics.items() if name in CONTROL_METRICS}
        if not metrics or not len(seeds):
            return ()
        evaluator = dataclasses.replace(evaluator, metrics=metrics)
        sweeps = []
        for option, values in self.model.control.items():
            points = yield from self._points(evaluator, option, values, seeds, pixels)
            if points:
                sweeps.append(Sweep(option=option, n=len(seeds), points=points))
        return tuple(sweeps)

    def _points(
        self, evaluator: Evaluator, option: str, values: Sequence[float], seeds: Sequence[int], pixels: Tensor
    ) -> Work[tuple[Setting, ...]]:
        """The points of a curve, by value; none where the model has no use for the option of its family."""
        own = self.model.options(**self.options)
        labels = evaluate.balanced_labels(self.model, len(seeds))
        points = []
        for value in sorted(values):
            # What the family says of itself must hold: a value that it does not take is a fault, and told.
            self.model.options(**{**self.options, option: value})
            if getattr(own, option) == value:
                images = pixels
            else:
                try:
                    images = yield from self.pictures(f"{option} {value:g}", seeds, labels, **{option: value})
                except OptionError:
                    return ()  # as guidance, to a model without classes
            points.append(Setting(value=value, scores=evaluator(images, labels)))
        return tuple(points)
