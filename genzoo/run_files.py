"""What a training run writes: its log, with the curve of what was measured, previews, and in the end the model."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from genzoo import evaluate
from genzoo.bench import processor
from genzoo.cards import Asset, Card
from genzoo.checkpoints import Checkpoints
from genzoo.data import Images
from genzoo.distributed import World
from genzoo.errors import TrainingError
from genzoo.files import clear_unfinished, write_whole
from genzoo.generator import Generator
from genzoo.images import grid, save_png
from genzoo.milestones import Milestone, measured, read_log
from genzoo.recipe import Recipe
from genzoo.recipe_file import RecipeFile
from genzoo.registry import Zoo
from genzoo.weights import CARD_FILE, write


class RunFiles:
    """What a run writes: the log, previews, checkpoints and in the end the model. Clears away what a killed one began.

    Args:
        zoo: where the metrics of the curve are looked up.
        file: the recipe.
        out: the folder.
        done: steps that are done; the log is cut off there.
        checkpoints: where they lie.
    """

    def __init__(self, zoo: Zoo, file: RecipeFile, out: Path, done: int, checkpoints: Checkpoints) -> None:
        self.file, self.out, self.checkpoints = file, out, checkpoints
        for folder in (checkpoints.folder, out / "previews", out / "model"):
            clear_unfinished(folder)
        self.log = Log(out / "log.jsonl", done)
        self.curve = Curve(zoo, file) if file.measure else None

    def log_losses(self, number: int, means: dict[str, float], speed: float, seconds: float) -> None:
        """The means since the last such line."""
        self.log.write({"step": number, **means, "images_per_second": round(speed, 2), "seconds": round(seconds, 2)})

    def after_step(self, recipe: Recipe, number: int, seconds: float) -> None:
        """A preview and a point of the curve, where they are due."""
        last = number == self.file.steps
        if number % self.file.preview_every == 0 or last:
            images = recipe.preview()
            if images is not None:
                save_png(self.out / "previews" / f"step-{number:08d}.png", grid(images, columns=10))
        if self.curve is not None and (number % self.curve.every == 0 or last):
            self.log.write({"step": number, **self.curve.measure(recipe), "seconds": round(seconds, 2)})

    def finish(self, recipe: Recipe, images: Images, seconds: float, world: World) -> None:
        """The result."""
        curve = measured(read_log(self.log.path))
        write_model(self.file, recipe, images, self.out / "model", seconds, curve, processes=world.size)


class Curve:
    """The metrics of the result as it stands, with the options that its card will have."""

    def __init__(self, zoo: Zoo, file: RecipeFile) -> None:
        if file.measure is None:
            raise TrainingError("the recipe has no key measure")
        self.every, self.n = file.measure.every, file.measure.n
        extractor = evaluate.find_extractor(zoo, file.measure.extractor, file.data.name)
        reference = evaluate.load_reference(zoo, extractor, file.data.name, train=False)
        metrics = evaluate.find_metrics(zoo, file.measure.metrics)
        self.evaluator = evaluate.Evaluator(extractor, reference, metrics)

    def measure(self, recipe: Recipe) -> dict[str, float]:
        """The values by metric; nothing where the recipe makes no generator."""
        trained = recipe.trained()
        model, options = trained.module, trained.card.get("options", {})
        if not isinstance(model, Generator):
            return {}
        labels = evaluate.balanced_labels(model, self.n)
        made = evaluate.pictures(model, range(self.n), labels, name="the model in training", **options)
        scores = self.evaluator(torch.cat(list(made)), labels)
        return {score.metric: score.value for score in scores}


def write_model(
    file: RecipeFile,
    recipe: Recipe,
    images: Images,
    folder: Path,
    seconds: float,
    curve: Sequence[Milestone] = (),
    processes: int = 1,
) -> Asset:
    """Write the result of a run: model.safetensors, and card.yaml, which holds the curve, where it is a generator."""
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
        "hardware": hardware(processes),
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
            "licence": file.licence,
            "training": {**training, "curve": curve},
        }
    )
    body = card.model_dump(mode="json", exclude_defaults=True)
    write_whole(folder / CARD_FILE, yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    return asset


def recipe_classes(draft: dict[str, Any]) -> int:
    """How many classes the config of a card draft knows."""
    return int(draft.get("config", {}).get("num_classes") or 0)


def hardware(processes: int = 1) -> str:
    """The machine in words: processor, processes and threads of each."""
    several = f"{processes} processes of " if processes > 1 else ""
    threads = torch.get_num_threads()
    return f"{processor()}, {several}{threads} thread{'s' * (threads > 1)}"


class Log:
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
        """One line, whole once this returns."""
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
