"""A shipped diffusion model under many settings of its sampling: each setting's distance, measured once.

The features of a setting's images are kept as they are made, and an image depends on its seed alone, so that nothing is
made twice: not after an interruption, and not when more images are wanted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field

from genzoo.bench import now
from genzoo.errors import GenzooError, OptionError
from genzoo.frozen import Frozen, Seq, Text
from genzoo.metric import Extractor, Features, Metric, Reference
from genzoo.registry import Zoo
from genzoo.results import Count, Environment, Label, Number
from genzoo.tensors import read, write

BATCH = 64


class Setting(Frozen):
    """One way of sampling.

    Attributes:
        scheduler: a registered name with its options, as "unipc:spacing=trailing".
        steps: of the scheduler.
        guidance: a scale, or a registered name with options.
    """

    scheduler: Label
    steps: Annotated[int, Field(ge=1, le=100_000)]
    guidance: Label = "1"

    @property
    def name(self) -> str:
        """The scheduler's name alone."""
        return self.scheduler.partition(":")[0]

    @property
    def options(self) -> dict[str, Any]:
        """As ``generate`` takes them."""
        bare = self.guidance.replace(".", "", 1).isdecimal()
        guidance = float(self.guidance) if bare else self.guidance
        return {"scheduler": self.scheduler, "steps": self.steps, "guidance": guidance}


class Point(Frozen):
    """A setting, measured.

    Attributes:
        setting: of the sampling.
        nfe: evaluations of the network per image.
        n: images, of the seeds 0 to n - 1 and the classes in turn.
        value, low, high: the Frechet distance with its 95 % interval.
        accuracy: per cent of the images that the extractor takes for their class.
        seconds: that the images took, on a machine that may have had other work.
        made: when, ISO 8601, UTC.
    """

    setting: Setting
    nfe: Number
    n: Count
    value: Number
    low: Number | None
    high: Number | None
    accuracy: Number | None
    seconds: Number
    made: Label


class Found(Frozen):
    """What a search found.

    Attributes:
        within: "genzoo", everything that is registered; "diffusers", only what it has too.
        goal: the Frechet distance to reach.
        point: the cheapest setting that reaches it; null where none did.
        tried: settings that were looked at.
    """

    within: Literal["genzoo", "diffusers"]
    goal: Number
    point: Point | None
    tried: Count


class Curve(Frozen):
    """Everything that was measured, with what it takes to repeat it.

    Attributes:
        made: when, ISO 8601, UTC.
        command: what repeats it.
        model, weights: the card's name and the sha256 of its weights.
        dataset, extractor, digest: what the distances are measured with.
        n: images of each point.
        points: by scheduler and evaluations.
        skipped: scheduler -> why it is not there.
        found: of the searches.
    """

    format: Literal["genzoo.solvers/1"] = "genzoo.solvers/1"
    made: Label
    command: Text
    environment: Environment
    model: Label
    weights: Label
    dataset: Label
    extractor: Label
    digest: Label
    n: Count
    points: Seq[Point]
    skipped: dict[str, str] = Field(default_factory=dict)
    found: Seq[Found] = ()


class Spent(GenzooError):
    """The time or the number of points that was granted is used up."""


class Bench:
    """One model, one extractor, and what was measured with them.

    Args:
        zoo: of the names.
        model: a diffusion card's name.
        work: a folder for the features of the images, and for the points as they are finished.
        budget: seconds.
        limit: points that may still be measured; None for any number.
    """

    def __init__(self, zoo: Zoo, model: str, work: Path, budget: float, limit: int | None = None) -> None:
        self.zoo, self.work, self.limit = zoo, work, limit
        self.end = time.monotonic() + budget
        self.model = zoo.load(model)
        if self.model.card is None or self.model.card.weights is None or not hasattr(self.model, "denoiser"):
            raise OptionError(f"{model} is no diffusion model with weights; name one, see genzoo list")
        self.card = self.model.card
        self.weights = self.model.card.weights.sha256
        extractors = (cast(Extractor, zoo.make("extractor", name)) for name in zoo.names("extractor"))
        fit = next((e for e in extractors if e.reference(self.card.data, "test") is not None), None)
        if fit is None:
            raise OptionError(f"no extractor ships a reference for {self.card.data!r}; see genzoo plugins")
        self.extractor = fit
        real = cast(Features, fit.reference(self.card.data, "test"))
        self.reference = Reference(real.vectors, real.logits, real.labels)
        self.metrics: dict[str, Metric] = {name: zoo.make("metric", name) for name in ("frechet", "label-accuracy")}
        self.rate = 0.0  # seconds an image and evaluation, of the last that was measured

    def nfe(self, setting: Setting) -> float:
        """Evaluations of the network per image; raises GenzooError where the setting does not fit the model."""
        return self.model.nfe(self.model.options(**setting.options))

    def at(self, scheduler: str, nfe: int, guidance: str = "1") -> Setting | None:
        """The setting with the most steps that needs at most ``nfe`` evaluations; None where a single step needs more.

        Raises GenzooError where the scheduler does not fit the model.
        """
        low, high = 1, nfe
        if self.nfe(Setting(scheduler=scheduler, steps=1, guidance=guidance)) > nfe:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            if self._affordable(scheduler, middle, guidance, nfe):
                low = middle
            else:
                high = middle - 1
        return Setting(scheduler=scheduler, steps=low, guidance=guidance)

    def _affordable(self, scheduler: str, steps: int, guidance: str, nfe: int) -> bool:
        try:
            return self.nfe(Setting(scheduler=scheduler, steps=steps, guidance=guidance)) <= nfe
        except OptionError:
            return False  # more steps than the schedule has, or than the scheduler knows

    # -- measuring ---------------------------------------------------------------------------------------------------

    def measure(self, setting: Setting, n: int) -> Point:
        """The point of a setting with ``n`` images: read where it was measured before.

        Raises Spent where it would not be done in the time that is left; what was made of it then is kept.
        """
        known = self.known.get((setting, n))
        if known is not None:
            return known
        if self.limit is not None and self.limit < 1:
            raise Spent("as many points as --limit allows were measured")
        nfe = self.nfe(setting)
        seen, seconds = self.features(setting, n, nfe)
        classes = self.model.num_classes
        fake = Features(seen.vectors, seen.logits, torch.arange(len(seen)) % classes if classes else None)[:n]
        distance = self.metrics["frechet"](fake, self.reference)
        accuracy = self.metrics["label-accuracy"](fake, self.reference)
        if distance is None:
            raise GenzooError("the Frechet distance does not apply to these images")
        point = Point(
            setting=setting,
            nfe=nfe,
            n=n,
            value=distance.value,
            low=distance.low,
            high=distance.high,
            accuracy=accuracy.value if accuracy else None,
            seconds=seconds,
            made=now(),
        )
        self.known[setting, n] = point
        if self.limit is not None:
            self.limit -= 1
        self.work.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            file.write(point.model_dump_json() + "\n")
        return point

    @property
    def log(self) -> Path:
        """The finished points, a JSON object a line; its name holds what they depend on."""
        return self.work / f"points-{self.weights[:12]}-{self.extractor.digest[:12]}.jsonl"

    @cached_property
    def known(self) -> dict[tuple[Setting, int], Point]:
        """The finished points. A line that an interruption cut short is passed over."""
        found = {}
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            try:
                point = Point.model_validate_json(line)
            except ValueError:
                continue
            found[point.setting, point.n] = point
        return found

    def features(self, setting: Setting, n: int, nfe: float) -> tuple[Features, float]:
        """(features of the first n images at least, seconds that those took), made batch by batch and kept."""
        key = hashlib.sha256(f"{self.weights} {self.extractor.digest} {setting.model_dump_json()}".encode())
        path = self.work / f"features-{key.hexdigest()[:20]}.safetensors"
        parts: list[Features] = []
        seconds, done = 0.0, 0
        if path.exists():
            kept = read(path)
            parts = [Features(kept["vectors"].clone(), kept["logits"].clone())]
            seconds, done = float(kept.metadata["seconds"]), len(kept["vectors"])
        while done < n:
            count = min(BATCH, max(n - done, 1))
            if self.end - time.monotonic() < self.rate * count * nfe:
                raise Spent(f"{setting.scheduler} at {nfe:g} evaluations would not be done in the time that is left")
            begin = time.perf_counter()
            seeds = range(done, done + count)
            labels = [seed % self.model.num_classes for seed in seeds] if self.model.num_classes else None
            images = self.model.generate(seeds, batch=count, labels=labels, **setting.options)
            took = time.perf_counter() - begin
            self.rate = took / (count * nfe)
            seconds, done = seconds + took, done + count
            # Through bytes, as they would be saved.
            parts.append(self.extractor.over(images.add(1).mul(127.5).round().div(127.5).sub(1)))
            seen = joined(parts)
            self.work.mkdir(parents=True, exist_ok=True)
            write(path, {"vectors": seen.vectors, "logits": cast(torch.Tensor, seen.logits)}, {"seconds": str(seconds)})
            parts = [seen]
        return joined(parts), seconds


def joined(parts: Sequence[Features]) -> Features:
    """Features one after the other."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(torch.cat([part.vectors for part in parts]), torch.cat(logits) if logits else None)


def describe(point: Point) -> str:
    """A point on one line."""
    setting = point.setting
    return f"{setting.scheduler}, {setting.steps} steps, guidance {setting.guidance}: {point.value:.4f}"
