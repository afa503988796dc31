"""Results of several runs, and of several machines, as one; those that cannot be compared are refused.

Light: never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from genzoo.errors import ResultsError, quoted
from genzoo.results import Environment, ModelResult, Results, Stability

#: What results must share: two numbers that differ in one of these answer two questions.
SHARED = ("dataset", "split", "reference_n", "extractor", "digest", "n", "repeats", "seeds", "classes")
#: What records of training must share among themselves, and with the results that they stand beside.
SHARED_IN_TRAINING = ("dataset", "extractor", "digest", "n")
SHARED_BY_BOTH = ("dataset", "extractor", "digest")


class Source(NamedTuple):
    """A record and the file that it came from."""

    file: str
    record: Results | Stability


def merge(sources: Sequence[Source]) -> Results | tuple[Stability, ...]:
    """One comparison of all the models with all records of training; the latter alone where nothing was compared.

    A row that was measured elsewhere, or by another command, than the first file's says so. Real images, the floor, are
    the same for all and are taken from the first file that has them.

    Raises ResultsError, with the key, both values and both files, for what cannot be compared; and for a model that was
    measured twice on one machine.
    """
    compared = [(file, record) for file, record in sources if isinstance(record, Results)]
    trained = [(file, record) for file, record in sources if isinstance(record, Stability)]
    if len(compared) == 1 and not trained:
        return compared[0][1]
    for file, results in compared:
        _agree(compared[0], (file, results), SHARED)
        trained += [(file, record) for record in results.stability]
    for file, record in trained:
        _agree(trained[0], (file, record), SHARED_IN_TRAINING)
        if compared:
            _agree(compared[0], (file, record), SHARED_BY_BOTH)
    stability = _stability(trained)
    if not compared:
        return stability
    first = compared[0][1]
    made = max(results.made for _, results in compared)
    return first.model_copy(update={"made": made, "models": tuple(_rows(compared)), "stability": stability})


def _agree(one: tuple[str, Any], other: tuple[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        a, b = getattr(one[1], key), getattr(other[1], key)
        if a != b:
            raise ResultsError(
                f"these cannot be compared: {key} is {quoted(a)} in {one[0]} and {quoted(b)} in {other[0]}; "
                "report them apart, or measure both alike"
            )


def _rows(compared: Sequence[tuple[str, Results]]) -> Iterator[ModelResult]:
    """All rows, models first; of real images those of the first file that has them."""
    first = compared[0][1]
    floors: list[ModelResult] = []
    seen: list[tuple[str, Environment, ModelResult]] = []
    for file, results in compared:
        for row in results.models:
            if row.kind == "data":
                floors += [] if any(row.name == floor.name for floor in floors) else [row]
                continue
            environment, command = row.environment or results.environment, row.command or results.command
            for where, place, other in seen:
                if place == environment and _same_model(row, other):
                    raise ResultsError(
                        f"{row.name} was measured twice on one machine, in {where} and {file}; leave one of them out"
                    )
            seen.append((file, environment, row))
            yield row.model_copy(
                update={
                    "environment": None if environment == first.environment else environment,
                    "command": None if command == first.command else command,
                }
            )
    yield from floors


def _same_model(one: ModelResult, other: ModelResult) -> bool:
    return (one.name, one.weights, one.options) == (other.name, other.weights, other.options)


def _stability(trained: Sequence[tuple[str, Stability]]) -> tuple[Stability, ...]:
    """Every record once; raises ResultsError where two of one machine hold the same run."""
    kept: list[tuple[str, Stability]] = []
    for file, record in trained:
        if any(record == other for _, other in kept):
            continue
        for where, other in kept:
            twice = _runs(record) & _runs(other) if record.environment == other.environment else set()
            if twice:
                name, seed = min(twice)
                raise ResultsError(
                    f"{name} was trained twice from seed {seed} on one machine, in {where} and {file}; "
                    "leave one of them out"
                )
        kept.append((file, record))
    return tuple(record for _, record in kept)


def _runs(record: Stability) -> set[tuple[str, int]]:
    return {(family.name, run.seed) for family in record.families for run in family.runs}
