"""The training loop: a generator of events that survives being killed.

What step k does depends on the recipe, the data and k alone: the order of the data and all random numbers are derived
from (seed, k), so a resumed run needs the parts' tensors and nothing else to end as if it had never been stopped.

Several processes share every batch, and the gradients' means move them all alike (see ``distributed.Replicas``); the
first one writes. How many they are changes the noise that each part of a batch meets, so it belongs to the run.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from genzoo.checkpoints import REMEDY, Checkpoints
from genzoo.data import Batches, Images
from genzoo.distributed import Replicas, World
from genzoo.errors import NotFinite, TrainingError
from genzoo.options import check_specs, read_options
from genzoo.recipe import Batch, Recipe
from genzoo.recipe_file import RecipeFile, read_recipe, settings_of
from genzoo.registry import Zoo
from genzoo.run_files import RunFiles

__all__ = ["Progress", "RecipeFile", "read_recipe", "train"]


@dataclass(frozen=True)
class Progress:
    """How a run stands.

    Attributes:
        step, steps: done, and wanted.
        values: what the recipe tells of this step; where a line of the log is written, the means since the line before.
        images_per_second: since the last line of the log, with all that was written.
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


def train(
    file: RecipeFile,
    out: Path,
    *,
    zoo: Zoo,
    data: str | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
    world: World | None = None,
) -> Iterator[Progress]:
    """Train and yield how it stands after every step; the result lies in ``out/model`` when it ends.

    Args:
        file: the recipe.
        out: gets checkpoints/, log.jsonl, previews/ and model/ (card.yaml and model.safetensors).
        zoo: where names are looked up.
        data: path of the data set, where it is not where its plugin looks.
        resume: go on from the newest checkpoint; without it, a folder that holds one is refused.
        time_limit: stop after so many seconds of this call, with a checkpoint; resume goes on.
        stop: asked after every step; where it says yes, the call ends as at the time limit.
        device: where to train.
        world: the processes that share every batch, each with a device of its own; by default this one alone.

    Raises:
        NotFinite: a loss, weights or measured images that hold NaN or infinity.
        TrainingError: a folder in use, checkpoints of another recipe.
    """
    world = world or World(device=device)
    if file.batch % world.size:
        raise TrainingError(
            f"batch is {file.batch}, which {world.size} processes cannot share equally; start a number that divides it"
        )
    cls, config = settings_of(zoo, file)
    images = file.data.load(zoo, "train", data)
    checkpoints = Checkpoints(out / "checkpoints", file.run)
    if not resume and checkpoints.records():
        raise TrainingError(f"{out} holds a run already; go on with --resume, or choose another --out")
    world.wait()  # until all have looked, nobody writes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(file.seed)
        recipe = cls(config, images, steps=file.steps, device=torch.device(world.device))
    _check_options(recipe, zoo)
    record = checkpoints.restore(recipe.parts()) if resume else None
    start = _start(record, file, out, world)
    files = RunFiles(zoo, file, out, start.step, checkpoints) if world.first else None
    yield from _Run(file, recipe, images, world).steps(start, files, time_limit, stop)


def _check_options(recipe: Recipe, zoo: Zoo) -> None:
    """Raises GenzooError where the card to come has options that its generator would not take once it is trained."""
    card = recipe.trained().card
    if options := card.get("options"):
        read_options(zoo.find("generator", card["generator"]), None, options)
        check_specs(zoo, options)


class _Start(NamedTuple):
    """Where a call begins: steps done, and seconds of training in earlier calls."""

    step: int
    seconds: float


def _start(record: dict[str, Any] | None, file: RecipeFile, out: Path, world: World) -> _Start:
    """Where the checkpoint says; raises TrainingError where this recipe or these processes cannot go on from there."""
    step, progress = (record["step"], record["progress"]) if record else (0, {"seconds": 0.0, "processes": world.size})
    if step > file.steps:
        raise TrainingError(f"{out} stands at step {step}, beyond the recipe's {file.steps}")
    if (processes := progress.get("processes", 1)) != world.size:
        raise TrainingError(f"{out} was begun by {processes} processes, not {world.size}; resume it with as many")
    if world.by_first(lambda: step) != step:
        raise TrainingError(f"{out} holds other checkpoints here than where the first process runs; share one folder")
    return _Start(step, progress["seconds"])


class _Window:
    """The steps since the last line of the log.

    Args:
        batch: images a step.
        began: when, by the monotonic clock.
    """

    def __init__(self, batch: int, began: float) -> None:
        self.batch, self.began, self.steps = batch, began, 0
        self.sums: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """One step more, and what was told of it."""
        self.steps += 1
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def means(self) -> dict[str, float]:
        """Over all steps: what only some tell, as a lazy regulariser, counts as 0 in the others."""
        return {key: total / self.steps for key, total in self.sums.items()}

    def speed(self, now: float) -> float:
        """Images a second."""
        return self.steps * self.batch / max(now - self.began, 1e-9)


class _Run:
    """A run under way, on one of its processes.

    Args:
        file: the recipe.
        recipe: what it makes, where the run stands.
        images: the data.
        world: the processes.
    """

    def __init__(self, file: RecipeFile, recipe: Recipe, images: Images, world: World) -> None:
        self.file, self.recipe, self.images, self.world = file, recipe, images, world
        self.batches = Batches(len(images), file.batch, file.seed)
        self.replicas = Replicas(world, recipe.parts())

    def steps(
        self, start: _Start, files: RunFiles | None, time_limit: float | None, stop: Callable[[], bool]
    ) -> Iterator[Progress]:
        """Train to the end, or until the time is over; ``files`` is None on all processes but the first."""
        file, recipe = self.file, self.recipe
        began = time.monotonic()
        window = _Window(file.batch, began)
        for step in range(start.step, file.steps):
            values = self.step(step)
            window.add(values)
            now, number = time.monotonic(), step + 1
            ends = self.world.any(stop() or (time_limit is not None and now - began >= time_limit))
            logged = ends or number % file.log_every == 0 or number == file.steps
            saved = ends or number % file.checkpoint_every == 0 or number == file.steps
            seconds = start.seconds + now - began
            means, speed = window.means() if logged else values, window.speed(now)
            left = (file.steps - number) * file.batch / speed
            if files is not None:
                if logged:
                    files.log_losses(number, means, speed, seconds)
                files.after_step(recipe, number, seconds)
                if saved:
                    files.checkpoints.save(number, recipe.parts(), {"seconds": seconds, "processes": self.world.size})
            if logged:
                window = _Window(file.batch, now)
            yield Progress(number, file.steps, means, speed, seconds, left, saved)
            if ends and number < file.steps:
                return
        if files is not None:
            files.finish(recipe, self.images, start.seconds + time.monotonic() - began, self.world)

    def step(self, step: int) -> dict[str, float]:
        """One update, by this process's part of the step's batch; returns the processes' mean of what is to be logged.

        Raises NotFinite.
        """
        device, rows = torch.device(self.world.device), self.world.part(self.batches[step])
        seed = _step_seed(self.file.seed, step, self.world.rank)
        batch = Batch(self.images.floats(rows).to(device), self.images.labels[rows].to(device), step)
        # Dropout and whatever else draws from the global stream follows the step as well.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed ^ 0x5DEECE66)
            values = self.recipe.step(batch, torch.Generator().manual_seed(seed))
        self.replicas.after_step()
        values = self.world.means(values)
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NotFinite(f"{bad[0]} is {values[bad[0]]} at step {step + 1}; {REMEDY}")
        return values


def _step_seed(seed: int, step: int, rank: int) -> int:
    """32 bits that a run's seed, the step and, but for the first process, its rank decide."""
    digest = hashlib.sha256(":".join(map(str, (seed, step, *([rank] if rank else [])))).encode()).digest()
    return int.from_bytes(digest[:4], "little")
