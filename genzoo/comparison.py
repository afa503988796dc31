"""Compare models in one run: the same seeds, labels, reference, extractor and machine for all of them.

``Comparison.run`` is a generator of events, so that progress bars belong to whoever listens.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from genzoo import bench, evaluate
from genzoo.cards import Card
from genzoo.errors import GenzooError, OptionError, cause, shorten
from genzoo.evaluate import Evaluator
from genzoo.events import Event
from genzoo.fingerprint import fingerprint
from genzoo.generator import DEFAULT_BATCH
from genzoo.generator import Generator as Model
from genzoo.metric import Features
from genzoo.options import check_known, check_specs, fitting_options, read_options
from genzoo.registry import Zoo
from genzoo.results import ModelResult, Neighbours, Results
from genzoo.sheets import neighbours_of, sheet_of
from genzoo.spec import plain_options
from genzoo.subject import Subject, Work
from genzoo.weights import find_card

#: The row of real images, the floor.
DATA_ROW = "real images"
#: Fewer images say nothing.
LEAST = 20


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        models: card names or folders.
        seeds: one per image: those of all repetitions, one after the other.
        repeats: into how many equally long repetitions the seeds are cut; every metric is taken of each.
        dataset: a registered data set, with settings; the reference is its test split.
        extractor: a registered extractor; by default the one that ships a reference for the data set.
        metrics: registered names, with options; all of them by default.
        options: per-call options for all models that know them, as steps.
        batch, device, exact: of generating.
        control_n: images at each point of the control curves; 0 for none.
        speed: whether to measure time and memory.
        quick: measure these for a short time only.
        command: what the user typed, for the record.
    """

    models: Sequence[str]
    seeds: Sequence[int]
    dataset: str
    repeats: int = 1
    extractor: str | None = None
    metrics: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = DEFAULT_BATCH
    device: str = "cpu"
    exact: bool = False
    control_n: int = 0
    speed: bool = True
    quick: bool = False
    command: str = "genzoo compare"

    @property
    def n(self) -> int:
        """Images a repetition."""
        return len(self.seeds) // self.repeats


def fitting_models(zoo: Zoo, dataset: str) -> list[str]:
    """Names of all contenders that were trained on a data set and make images from noise."""
    name = data_name(dataset)
    return [card.name for card in zoo.contenders() if card.data == name and not _translates(zoo, card)]


def data_name(dataset: str) -> str:
    """The name of a data set that may be given with settings, as image-folder:path=pictures."""
    return dataset.partition(":")[0]


def _family(zoo: Zoo, card: Card) -> type[Model] | None:
    """The generator of a card; None where its plugin fails, which the model's row will tell."""
    try:
        return zoo.find("generator", card.generator)
    except GenzooError:
        return None


def _translates(zoo: Zoo, card: Card) -> bool:
    family = _family(zoo, card)
    return family is not None and family.takes_images


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "0-999", or the seeds themselves where they are not a range."""
    listed = list(seeds)
    if listed == list(range(listed[0], listed[0] + len(listed))):
        return f"{listed[0]}-{listed[-1]}" if len(listed) > 1 else str(listed[0])
    text = ",".join(map(str, listed))
    return text if len(text) <= 300 else f"{text[:290]}... ({len(listed)} seeds)"


class Comparison:
    """The parts of one run that all models share.

    Attributes:
        rows: the models that are measured so far.
        floor: the row of real images; None until it is measured, and where no training images are at hand.
    """

    def __init__(self, zoo: Zoo, request: Request) -> None:
        """Raises GenzooError, before anything is computed, for whatever the user got wrong."""
        self.zoo, self.request = zoo, request
        fingerprint()  # taken now, of the code that runs: at the end it may have been edited
        self.rows: list[ModelResult] = []
        self.floor: ModelResult | None = None
        if not request.models:
            raise OptionError(f"no model was trained on {request.dataset!r}; name some, see genzoo list")
        if request.repeats < 1 or len(request.seeds) % request.repeats:
            raise OptionError(
                f"{len(request.seeds)} seeds cannot be cut into {request.repeats} repetitions of equal length; "
                "give another --repeats, or another number of seeds"
            )
        if request.n < LEAST:
            raise OptionError(f"{request.n} images are too few to measure anything; give -n {LEAST} or more")
        if request.control_n and request.control_n < LEAST:
            raise OptionError(f"--control-n {request.control_n} is too few; give {LEAST} or more, or 0 for no curves")
        # All names are resolved before anything is computed: a misspelt last one must not cost the first ones' minutes.
        self.cards = {name: find_card(zoo, name)[0] for name in request.models}
        self._check_options()
        self.extractor = evaluate.find_extractor(zoo, request.extractor, request.dataset)
        self.metrics = evaluate.find_metrics(zoo, request.metrics)

    def _check_options(self) -> None:
        options, families = self.request.options, [_family(self.zoo, card) for card in self.cards.values()]
        if "labels" in options:
            raise OptionError("a comparison asks for all classes alike; leave labels out")
        known = [family for family in families if family is not None]
        # What a family knows whose plugin fails, nobody can tell.
        if len(known) == len(families):
            check_known(options, known)
        for card, family in zip(self.cards.values(), families, strict=True):
            if family is None:
                continue
            if family.takes_images:
                raise OptionError(
                    f"{card.name} changes given images; leave it out: models are compared from noise alone"
                )
            read_options(family, card, fitting_options(family, options))
        check_specs(self.zoo, options)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """What all are measured with; made at first use: without shipped features, it looks at thousands of images."""
        reference = evaluate.load_reference(self.zoo, self.extractor, self.request.dataset)
        return Evaluator(self.extractor, reference, self.metrics)

    def run(self) -> Iterator[Event]:
        """Measure real images, then every model; one that fails becomes a row that says why.

        Raises GenzooError where no model could be measured.
        """
        yield Event(f"{DATA_ROW}: looking at them", 0, 1)
        # First: a metric that needs more images than there are, or that fails, says so before any is generated.
        self.floor = yield from self._floor()
        for name in self.request.models:
            self.rows.append((yield from self._row(name)))
        if all(row.failed for row in self.rows):
            raise GenzooError(f"no model could be measured; {self.rows[0].name}: {self.rows[0].failed}")

    def _row(self, name: str) -> Work[ModelResult]:
        """Measure one model; one that fails becomes a row that says why."""
        card = self.cards[name]
        row = ModelResult(
            name=card.name,
            summary=card.summary,
            generator=card.generator,
            file_bytes=card.weights.size if card.weights else 0,
            weights=card.weights.sha256 if card.weights else None,
            training=card.training.curve if card.training else (),
        )
        try:
            return row.model_copy(update=(yield from self._measured(name, row.name)))
        except Exception as error:  # a third party's code may raise anything; the other models are still wanted
            return row.model_copy(update={"failed": shorten(cause(error), 2000)})

    def _measured(self, name: str, who: str) -> Work[dict[str, Any]]:
        """What is measured of a model, by the fields of its row; ``who`` names it to people."""
        request = self.request
        model = self.zoo.load(name, device=request.device)
        options = fitting_options(type(model), request.options)
        subject = Subject(who, model, options, request.batch, request.exact)
        speed = None
        if request.speed:
            yield Event(f"{who}: timing in a fresh process", 0, 1)
            speed = bench.measure(
                name,
                plain_options(options, self.zoo),
                batch=min(request.batch, request.n),
                device=request.device,
                quick=request.quick,
            )
        # The same labels in every repetition.
        labels = evaluate.balanced_labels(model, request.n)
        asked = None if labels is None else labels * request.repeats
        pixels = yield from subject.pictures("generating", request.seeds, asked)
        yield Event(f"{who}: measuring", 0, 1)
        fake = self.evaluator.features(pixels, asked)
        few = min(request.control_n, request.n)
        return {
            "options": plain_options(model.options(**options), self.zoo),
            "parameters": sum(p.numel() for p in model.parameters()),
            "scores": self.evaluator.scores(fake, request.repeats),
            "speed": speed,
            # Of the first repetition: the next one begins with the first class again.
            "sheet": sheet_of(pixels[: request.n], model.classes if labels else (), request.seeds),
            "neighbours": self._neighbours(fake, pixels),
            "sweeps": (yield from subject.sweeps(self.evaluator, request.seeds[:few], pixels[:few])),
        }

    def _neighbours(self, fake: Features, pixels: Tensor) -> Neighbours | None:
        train = self.evaluator.reference.train
        if train is None or self._train_pixels is None:
            return None
        return neighbours_of(fake, train, pixels, self._train_pixels[: len(train)], self.request.seeds)

    @functools.cached_property
    def _train_pixels(self) -> Tensor | None:
        """The training images, where the data set is installed; of the features row i belongs to image i."""
        try:
            pixels: Tensor = self.zoo.make("dataset", self.request.dataset).load("train").pixels
        except GenzooError:
            return None
        return pixels

    def _floor(self) -> Work[ModelResult | None]:
        """The row of real images, in as many repetitions as there are images for."""
        reference, n = self.evaluator.reference, self.request.n
        repeats = evaluate.floor_repeats(reference, n, self.request.repeats)
        if not repeats:
            return None
        yield Event(f"{DATA_ROW}: measuring", 0, 1)
        times = f"{repeats} times {n}" if repeats > 1 else str(n)
        return ModelResult(
            name=DATA_ROW,
            kind="data",
            summary=f"{times} training images held against the test split: what a perfect model would reach. A measure "
            f"that takes no reference sees images of the test split, of which there are {len(reference)}",
            scores=evaluate.measure_floor(self.metrics, reference, n, repeats),
        )

    def results(self) -> Results:
        """What is measured so far, with what it takes to repeat it."""
        request, extractor = self.request, self.extractor
        return Results(
            made=bench.now(),
            command=request.command,
            environment=bench.environment(request.device),
            dataset=data_name(request.dataset),
            split="test",
            reference_n=len(self.evaluator.reference),
            extractor=extractor.name,
            digest=extractor.digest,
            n=request.n,
            repeats=request.repeats,
            seeds=seeds_in_words(request.seeds),
            classes=extractor.classes or next((card.classes for card in self.cards.values() if card.classes), ()),
            batch=request.batch,
            models=(*self.rows, *([self.floor] if self.floor else [])),
        )
