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
from typing import Any, cast

import torch
from measured import Difference, Point, Setting

from genzoo import evaluate
from genzoo.bench import now
from genzoo.errors import GenzooError, OptionError
from genzoo.images import to_bytes
from genzoo.metric import Features, Metric
from genzoo.registry import Zoo
from genzoo.tensors import read, write
from genzoo.uncertainty import jackknife

BATCH = 64

#: Of the jackknife for the difference of two settings.
FOLDS = 25


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

    Attributes:
        maker: who makes the images, where it is not genzoo: it keeps files of its own.
        apart: differences that need not be found again, by setting, anchor, first seed and images.
    """

    maker = ""

    def __init__(self, zoo: Zoo, model: str, work: Path, budget: float, limit: int | None = None) -> None:
        self.zoo, self.work, self.limit = zoo, work, limit
        self.end = time.monotonic() + budget
        self.model = zoo.load(model)
        if self.model.card is None or self.model.card.weights is None or not hasattr(self.model, "denoiser"):
            raise OptionError(f"{model} is no diffusion model with weights; name one, see genzoo list")
        self.card = self.model.card
        self.weights = self.model.card.weights.sha256
        self.extractor = evaluate.find_extractor(zoo, None, self.card.data)
        self.reference = evaluate.load_reference(zoo, self.extractor, self.card.data, train=False)
        self.metrics: dict[str, Metric] = {name: zoo.make("metric", name) for name in ("frechet", "label-accuracy")}
        self.apart: dict[tuple[Setting, Setting, int, int], Difference] = {}
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
        if self._affordable(scheduler, nfe, guidance, nfe):  # as with every method of one evaluation a step
            low = nfe
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

    def measure(self, setting: Setting, n: int, start: int = 0) -> Point:
        """The point of a setting with the ``n`` images from seed ``start`` on: read where it was measured before.

        Raises Spent where it would not be done in the time that is left; what was made of it then is kept.
        """
        known = self.known.get((setting, start, n))
        if known is not None:
            return known
        self._granted()
        point = self._judged(setting, *self.features(setting, start + n), start, n)
        if self.limit is not None:
            self.limit -= 1
        return point

    def _granted(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise Spent("as many points as --limit allows were measured")

    def at_hand(self, n: int) -> list[Point]:
        """The points with the images of the seeds 0 to n - 1 that can be had without making one."""
        points = []
        for setting in dict.fromkeys(setting for setting, _, _ in self.known):
            known = self.known.get((setting, 0, n))
            if known is None and max(s + count for other, s, count in self.known if other == setting) >= n:
                seen, seconds = self.kept(setting)
                known = self._judged(setting, seen, seconds, 0, n) if seen is not None and len(seen) >= n else None
            points += [known] if known is not None else []
        return points

    def difference(self, setting: Setting, anchor: Setting, n: int, start: int = 0) -> Difference:
        """How much farther from the data a setting is than the anchor, over the same seeds; see ``measure``."""
        known = self.apart.get((setting, anchor, start, n))
        if known is not None:
            return known
        if any(seen is None or len(seen) < start + n for seen, _ in map(self.kept, (setting, anchor))):
            self._granted()  # no point is lacking, but images are, and they may be the anchor's
        distance: Any = self.metrics["frechet"]
        over = [
            distance.over(self.features(one, start + n)[0].vectors[start : start + n], self.reference.vectors)
            for one in (setting, anchor)
        ]
        # Classes come in turn: one image of each is the least that may be left out, or the parts' classes would differ.
        size = self.model.num_classes or 1
        units = n // size
        folds = min(FOLDS, units // 2)

        def apart(chosen: torch.Tensor) -> float:
            rows = (chosen[:, None] * size + torch.arange(size)).flatten()
            return float(over[0](rows) - over[1](rows))

        mine, theirs = (float(statistic(torch.arange(n))) for statistic in over)
        low, high = (jackknife(units, apart, mine - theirs, folds) if folds > 1 else None) or (None, None)
        found = Difference(
            setting=setting, start=start, n=n, value=mine - theirs, low=low, high=high, distance=mine, anchor=theirs
        )
        self.apart[setting, anchor, start, n] = found
        return found

    def asked(self, seen: Features) -> Features:
        """Features of the first images, with the classes that were asked for: these come in turn."""
        classes = self.model.num_classes
        return Features(seen.vectors, seen.logits, torch.arange(len(seen)) % classes if classes else None)

    def _judged(self, setting: Setting, seen: Features, seconds: float, start: int, n: int) -> Point:
        """The point of a setting's features, kept."""
        fake = self.asked(seen)[start : start + n]
        distance = self.metrics["frechet"](fake, self.reference)
        accuracy = self.metrics["label-accuracy"](fake, self.reference)
        if distance is None:
            raise GenzooError("the Frechet distance does not apply to these images")
        point = Point(
            setting=setting,
            nfe=self.nfe(setting),
            start=start,
            n=n,
            value=distance.value,
            low=distance.low,
            high=distance.high,
            accuracy=accuracy.value if accuracy else None,
            seconds=seconds * n / len(seen),
            made=now(),
        )
        self.known[setting, start, n] = point
        self.work.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            file.write(point.model_dump_json() + "\n")
        return point

    @property
    def log(self) -> Path:
        """The finished points, a JSON object a line; its name holds what they depend on."""
        return self.work / f"{self.maker}points-{self.weights[:12]}-{self.extractor.digest[:12]}.jsonl"

    @cached_property
    def known(self) -> dict[tuple[Setting, int, int], Point]:
        """The finished points, by setting, first seed and images. A line that was cut short is passed over."""
        found = {}
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            try:
                point = Point.model_validate_json(line)
            except ValueError:
                continue
            found[point.setting, point.start, point.n] = point
        return found

    def kept(self, setting: Setting) -> tuple[Features | None, float]:
        """(features of the images that were made so far, seconds that those took)."""
        path = self._file(setting)
        if not path.exists():
            return None, 0.0
        kept = read(path)
        return Features(kept["vectors"].clone(), kept["logits"].clone()), float(kept.metadata["seconds"])

    def _file(self, setting: Setting) -> Path:
        key = hashlib.sha256(f"{self.maker}{self.weights} {self.extractor.digest} {setting.model_dump_json()}".encode())
        return self.work / f"features-{key.hexdigest()[:20]}.safetensors"

    def images(self, setting: Setting, seeds: Sequence[int], labels: Sequence[int] | None) -> torch.Tensor:
        """One batch of images, float32 in [-1, 1]."""
        return self.model.generate(seeds, batch=len(seeds), labels=labels, **setting.options)

    def features(self, setting: Setting, n: int) -> tuple[Features, float]:
        """(features of the first n images at least, seconds that those took), made batch by batch and kept."""
        seen, seconds = self.kept(setting)
        done, nfe = 0 if seen is None else len(seen), self.nfe(setting)
        parts = [] if seen is None else [seen]
        while done < n:
            count = min(BATCH, max(n - done, 1))
            if self.end - time.monotonic() < self.rate * count * nfe:
                raise Spent(f"{setting.scheduler} at {nfe:g} evaluations would not be done in the time that is left")
            begin = time.perf_counter()
            seeds = range(done, done + count)
            labels = [seed % self.model.num_classes for seed in seeds] if self.model.num_classes else None
            images = self.images(setting, seeds, labels)
            took = time.perf_counter() - begin
            self.rate = took / (count * nfe)
            seconds, done = seconds + took, done + count
            # Through bytes, as they would be saved.
            parts.append(evaluate.features_of(self.extractor, to_bytes(images)))
            seen = Features.joined(parts)
            self.work.mkdir(parents=True, exist_ok=True)
            tensors = {"vectors": seen.vectors, "logits": cast(torch.Tensor, seen.logits)}
            write(self._file(setting), tensors, {"seconds": str(seconds)})
            parts = [seen]
        return Features.joined(parts), seconds
