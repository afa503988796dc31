"""Evaluation: images -> features -> scores against a data set, the same way for a comparison and a training curve."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from genzoo.errors import GenzooError, NotFinite, OptionError, cause
from genzoo.generator import Generator
from genzoo.images import to_bytes, to_floats
from genzoo.metric import Estimate, Extractor, Features, Metric, Reference
from genzoo.registry import Zoo
from genzoo.results import Score
from genzoo.weights import write

#: Training images that are looked at where an extractor ships no features of them: the first of the data set.
TRAIN_IMAGES = 10_000


def find_extractor(zoo: Zoo, name: str | None, dataset: str) -> Extractor:
    """The named extractor, or the first that ships a reference for the data set."""
    if name is not None:
        return cast(Extractor, zoo.make("extractor", name))
    for candidate in zoo.names("extractor"):
        try:
            extractor = cast(Extractor, zoo.make("extractor", candidate))
        except GenzooError:
            continue  # a broken plugin stops nobody who did not ask for it
        if extractor.reference(dataset, "test") is not None:
            return extractor
    raise OptionError(
        f"no extractor ships a reference for {dataset!r}; give --extractor, one of {zoo.names('extractor')}"
    )


def find_metrics(zoo: Zoo, specs: Sequence[str] | None = None) -> dict[str, Metric]:
    """Metrics by name, from names with options; by default all that are registered, in their plugins' order."""
    wanted = [name for kind, name in zoo.entries if kind == "metric"] if specs is None else specs
    return {spec.partition(":")[0]: cast(Metric, zoo.make("metric", spec)) for spec in wanted}


def features_of(extractor: Extractor, pixels: Tensor, labels: Tensor | None = None) -> Features:
    """What the extractor sees in uint8 images (N, C, H, W), with the labels (N,) that were asked for, or are true."""
    seen = extractor.over(to_floats(pixels))
    return Features(seen.vectors, seen.logits, labels)


def reference_of(zoo: Zoo, extractor: Extractor, dataset: str, split: str, count: int | None = None) -> Features:
    """The extractor's features of a split: shipped ones, else of the installed data set's first ``count`` images."""
    shipped = extractor.reference(dataset, split)
    if shipped is not None:
        return shipped
    images = zoo.make("dataset", dataset).load(split)
    return features_of(extractor, images.pixels[:count], images.labels[:count])


def load_reference(zoo: Zoo, extractor: Extractor, dataset: str, *, train: bool = True) -> Reference:
    """The test split, which models are held against, and features of training images, where they can be had.

    The training images are those that the extractor ships features of, else the first ``TRAIN_IMAGES`` of the
    installed data set: the first ones in either case, so that row i is the data set's image i.
    """
    real = reference_of(zoo, extractor, dataset, "test")
    seen = _train_features(zoo, extractor, dataset) if train else None
    return Reference(real.vectors, real.logits, real.labels, seen)


def _train_features(zoo: Zoo, extractor: Extractor, dataset: str) -> Features | None:
    try:
        return reference_of(zoo, extractor, dataset, "train", TRAIN_IMAGES)
    except GenzooError:
        return None  # the data set is not installed, and the extractor ships nothing of it


def write_reference(
    zoo: Zoo, extractor: str, dataset: str, folder: Path, limits: Mapping[str, int | None]
) -> list[Path]:
    """Write features of a data set's splits, as an extractor ships them: float16 vectors and logits, int16 labels.

    Args:
        extractor, dataset: registered names.
        folder: gets ``DATASET-SPLIT.safetensors``.
        limits: split -> how many images, from the first; None for all.
    """
    looker = cast(Extractor, zoo.make("extractor", extractor))
    written = []
    for split, count in limits.items():
        images = zoo.make("dataset", dataset).load(split)
        seen = features_of(looker, images.pixels[:count], images.labels[:count])
        tensors = {"vectors": seen.vectors.half(), "labels": cast(Tensor, seen.labels).short()}
        if seen.logits is not None:
            tensors["logits"] = seen.logits.half()
        path = folder / f"{dataset}-{split}.safetensors"
        write(path, tensors, {"extractor": looker.name, "digest": looker.digest, "dataset": dataset, "split": split})
        written.append(path)
    return written


def balanced_labels(model: Generator, count: int) -> list[int] | None:
    """Class i mod K for image i, the same for every model; None where the model takes no label."""
    return [i % model.num_classes for i in range(count)] if model.num_classes else None


def pictures(
    model: Generator, seeds: Sequence[int], labels: Sequence[int] | None, *, name: str, **given: Any
) -> Iterator[Tensor]:
    """uint8 images (n, C, H, W) batch by batch: what people get when they save them, and what a model is judged by.

    Args:
        model: the generator.
        seeds, labels: one per image; labels None for a model that takes none.
        name: names the model in an error.
        given: batch, exact and the model's own options, as ``Generator.batches`` takes them.
    """
    wanted = given if labels is None else {**given, "labels": list(labels)}
    for images in model.batches(seeds, **wanted):
        yield to_bytes(checked(images, model, name)).cpu()


def checked(images: Tensor, model: Generator, name: str) -> Tensor:
    """Images that are what they must be; raises GenzooError (NotFinite) that names the model otherwise."""
    if tuple(images.shape[1:]) != tuple(model.shape):
        raise GenzooError(f"{name} made images of {tuple(images.shape[1:])}, but says it makes {tuple(model.shape)}")
    if not bool(images.isfinite().all()):
        raise NotFinite(f"{name} made images that hold NaN or infinity")
    return images


@dataclass(frozen=True)
class Evaluator:
    """Images -> scores.

    Attributes:
        extractor: what looks at the images.
        reference: what they are held against, in that extractor's features.
        metrics: by name.
    """

    extractor: Extractor
    reference: Reference
    metrics: Mapping[str, Metric]

    def features(self, pixels: Tensor, labels: Sequence[int] | None) -> Features:
        """What is seen in uint8 images (N, C, H, W) that were asked for by ``labels``, N of them or None."""
        return features_of(self.extractor, pixels, None if labels is None else torch.tensor(labels))

    def scores(self, fake: Features, repeats: int = 1) -> tuple[Score, ...]:
        """Every metric that applies; see ``measure_metrics``."""
        return measure_metrics(self.metrics, fake, self.reference, repeats)

    def __call__(self, pixels: Tensor, labels: Sequence[int] | None, repeats: int = 1) -> tuple[Score, ...]:
        """Scores of uint8 images (N, C, H, W)."""
        return self.scores(self.features(pixels, labels), repeats)


def measure_metrics(
    metrics: Mapping[str, Metric], fake: Features, reference: Reference, repeats: int = 1
) -> tuple[Score, ...]:
    """Every metric that applies, as scores.

    Args:
        metrics: by name.
        fake: of the generated images, all repetitions one after the other, equally long.
        reference: what they are held against.
        repeats: each metric is taken of every repetition, and the score is the mean (see ``mean``); a pooled one is
            taken of all images at once.
    """
    n = len(fake) // repeats
    blocks = [fake[i * n : (i + 1) * n] for i in range(repeats)]
    scores = []
    # Small matrices: with another process on the machine, many threads wait for each other far longer than they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, metric in metrics.items():
            found = _estimates(name, metric, [fake] if metric.pooled else blocks, reference)
            estimates = [estimate for estimate in found if estimate is not None]
            if len(estimates) == len(found):
                scores.append(score_of(name, metric, estimates))
    finally:
        torch.set_num_threads(threads)
    return tuple(scores)


def floor_repeats(reference: Reference, n: int, wanted: int) -> int:
    """Repetitions of n images that there are training images for, at most ``wanted``."""
    return 0 if reference.train is None else min(wanted, len(reference.train) // n)


def measure_floor(metrics: Mapping[str, Metric], reference: Reference, n: int, repeats: int = 1) -> tuple[Score, ...]:
    """What real images score in place of generated ones: what a perfect model would reach here.

    The first training images are judged, as a model's are. To a check on copies they are what a model that copies
    nothing makes: it sees the other training images alone. A metric that looks at no reference judges held-out images
    alone, the reference's own, for an extractor that learned from the training images knows those too well: in as many
    repetitions as there are images for, and there is no score of it where there are fewer than n.

    Args:
        metrics: by name.
        reference: what models are held against; it has n times ``repeats`` training images at least.
        n, repeats: as of the models.
    """
    count, train = n * repeats, cast(Features, reference.train)
    others = dataclasses.replace(reference, train=train[count:] if len(train) > count else None)
    scores: list[Score] = []
    for name, metric in metrics.items():
        real: Features = reference if metric.alone else train
        times = min(repeats, len(real) // n)
        if times:
            scores += measure_metrics({name: metric}, real[: times * n], others, times)
    return tuple(scores)


def _estimates(name: str, metric: Metric, parts: Sequence[Features], reference: Reference) -> list[Estimate | None]:
    try:
        return [metric(part, reference) for part in parts]
    except GenzooError:
        raise
    except Exception as error:  # a third party's code may raise anything
        raise GenzooError(f"metric {name} failed: {cause(error)}; choose others with --metric") from error


def score_of(name: str, metric: Metric, estimates: Sequence[Estimate]) -> Score:
    """The score of a metric from its estimates, one a repetition."""
    kind, whole = type(metric), mean(estimates)
    return Score(
        metric=name,
        title=kind.title,
        unit=kind.unit,
        better=cast(Any, kind.better),
        theme=kind.theme,
        about=kind.about,
        paper=kind.paper,
        repeats=tuple(estimate.value for estimate in estimates) if len(estimates) > 1 else (),
        **dict(whole),
    )


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates from R disjoint sets of images, which are independent: other seeds, nothing shared.

    Its interval has the half-widths combined in quadrature, each side by itself: value - sqrt(sum_r (value_r -
    low_r)^2) / R, and so above. It is none where one of them has none. ``n`` is that of a single set. The value in a
    class is the mean over the sets where it is known.
    """
    if len(estimates) == 1:
        return estimates[0]

    def away(ends: Sequence[float | None]) -> float | None:
        widths = [None if end is None else end - e.value for end, e in zip(ends, estimates, strict=True)]
        known = [width for width in widths if width is not None]
        return math.hypot(*known) / len(estimates) if len(known) == len(widths) else None

    value = _average([estimate.value for estimate in estimates])
    below, above = away([e.low for e in estimates]), away([e.high for e in estimates])
    classes = zip(*(estimate.by_class for estimate in estimates), strict=False)
    return Estimate(
        value=value,
        low=None if below is None else value - below,
        high=None if above is None else value + above,
        n=estimates[0].n,
        by_class=tuple(_average(known) if (known := [v for v in row if v is not None]) else None for row in classes),
    )


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
