"""The training loop: a generator of events that survives being killed.

What step k does depends on the recipe, the data and k alone: the order of the data and all random numbers are derived
from (seed, k), so a resumed run needs the parts' tensors and nothing else to end as if it had never been stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from pydantic import Field, ValidationError
from torch import Tensor

from genzoo import evaluate
from genzoo.bench import processor
from genzoo.cards import Asset, Card, Name
from genzoo.checkpoints import Checkpoints
from genzoo.data import Batches, Images
from genzoo.documents import load
from genzoo.errors import OptionError, TrainingError, explain
from genzoo.files import write_whole
from genzoo.frozen import Frozen
from genzoo.generator import Generator
from genzoo.images import grid, save_png
from genzoo.metric import Extractor, Features
from genzoo.recipe import Batch, Recipe
from genzoo.registry import Zoo
from genzoo.weights import CARD_FILE, write

Every = Annotated[int, Field(ge=1, le=10**9)]


class DataChoice(Frozen):
    """A data set by name, with its settings."""

    name: Name
    settings: dict[str, int | float | str | bool] = Field(default_factory=dict)

    def load(self, zoo: Zoo, split: Any, path: str | None = None) -> Images:
        """The split; ``path`` overrides where it is looked for."""
        given = {**self.settings, **({"path": path} if path else {})}
        found = zoo.find("dataset", self.name)
        try:
            images: Images = found(**given).load(split)
        except ValidationError as error:
            raise OptionError(explain(error, f"data set {self.name}")) from None
        return images


class Measure(Frozen):
    """Quality measured while a run goes on, for its curve: it goes to the log and changes nothing.

    Attributes:
        extractor: a registered extractor that ships a reference for the data.
        every: in steps.
        n: images a time, from the seeds 0 to n - 1, with balanced labels.
    """

    extractor: Name
    every: Every
    n: Annotated[int, Field(ge=20, le=100_000)] = 2000


class RecipeFile(Frozen):
    """A recipe as it is written down.

    Attributes:
        version: of this schema.
        name: what the result is called: its card's name.
        recipe: the registered recipe.
        data: the data set.
        seed, steps, batch: of the run.
        settings: the recipe's own ``Config``.
        log_every, preview_every, checkpoint_every: in steps.
        measure: what is measured on the way, if anything.
    """

    version: Annotated[int, Field(ge=1, le=1)]
    name: Annotated[str, Field(min_length=1, max_length=120)]
    recipe: Name
    data: DataChoice
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1, le=10**9)]
    batch: Annotated[int, Field(ge=1, le=65536)]
    settings: dict[str, Any]
    log_every: Every = 50
    preview_every: Every = 1000
    checkpoint_every: Every = 500
    measure: Measure | None = None

    @property
    def run(self) -> str:
        """Identifies what the weights depend on; how often things are written does not count, nor does the length,
        so that a finished run can be lengthened."""
        written = {"log_every", "preview_every", "checkpoint_every", "measure", "steps", "name"}
        kept = self.model_dump(mode="json", exclude=written)
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Progress:
    """How a run stands.

    Attributes:
        step, steps: done, and wanted.
        values: the means of what was logged since the last event.
        images_per_second: since the last event.
        seconds: of training so far, earlier sessions included.
        seconds_left: at the present speed.
        saved: whether a checkpoint was just written.
    """

    step: int
    steps: int
    values: dict[str, float]
    images_per_second: float
    seconds: float
    seconds_left: float
    saved: bool


def read_recipe(path: Path) -> RecipeFile:
    """A recipe file, checked; raises DocumentError that names line and key."""
    return load(path).read(RecipeFile)


def _config(zoo: Zoo, file: RecipeFile) -> tuple[type[Recipe], Any]:
    cls = zoo.find("recipe", file.recipe)
    try:
        return cls, cls.Config.model_validate_json(json.dumps(file.settings), strict=True)
    except ValidationError as error:
        raise OptionError(explain(error, f"settings of recipe {file.recipe}")) from None


def train(
    file: RecipeFile,
    out: Path,
    *,
    zoo: Zoo,
    data: str | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    device: str = "cpu",
) -> Iterator[Progress]:
    """Train and yield how it stands after every step; the result lies in ``out/model`` when it ends.

    Args:
        file: the recipe.
        out: gets checkpoints/, log.jsonl, previews/ and model/ (card.yaml and model.safetensors).
        zoo: where names are looked up.
        data: path of the data set, where it is not where its plugin looks.
        resume: go on from the newest checkpoint; without it, a folder that holds one is refused.
        time_limit: stop after so many seconds of this call, with a checkpoint; resume goes on.
        device: where to train.

    Raises:
        TrainingError: a number that is not finite, a folder in use, checkpoints of another recipe.
    """
    cls, config = _config(zoo, file)
    images = file.data.load(zoo, "train", data)
    checkpoints = Checkpoints(out / "checkpoints", file.run)
    if not resume and checkpoints.folder.exists() and any(checkpoints.folder.glob("step-*.json")):
        raise TrainingError(f"{out} holds a run already; go on with --resume, or choose another --out")
    target = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(file.seed)
        recipe = cls(config, images, steps=file.steps, device=target)
    record = checkpoints.restore(recipe.parts()) if resume else None
    done, before = (record["step"], record["progress"]["seconds"]) if record else (0, 0.0)
    if done > file.steps:
        raise TrainingError(f"{out} stands at step {done}, beyond the recipe's {file.steps}")
    log = _Log(out / "log.jsonl", done)
    curve = Curve(zoo, file) if file.measure else None
    yield from _loop(file, recipe, images, checkpoints, log, curve, out, done, before, time_limit, target)


def _loop(
    file: RecipeFile,
    recipe: Recipe,
    images: Images,
    checkpoints: Checkpoints,
    log: _Log,
    curve: Curve | None,
    out: Path,
    done: int,
    before: float,
    time_limit: float | None,
    device: torch.device,
) -> Iterator[Progress]:
    batches = Batches(len(images), file.batch, file.seed)
    began = last = time.monotonic()
    sums: dict[str, float] = {}
    since = done
    for step in range(done, file.steps):
        values = _step(recipe, images, batches[step], step, file.seed, device)
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + value
        now, number = time.monotonic(), step + 1
        out_of_time = time_limit is not None and now - began >= time_limit
        saved = number % file.checkpoint_every == 0 or number == file.steps or out_of_time
        seconds = before + now - began
        if number % file.log_every == 0 or number == file.steps or out_of_time:
            means = {key: total / (number - since) for key, total in sums.items()}
            speed = (number - since) * file.batch / max(now - last, 1e-9)
            log.write({"step": number, **means, "images_per_second": round(speed, 2), "seconds": round(seconds, 2)})
            left = (file.steps - number) * file.batch / speed
            sums, since, last = {}, number, now
        else:
            means, speed, left = dict(values), file.batch / max(now - last, 1e-9) * (number - since), math.nan
            left = (file.steps - number) * file.batch / max(speed, 1e-9)
        if number % file.preview_every == 0 or number == file.steps:
            _preview(recipe, out / "previews" / f"step-{number:08d}.png")
        if curve is not None and (number % curve.every == 0 or number == file.steps):
            log.write({"step": number, **curve.measure(recipe)})
        if saved:
            checkpoints.save(number, recipe.parts(), {"seconds": seconds})
        yield Progress(number, file.steps, means, speed, seconds, left, saved)
        if out_of_time and number < file.steps:
            return
    write_model(file, recipe, images, out / "model", before + time.monotonic() - began)


class Curve:
    """Frechet distance and label accuracy of the result as it stands."""

    def __init__(self, zoo: Zoo, file: RecipeFile) -> None:
        if file.measure is None:
            raise TrainingError("the recipe has no key measure")
        self.every, self.n = file.measure.every, file.measure.n
        self.extractor: Extractor = zoo.make("extractor", file.measure.extractor)
        self.reference = evaluate.reference_of(zoo, self.extractor, file.data.name, "test")
        self.metrics = {name: zoo.make("metric", name) for name in ("frechet", "label-accuracy")}

    def measure(self, recipe: Recipe) -> dict[str, float]:
        """The values by metric; nothing where the recipe makes no generator."""
        model = recipe.trained().module
        if not isinstance(model, Generator):
            return {}
        labels = evaluate.balanced_labels(model, self.n)
        images = model.generate(range(self.n), labels=labels).cpu()
        seen = self.extractor.over(images)
        fake = Features(seen.vectors, seen.logits, torch.tensor(labels) if labels else None)
        scores = evaluate.measure_metrics(self.metrics, fake, self.reference)
        return {score.metric: score.value for score in scores}


def _step(recipe: Recipe, images: Images, rows: Tensor, step: int, seed: int, device: torch.device) -> dict[str, float]:
    noise = torch.Generator().manual_seed(_step_seed(seed, step))
    batch = Batch(images.floats(rows).to(device), images.labels[rows].to(device), step)
    # Dropout and whatever else draws from the global stream follows the step as well.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_step_seed(seed, step) ^ 0x5DEECE66)
        values = recipe.step(batch, noise)
    bad = [key for key, value in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{bad[0]} is {values[bad[0]]} at step {step + 1}; the last good checkpoint is kept: "
            "lower the learning rate in the recipe, or resume with precision: fp32"
        )
    return values


def _step_seed(seed: int, step: int) -> int:
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _preview(recipe: Recipe, path: Path) -> None:
    images = recipe.preview()
    if images is not None:
        save_png(path, grid(images, columns=10))


def write_model(file: RecipeFile, recipe: Recipe, images: Images, folder: Path, seconds: float) -> Asset:
    """Write the result of a run: model.safetensors, and card.yaml where it is a generator."""
    trained = recipe.trained()
    metadata = {"recipe": json.dumps(file.model_dump(mode="json")), **trained.metadata}
    asset = write(folder / "model.safetensors", trained.module.state_dict(), metadata)
    training = {
        "recipe": f"recipes/{file.name.partition('.')[2] or file.name}.yaml",
        "seed": file.seed,
        "steps": file.steps,
        "batch": file.batch,
        "images": file.steps * file.batch,
        "minutes": max(round(seconds / 60, 2), 0.01),
        "hardware": hardware(),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }
    if not trained.card:
        write_whole(folder / "training.yaml", yaml.safe_dump(training, sort_keys=False))
        return asset
    draft = dict(trained.card)
    draft["summary"] = f"{draft['summary']} trained on {images.name}"
    card = Card.model_validate(
        {
            "name": file.name,
            **draft,
            "shape": images.shape,
            "classes": images.classes if recipe_classes(draft) else (),
            "weights": asset.model_dump(),
            "data": file.data.name,
            "licence": "MIT",
            "training": training,
        }
    )
    body = card.model_dump(mode="json", exclude_defaults=True)
    write_whole(folder / CARD_FILE, yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    return asset


def recipe_classes(draft: dict[str, Any]) -> int:
    """How many classes the config of a card draft knows."""
    return int(draft.get("config", {}).get("num_classes") or 0)


def hardware() -> str:
    """The machine in words: processor and threads in use."""
    return f"{processor()}, {torch.get_num_threads()} threads"


class _Log:
    """JSON lines; a resumed run drops those that its checkpoint does not cover."""

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if done and path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= done:
                        kept.append(line)
                except (ValueError, KeyError):
                    break  # cut short by the kill
        write_whole(path, "".join(line + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
