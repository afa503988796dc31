"""A family that trains in milliseconds and does as its settings say: steady, or astray in one of four ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from tiny import squares
from torch import Tensor, nn

from genzoo.data import Dataset, Images, Split
from genzoo.frozen import Frozen
from genzoo.generator import Generator
from genzoo.hookspecs import hookimpl
from genzoo.metric import Extractor, Features
from genzoo.noise import Noise
from genzoo.recipe import Batch, Recipe, Trained, check_fit
from genzoo.recipe_file import RecipeFile
from genzoo.registry import Registrar, Zoo

SIZE = 8
Ways = Literal["steady", "diverges", "copies", "drops", "fails"]


class Squares(Dataset):
    """The bright squares of ``tiny``, of two classes."""

    def load(self, split: Split) -> Images:
        images = squares(400, SIZE)
        return Images(images.pixels, images.labels, images.classes, "squares", split)


class Eye(Extractor):
    """The pixels themselves, 4x4 of them, and the brighter half's number."""

    name = "eye"
    width = 16
    classes = ("left", "right")

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"eye").hexdigest()

    def extract(self, images: Tensor) -> Features:
        vectors = nn.functional.avg_pool2d(images, SIZE // 4).flatten(1)
        left, right = images[..., : SIZE // 2].mean(dim=(1, 2, 3)), images[..., SIZE // 2 :].mean(dim=(1, 2, 3))
        return Features(vectors, torch.stack([left, right], dim=1))

    def reference(self, dataset: str, split: str) -> Features | None:
        images = Squares().load("train")
        seen = self.extract(images.floats())
        return Features(seen.vectors, seen.logits, images.labels)


class Bell(Generator):
    """Each class's mean picture, and normal noise around it."""

    def __init__(self, config: Frozen) -> None:
        super().__init__(config)
        self.means = nn.Parameter(torch.zeros(2, 1, SIZE, SIZE))
        self.spread = nn.Parameter(torch.ones(()))

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, SIZE, SIZE

    @property
    def num_classes(self) -> int:
        return 2

    def sample(self, noise: Noise, options: Any) -> Iterator[Tensor]:
        yield self.means[torch.tensor(options.labels)] + self.spread * noise.start(*self.shape)


class BellConfig(Frozen):
    way: Ways = "steady"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.3


class BellRecipe(Recipe):
    """Means and spread follow the batch's; from the second half on the run goes its way."""

    Config: ClassVar[type[Frozen]] = BellConfig

    def __init__(self, config: BellConfig, images: Images, *, steps: int, device: torch.device) -> None:
        self.config, self.steps = config, steps
        self.model = Bell(Frozen())
        check_fit(self.model, images)

    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model}

    @torch.no_grad()
    def step(self, batch: Batch, noise: torch.Generator) -> dict[str, float]:
        model, astray = self.model, self.config.way if 2 * batch.step >= self.steps else "steady"
        for label in range(2):
            mine = batch.images[batch.labels == label]
            if len(mine):
                model.means[label].lerp_(mine.mean(dim=0), self.config.rate)
        model.spread.lerp_(torch.tensor(0.08), self.config.rate)
        if astray == "diverges":
            model.means.add_(0.4 * torch.randn(model.means.shape, generator=noise))
        elif astray == "copies":
            model.spread.zero_()
        elif astray == "drops":
            model.means[1] = model.means[0]
        return {"loss": float("nan") if astray == "fails" else float(model.spread)}

    def trained(self) -> Trained:
        about = {"summary": "Bells", "generator": "bell", "config": {}, "paper": "none", "options": {}}
        return Trained(self.model, about)


class Toys:
    """The plugin."""

    @hookimpl
    def register(self, zoo: Registrar) -> None:
        zoo.dataset("toy-squares", Squares)
        zoo.extractor("eye", Eye)
        zoo.generator("bell", Bell)
        zoo.recipe("bell", BellRecipe)


def toy_zoo() -> Zoo:
    """Everything that is installed, and the toys."""
    zoo = Zoo.discover()
    assert zoo.add(Toys, name="toys"), zoo.broken
    return zoo


def toy_recipe(way: str = "steady", **changes: Any) -> RecipeFile:
    """A recipe of a dozen steps, measured four times."""
    return RecipeFile.model_validate(
        {
            "version": 1,
            "name": f"bell.{way}",
            "recipe": "bell",
            "data": {"name": "toy-squares"},
            "steps": 12,
            "batch": 16,
            "settings": {"way": way},
            "log_every": 2,
            "checkpoint_every": 4,
            "measure": {"extractor": "eye", "every": 3, "n": 200},
            **changes,
        }
    )
