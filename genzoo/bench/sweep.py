"""Every combination of a plan, row by row; what is interrupted goes on where it stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from genzoo.bench.machine import environment, now
from genzoo.bench.processes import measure_row
from genzoo.bench.records import Benchmark, Compile, Dtype, Row, Task, read_benchmark
from genzoo.errors import OptionError, ResultsError, explain
from genzoo.options import check_known, check_specs, fitting_options, read_options
from genzoo.record import Environment
from genzoo.registry import Zoo
from genzoo.spec import plain_options
from genzoo.weights import find_card, usable_device


@dataclass(frozen=True)
class Plan:
    """What to measure: all combinations.

    Attributes:
        models: names or paths.
        dtypes, batches, compiles: 0 is the largest batch that fits.
        options: of the models, as steps; a family that does not know one is measured without it.
        device, replicas, seconds, bound, slow: see ``Task``.
        timeout: seconds of a row, loading and compiling too.
        command: what the user typed, for the record.
        note: for the record.
    """

    models: Sequence[str]
    dtypes: Sequence[Dtype] = ("fp32",)
    batches: Sequence[int] = (1, 8, 64)
    compiles: Sequence[Compile] = ("off",)
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    replicas: int = 1
    seconds: float = 10.0
    bound: float | None = None
    slow: bool = False
    timeout: float = 3600.0
    command: str = "genzoo bench"
    note: str = ""

    def tasks(self, zoo: Zoo) -> list[Task]:
        """The tasks, in order; raises GenzooError for a name, a device or an option that is unknown or out of range."""
        # All names are resolved before anything is measured: a misspelt last one must not cost the first ones' hours.
        cards = {name: find_card(zoo, name)[0] for name in self.models}
        families = {name: zoo.find("generator", card.generator) for name, card in cards.items()}
        check_known(self.options, families.values())
        check_specs(zoo, self.options)
        for name, family in families.items():
            read_options(family, cards[name], fitting_options(family, self.options))
        self._check_device()
        combinations = itertools.product(self.models, self.dtypes, self.compiles, self.batches)
        try:
            return [
                Task(
                    model=name,
                    options=fitting_options(families[name], self.options),
                    device=self.device,
                    dtype=dtype,
                    batch=batch,
                    compile=compiled,
                    threads=torch.get_num_threads(),
                    seconds=self.seconds,
                    replicas=self.replicas,
                    bound=self.bound,
                    slow=self.slow,
                )
                for name, dtype, compiled, batch in combinations
            ]
        except ValidationError as error:
            raise OptionError(explain(error, "genzoo bench", Task)) from None

    def _check_device(self) -> None:
        cuda = self.device.startswith("cuda")
        # A GPU that is there is not touched: what this process holds of it would be missing in the rows' own.
        if not (cuda and torch.cuda.is_available()):
            usable_device(self.device)
        if cuda and self.replicas > torch.cuda.device_count():
            raise OptionError(f"{self.replicas} replicas need a GPU each; this machine has {torch.cuda.device_count()}")
        if not cuda and "reduce-overhead" in self.compiles:
            raise OptionError(f"reduce-overhead means CUDA graphs, and {self.device} has none; give --compile default")


def sweep(zoo: Zoo, plan: Plan, folder: Path) -> Iterator[Benchmark]:
    """Measure a plan into ``folder``; yields all rows so far after each one.

    Rows that the folder holds of the same tasks, measured in the same environment, are taken as they are; a row that
    failed is measured again, and so is one of a model that has other weights or options of its own by now.
    """
    tasks = plan.tasks(zoo)
    path, here = folder / Benchmark.FILE, environment(plan.device)
    order = [task.model_dump_json() for task in tasks]  # rows of other plans stand after those of this one
    before = earlier(path, here)
    rows = {row.asked.model_dump_json(): row for row in before.rows if row.status != "failed"} if before else {}
    for key in rows.keys() & set(order):
        if outdated(rows[key], zoo):
            del rows[key]
    commands, notes = ([plan.command], [plan.note])
    if before and rows.keys() - set(order):
        commands, notes = ([*before.command.split("; "), *commands], [before.note, *notes])

    def written() -> Benchmark:
        found = Benchmark(
            made=now(),
            command="; ".join(dict.fromkeys(commands)),
            environment=here,
            note=" ".join(dict.fromkeys(note for note in notes if note)),
            rows=tuple(rows[key] for key in dict.fromkeys([*order, *rows]) if key in rows),
        )
        found.write(path)
        return found

    written()  # a folder that cannot be written to is not found out after the first row
    for key, task in zip(order, tasks, strict=True):
        if key not in rows:
            rows[key] = measure_row(task, plan.timeout)
        yield written()


def earlier(path: Path, here: Environment) -> Benchmark | None:
    """What the file holds, if there is one; raises ResultsError where it cannot be gone on with."""
    if not path.exists():
        return None
    before = read_benchmark(path)
    if before.environment != here:
        raise ResultsError(f"{path}: its rows are of another machine, or other versions or code; give another -o")
    return before


def outdated(row: Row, zoo: Zoo) -> bool:
    """Whether a row's model, by its name, has come to other weights or other options than the row was measured with."""
    if row.status != "ok":
        return False
    card, _ = find_card(zoo, row.task.model)
    options = read_options(zoo.find("generator", card.generator), card, row.task.options)
    weights = card.weights.sha256 if card.weights else None
    return (row.weights, row.options) != (weights, plain_options(options, zoo))
