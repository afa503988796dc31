"""Compare models in one run: the same seeds, labels, reference, extractor and machine for all of them.

``compare`` is a generator of events, so that progress bars belong to whoever listens; the last event holds the results.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from genzoo import bench
from genzoo.data import Images
from genzoo.errors import GenzooError, OptionError
from genzoo.generator import DEFAULT_BATCH, Generator
from genzoo.images import grid, png_bytes, to_bytes
from genzoo.metric import Extractor, Features, Metric
from genzoo.registry import Zoo
from genzoo.results import ModelResult, Results, Score, Sheet, Speed
from genzoo.scheduler import Scheduler
from genzoo.weights import find_card, write

SHEET_COLUMNS = 10
SHEET_ROWS = 4
#: Real images held against the reference for the floor, where the extractor ships that many.
DATA_ROW = "real images"


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        models: card names or folders.
        seeds: one per image.
        dataset: a registered data set; the reference is its test split.
        extractor: a registered extractor; by default the one that ships a reference for the data set.
        metrics: registered names, with options; all of them by default.
        options: per-call options for all models that know them, as steps.
        batch, device, exact: of generating.
        speed: whether to measure time and memory.
        command: what the user typed, for the record.
    """

    models: Sequence[str]
    seeds: Sequence[int]
    dataset: str
    extractor: str | None = None
    metrics: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = DEFAULT_BATCH
    device: str = "cpu"
    exact: bool = False
    speed: bool = True
    command: str = "genzoo compare"


@dataclass(frozen=True)
class Event:
    """How a comparison stands.

    Attributes:
        what: the model, and what is done with it.
        done, total: of that.
        results: everything, in the last event.
    """

    what: str
    done: int
    total: int
    results: Results | None = None


def fitting_models(zoo: Zoo, dataset: str) -> list[str]:
    """Names of all models that were trained on a data set."""
    return [card.name for card in zoo.cards() if card.data == dataset]


def find_extractor(zoo: Zoo, name: str | None, dataset: str) -> Extractor:
    """The named extractor, or the first that ships a reference for the data set."""
    if name is not None:
        return cast(Extractor, zoo.make("extractor", name))
    for candidate in zoo.names("extractor"):
        extractor = cast(Extractor, zoo.make("extractor", candidate))
        if extractor.reference(dataset, "test") is not None:
            return extractor
    raise OptionError(
        f"no extractor ships a reference for {dataset!r}; give --extractor, one of {zoo.names('extractor')}"
    )


def reference_of(zoo: Zoo, extractor: Extractor, dataset: str, split: str) -> Features:
    """The extractor's features of a split: shipped ones, else computed from the data set where it is installed."""
    shipped = extractor.reference(dataset, split)
    if shipped is not None:
        return shipped
    images: Images = zoo.make("dataset", dataset).load(split)
    return features_of(extractor, images)


def features_of(extractor: Extractor, images: Images, count: int | None = None) -> Features:
    """The extractor's features of the first ``count`` images of a split, with their labels."""
    pixels, labels = images.pixels[:count], images.labels[:count]
    seen = extractor.over(pixels.float() / 127.5 - 1)
    return Features(seen.vectors, seen.logits, labels)


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
        seen = features_of(looker, zoo.make("dataset", dataset).load(split), count)
        tensors = {"vectors": seen.vectors.half(), "labels": cast(Tensor, seen.labels).short()}
        if seen.logits is not None:
            tensors["logits"] = seen.logits.half()
        path = folder / f"{dataset}-{split}.safetensors"
        write(path, tensors, {"extractor": looker.name, "digest": looker.digest, "dataset": dataset, "split": split})
        written.append(path)
    return written


def measure_metrics(metrics: Mapping[str, Metric], fake: Features, reference: Features) -> tuple[Score, ...]:
    """Every metric that applies, as scores."""
    scores = []
    # Small matrices: with another process on the machine, many threads wait for each other far longer than they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, metric in metrics.items():
            estimate = metric(fake, reference)
            if estimate is None:
                continue
            kind = type(metric)
            better = cast(Any, kind.better)
            scores.append(
                Score(metric=name, title=kind.title, unit=kind.unit, better=better, about=kind.about, paper=kind.paper,
                      value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)
            )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    return tuple(scores)


def balanced_labels(model: Generator, count: int) -> list[int] | None:
    """Class i mod K for image i, the same for every model; None where the model takes no label."""
    return [i % model.num_classes for i in range(count)] if model.num_classes else None


def fitting_options(model: Generator, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that the model's family knows; a GAN has no steps, and that is no mistake."""
    return {key: value for key, value in options.items() if key in model.Options.model_fields}


def checked(images: Tensor, model: Generator, name: str) -> Tensor:
    """Images that are what they must be; raises GenzooError that names the model otherwise."""
    if tuple(images.shape[1:]) != tuple(model.shape):
        raise GenzooError(f"{name} made images of {tuple(images.shape[1:])}, but says it makes {tuple(model.shape)}")
    if not bool(images.isfinite().all()):
        raise GenzooError(f"{name} made images that hold NaN or infinity")
    return images


def sheet_of(images: Tensor, classes: Sequence[str], seeds: Sequence[int]) -> Sheet:
    """The first images as a sheet, one class a column."""
    count = min(len(images), SHEET_COLUMNS * SHEET_ROWS)
    columns = min(SHEET_COLUMNS, count)
    picture = grid(images[:count], columns=columns, gap=1)
    return Sheet(
        png=base64.b64encode(png_bytes(picture)).decode(),
        columns=columns,
        labels=tuple(classes[i % len(classes)] for i in range(columns)) if classes else (),
        seeds=tuple(seeds[:count]),
    )


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "0-999", or the seeds themselves where they are not a range."""
    listed = list(seeds)
    if listed == list(range(listed[0], listed[0] + len(listed))):
        return f"{listed[0]}-{listed[-1]}" if len(listed) > 1 else str(listed[0])
    text = ",".join(map(str, listed))
    return text if len(text) <= 300 else f"{text[:290]}... ({len(listed)} seeds)"


class Comparison:
    """The parts of one run that all models share."""

    def __init__(self, zoo: Zoo, request: Request) -> None:
        self.zoo, self.request = zoo, request
        if not request.models:
            raise OptionError(f"no model was trained on {request.dataset!r}; name some, see genzoo list")
        if len(request.seeds) < 20:
            raise OptionError(f"{len(request.seeds)} images are too few to measure anything; give -n 20 or more")
        # All names are resolved before anything is computed: a misspelt last one must not cost the first ones' minutes.
        self.cards = {name: find_card(zoo, name) for name in request.models}
        # In the order that their plugins chose, which is the order of the report.
        registered = [name for kind, name in zoo.entries if kind == "metric"]
        wanted = registered if request.metrics is None else request.metrics
        self.metrics = {spec.partition(":")[0]: cast(Metric, zoo.make("metric", spec)) for spec in wanted}
        self.extractor = find_extractor(zoo, request.extractor, request.dataset)
        self.reference = reference_of(zoo, self.extractor, request.dataset, "test")
        self.check_options()

    def check_options(self) -> None:
        """An option that no compared family knows is a mistake, not a wish for somebody else."""
        families = [self.zoo.find("generator", card.generator) for card, _ in self.cards.values()]
        known = {key for family in families for key in family.Options.model_fields}
        for key in self.request.options:
            if key not in known:
                raise OptionError(f"none of these models has an option {key!r}; known: {', '.join(sorted(known))}")

    def run(self) -> Iterator[Event]:
        """Measure every model, then real images."""
        rows = []
        for name in self.request.models:
            row: ModelResult | None = None
            for event in self.model(name):
                if isinstance(event, ModelResult):
                    row = event
                else:
                    yield event
            rows.append(cast(ModelResult, row))
        floor = self.floor()
        if floor is not None:
            rows.append(floor)
        yield Event("done", 1, 1, self.results(rows))

    def model(self, name: str) -> Iterator[Event | ModelResult]:
        """Measure one model; one that fails becomes a row that says why."""
        card, _ = self.cards[name]
        size = card.weights.size if card.weights else 0
        digest = card.weights.sha256 if card.weights else None
        row = ModelResult(
            name=card.name, summary=card.summary, generator=card.generator, file_bytes=size, weights=digest
        )
        try:
            yield from self._model(name, row)
        except OptionError:
            raise
        except Exception as error:  # a third party's code may raise anything; the other models are still wanted
            text = " ".join(str(error).split()) or type(error).__name__
            yield row.model_copy(update={"failed": text[:2000]})

    def _model(self, name: str, row: ModelResult) -> Iterator[Event | ModelResult]:
        request, total = self.request, len(self.request.seeds)
        model = self.zoo.load(name, device=request.device)
        options = fitting_options(model, request.options)
        labels = balanced_labels(model, total)
        chosen = model.options(**options)
        parts: list[Tensor] = []
        done = 0
        yield Event(f"{row.name}: generating", 0, total)
        batches = model.batches(
            request.seeds,
            batch=request.batch,
            exact=request.exact,
            **{**options, **({"labels": labels} if labels else {})},
        )
        for images in batches:
            # Through bytes, as they would be saved: a model is judged by the pictures that people get.
            parts.append(to_bytes(checked(images, model, row.name)).cpu())
            done += len(images)
            yield Event(f"{row.name}: generating", done, total)
        pixels = torch.cat(parts)
        yield Event(f"{row.name}: measuring", 0, 1)
        seen = self.extractor.over(pixels.float() / 127.5 - 1)
        fake = Features(seen.vectors, seen.logits, None if labels is None else torch.tensor(labels))
        scores = measure_metrics(self.metrics, fake, self.reference)
        speed: Speed | None = None
        if request.speed:
            yield Event(f"{row.name}: timing in a fresh process", 0, 1)
            speed = bench.measure(name, options, batch=min(request.batch, total), device=request.device)
        yield row.model_copy(
            update={
                "options": plain_options(chosen.model_dump(exclude={"labels"})),
                "parameters": sum(p.numel() for p in model.parameters()),
                "scores": scores,
                "speed": speed,
                "sheet": sheet_of(pixels.float() / 127.5 - 1, model.classes if labels else (), request.seeds),
            }
        )

    def floor(self) -> ModelResult | None:
        """As many real training images held against the reference: what a perfect model would reach here."""
        count = len(self.request.seeds)
        try:
            train = reference_of(self.zoo, self.extractor, self.request.dataset, "train")
        except GenzooError:
            return None  # the data set is not installed, and the extractor ships no features of it
        if len(train) < count:
            return None
        return ModelResult(
            name=DATA_ROW,
            kind="data",
            summary=f"{count} training images held against the test split: what a perfect model would reach",
            scores=measure_metrics(self.metrics, train[:count], self.reference),
        )

    def results(self, rows: Sequence[ModelResult]) -> Results:
        """Everything, with what it takes to repeat it."""
        request = self.request
        return Results(
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=request.command,
            environment=bench.environment(request.device),
            dataset=request.dataset,
            split="test",
            reference_n=len(self.reference),
            extractor=self.extractor.name,
            digest=self.extractor.digest,
            n=len(request.seeds),
            seeds=seeds_in_words(request.seeds),
            batch=request.batch,
            models=tuple(rows),
        )


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON can hold them."""
    return {k: v if isinstance(v, int | float | str | bool | type(None)) else _described(v) for k, v in options.items()}


def _described(value: Any) -> str:
    return f"{type(value).__name__}({value})" if isinstance(value, Scheduler) else str(value)


def compare(zoo: Zoo, request: Request) -> Iterator[Event]:
    """Compare models; the last event holds the results.

    Raises GenzooError before anything is computed for whatever the user got wrong; a model that fails later is a row
    that says so.
    """
    yield from Comparison(zoo, request).run()
