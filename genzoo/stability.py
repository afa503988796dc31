"""Stability: families trained alike from several seeds, and what became of each run.

What is alike is the budget: recipes state steps, so that a run can be repeated exactly, and those that ship are sized
to take the same time, measurements included, on the processor that they name.

``Study.run`` is a generator of events, so that progress bars belong to whoever listens. After every run that ends the
record lies whole in the folder, so that a study that is killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from genzoo import bench, evaluate
from genzoo.errors import NotFinite, OptionError, ResultsError
from genzoo.events import Event
from genzoo.milestones import read_log, thinned
from genzoo.noise import SEED_LIMIT
from genzoo.recipe_file import Measure, RecipeFile
from genzoo.registry import Zoo
from genzoo.results import Score, Stability, read_record
from genzoo.runs import DISTANCE, Family, Run
from genzoo.train import train

#: Names of what a run is judged by beside the distance: classes that are never made, and variety within one.
DROPPED = "dropped-classes"
VARIETY = "class-diversity"

#: A run whose images vary less than this share of what as many real ones do, within a class, has collapsed.
LEAST_VARIETY = 0.25
#: So has one that ends more than so many times as far from the data as it once was.
MOST_DIVERGENCE = 2.0

#: The metrics among them, as far as they are registered.
JUDGED_BY = (DISTANCE, DROPPED, VARIETY)

#: Inside a study's folder.
RUNS = "runs"


@dataclass(frozen=True)
class Request:
    """What to train.

    Attributes:
        recipes: one a family; each says how it is measured, all alike.
        seeds: of the runs of each.
        out: the folder that gets runs/ and stability.json.
        data: path of the data set, where it is not where its plugin looks.
        resume: go on with what ``out`` holds; without it, a folder in use is refused.
        device: where to train.
        command: what the user typed, for the record.
    """

    recipes: Sequence[RecipeFile]
    seeds: Sequence[int]
    out: Path
    data: str | None = None
    resume: bool = False
    device: str = "cpu"
    command: str = "genzoo stability"


@dataclass(frozen=True)
class RunEvent(Event):
    """How a study stands: the run in progress, and training steps of all runs.

    Attributes:
        ended: the run, when it has just ended.
    """

    ended: Run | None = None


def collapse(run: Run, floor: Mapping[str, float]) -> str | None:
    """Why a run counts as collapsed; None where it does not.

    It does if one of these holds, the first that does being told:

    1. it failed: a loss, weights or images were not finite;
    2. at its last measurement one class or more had dropped out (the metric ``dropped-classes``);
    3. there, the variety within a class (``class-diversity``) was below ``LEAST_VARIETY`` of that of as many real
       images;
    4. its last distance was more than ``MOST_DIVERGENCE`` times its best one.

    What was not measured, as by a metric that is not installed, does not count against a run.

    Args:
        run: with its milestones.
        floor: what as many real images score, by metric.
    """
    if run.failed is not None:
        return f"failed: {run.failed}"
    dropped, variety, real = run.final(DROPPED), run.final(VARIETY), floor.get(VARIETY)
    if dropped:
        return f"{dropped:g} of the data's classes dropped out"
    if variety is not None and real and variety < LEAST_VARIETY * real:
        return f"variety within a class fell to {variety / real:.0%} of the data's"
    divergence = run.divergence()
    if divergence is not None and divergence > MOST_DIVERGENCE:
        return f"it ended {divergence:.2f} times as far from the data as at its best"
    return None


class Study:
    """Families, seeds, and the runs that ended so far.

    Attributes:
        recipes: by name, each measured by what it asks for and by what runs are judged by.
        record: what is known so far; it lies in the folder after every run.
    """

    def __init__(self, zoo: Zoo, request: Request) -> None:
        """Raises GenzooError, before anything is trained, for whatever the user got wrong."""
        self.zoo, self.request = zoo, request
        if not request.seeds or max(request.seeds) >= SEED_LIMIT:
            raise OptionError(f"give one seed or more, each below {SEED_LIMIT}; three say something about their spread")
        if not request.recipes:
            raise OptionError("no preset is registered; give recipes, each with a key measure")
        self.recipes = {file.name: self._judged(file) for file in request.recipes}
        if len(self.recipes) < len(request.recipes):
            raise OptionError("two recipes have the same name; name each once")
        if len({_looks(file) for file in self.recipes.values()}) > 1:
            raise OptionError(
                "these recipes differ in data, or in extractor or n of measure: their distances would too"
            )
        self.record = self._resumed(self._begun())

    def _judged(self, file: RecipeFile) -> RecipeFile:
        """The recipe, whose runs are measured by whatever is registered of what they are judged by."""
        if file.measure is None:
            raise OptionError(f"{file.name} is not measured on the way; give its recipe a key measure")
        judged = [name for name in JUDGED_BY if ("metric", name) in self.zoo.entries]
        metrics = tuple(dict.fromkeys([*file.measure.metrics, *judged]))
        return file.model_copy(update={"measure": file.measure.model_copy(update={"metrics": metrics})})

    def _begun(self) -> Stability:
        """The record of a study that no run has ended of."""
        first = next(iter(self.recipes.values()))
        measure = cast(Measure, first.measure)
        extractor = evaluate.find_extractor(self.zoo, measure.extractor, first.data.name)
        reference = evaluate.load_reference(self.zoo, extractor, first.data.name)
        floor: tuple[Score, ...] = ()
        if evaluate.floor_repeats(reference, measure.n, 1):
            floor = evaluate.measure_floor(evaluate.find_metrics(self.zoo, measure.metrics), reference, measure.n)
        return Stability(
            made=bench.now(),
            command=self.request.command,
            environment=bench.environment(self.request.device),
            dataset=first.data.name,
            extractor=extractor.name,
            digest=extractor.digest,
            n=measure.n,
            floor={score.metric: score.value for score in floor},
            families=tuple(
                Family(name=name, recipe=file.recipe, steps=file.steps, batch=file.batch, digest=_digest(file), runs=())
                for name, file in self.recipes.items()
            ),
        )

    def _resumed(self, begun: Stability) -> Stability:
        """The record with the runs that the folder holds, where it may go on with them."""
        out, path = self.request.out, self.request.out / Stability.FILE
        if not self.request.resume and (path.exists() or (out / RUNS).exists()):
            raise ResultsError(f"{out} holds a study already; go on with --resume, or choose another --out")
        if not path.exists():
            return begun
        found = read_record(path)
        if not isinstance(found, Stability) or _measured_by(found) != _measured_by(begun):
            raise ResultsError(f"{path} was not measured alike, or on another machine; choose another --out")
        families = {family.name: family for family in begun.families}
        for family in found.families:
            if family.name in families and families[family.name].digest != family.digest:
                raise ResultsError(f"{path}: {family.name} was trained by another recipe; choose another --out")
            families[family.name] = family
        return begun.model_copy(update={"families": tuple(families.values())})

    def run(self) -> Iterator[RunEvent]:
        """Train whatever has not ended yet: all families with the first seed, then with the next."""
        total = len(self.request.seeds) * sum(file.steps for file in self.recipes.values())
        done = 0
        for seed in self.request.seeds:
            for name, file in self.recipes.items():
                run = self._ended(name, seed)
                if run is None:
                    run = yield from self._train(file.model_copy(update={"seed": seed}), done, total)
                done += file.steps
                yield RunEvent(f"{name}, seed {seed}", done, total, run)

    def _ended(self, name: str, seed: int) -> Run | None:
        runs = next(family.runs for family in self.record.families if family.name == name)
        return next((run for run in runs if run.seed == seed), None)

    def _train(self, file: RecipeFile, done: int, total: int) -> Generator[RunEvent, None, Run]:
        """One run, from where it stopped, and its place in the record."""
        request, failed = self.request, None
        folder = request.out / RUNS / file.name / f"seed-{file.seed}"
        steps = train(file, folder, zoo=self.zoo, data=request.data, resume=request.resume, device=request.device)
        try:
            for progress in steps:
                yield RunEvent(f"{file.name}, seed {file.seed}", done + progress.step, total)
        except NotFinite as error:
            failed = str(error)
        # A record holds so many milestones and no more.
        run = Run(seed=file.seed, milestones=thinned(read_log(folder / "log.jsonl"), most=4000), failed=failed)
        run = run.model_copy(update={"collapsed": collapse(run, self.record.floor)})
        self._keep(file.name, run, folder / "model")
        return run

    def _keep(self, name: str, run: Run, model: Path) -> None:
        """Write the record with one more run, and with the size of the generator where that is not known yet."""
        families = []
        for family in self.record.families:
            if family.name == name:
                size = family.parameters
                if not size and run.failed is None:
                    size = sum(p.numel() for p in self.zoo.load(str(model)).parameters())
                runs = sorted([*family.runs, run], key=lambda r: r.seed)
                family = family.model_copy(update={"runs": tuple(runs), "parameters": size})
            families.append(family)
        self.record = self.record.model_copy(update={"families": tuple(families)})
        self.record.write(self.request.out / Stability.FILE)


def _looks(file: RecipeFile) -> tuple[str, ...]:
    """What decides whether two recipes' distances stand beside one another."""
    measure = cast(Measure, file.measure)
    return file.data.model_dump_json(), measure.extractor, str(measure.n)


def _measured_by(record: Stability) -> tuple[str, int, str, str]:
    """What the numbers of a record depend on, beside its recipes."""
    return record.digest, record.n, record.environment.device, record.environment.processor


def _digest(file: RecipeFile) -> str:
    """Identifies what a run depends on and how it is measured; not its seed, nor how often it is saved."""
    kept = file.model_dump(mode="json", exclude={"seed", "preview_every", "checkpoint_every"})
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
