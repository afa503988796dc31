"""Recipes as they are written down: which recipe, on what data, for how long, with which settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from genzoo.cards import Line, Name
from genzoo.documents import load
from genzoo.errors import OptionError, explain
from genzoo.frozen import Frozen, Seq, Version
from genzoo.registry import Zoo

if TYPE_CHECKING:
    from genzoo.data import Images
    from genzoo.recipe import Recipe

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
        metrics: registered names.
    """

    extractor: Name
    every: Every
    n: Annotated[int, Field(ge=20, le=100_000)] = 2000
    metrics: Seq[Name] = ("frechet", "label-accuracy")


class RecipeFile(Frozen):
    """A recipe as it is written down.

    Attributes:
        version: of this schema.
        name: what the result is called: its card's name.
        licence: of the weights, as their card will say it: a name as MIT, or "unknown".
        recipe: the registered recipe.
        data: the data set.
        seed, steps, batch: of the run.
        settings: the recipe's own ``Config``.
        log_every, preview_every, checkpoint_every: in steps.
        measure: what is measured on the way, if anything.
    """

    version: Version
    name: Annotated[str, Field(min_length=1, max_length=120)]
    licence: Line = "unknown"
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
        written = {"log_every", "preview_every", "checkpoint_every", "measure", "steps", "name", "licence"}
        kept = self.model_dump(mode="json", exclude=written)
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_recipe(path: Path) -> RecipeFile:
    """A recipe file, checked; raises DocumentError that names line and key."""
    return load(path).read(RecipeFile)


def settings_of(zoo: Zoo, file: RecipeFile) -> tuple[type[Recipe], Any]:
    """The recipe that a file names, and the file's settings, checked by it."""
    cls = zoo.find("recipe", file.recipe)
    try:
        return cls, cls.Config.model_validate_json(json.dumps(file.settings), strict=True)
    except ValidationError as error:
        raise OptionError(explain(error, f"settings of recipe {file.recipe}")) from None
