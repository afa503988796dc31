"""Quality that was measured once, beside times that were measured by the whole protocol, here or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from genzoo.bench.records import Benchmark, Row
from genzoo.errors import ResultsError
from genzoo.results import ModelResult, Rate, Results, Speed


def timed(results: Results, benchmark: Benchmark) -> Results:
    """Results whose models have the times of a benchmark, in float32 and not compiled, in place of their own.

    A model takes the rows of the same weights and options, and says where they were measured; its command becomes the
    two that measured it, one after the other. Without such rows, or without one of batch 1, it stays as it is. Weights
    without a digest are told by the model's name, as its card has it.

    Raises ResultsError where no model has any.
    """
    found = [_timed(model, results, benchmark) for model in results.models]
    if not any(found):
        raise ResultsError(
            "no model of these results was timed by genzoo bench with the same weights and options, in fp32, not "
            "compiled and at batch 1; name the models of the results, and give --batch 1,8,64"
        )
    models = zip(results.models, found, strict=True)
    return results.model_copy(update={"models": tuple(new or model for model, new in models)})


def _timed(model: ModelResult, results: Results, benchmark: Benchmark) -> ModelResult | None:
    """The model with its times; None where the benchmark has none of it."""
    rows = [row for row in benchmark.rows if _fits(row, model)]
    single = next((row for row in rows if row.task.batch == 1), None)
    if single is None:
        return None
    same = benchmark.environment == (model.environment or results.environment)
    commands = (model.command or results.command).split("; ")
    changed = {
        "speed": _speed(single, rows),
        "command": "; ".join(dict.fromkeys((*commands, benchmark.command))),
        "environment": model.environment if same else benchmark.environment,
    }
    return model.model_copy(update=changed)


def _fits(row: Row, model: ModelResult) -> bool:
    task = row.task
    plain = (task.dtype, task.compile, task.replicas) == ("fp32", "off", 1)
    same = (row.weights, row.options) == (model.weights, model.options)
    # Two models without a digest have the same one, none.
    named = model.weights is not None or row.name == model.name
    return row.status == "ok" and plain and same and named


def _speed(single: Row, rows: Sequence[Row]) -> Speed:
    """The rows of one model as a comparison tells them; ``single`` is that of batch 1."""
    best = max(rows, key=lambda row: row.images_per_second or 0)
    rates = {row.task.batch: row.images_per_second or 0 for row in rows}
    return Speed(
        load_seconds=single.load_seconds or 0,
        first_seconds=single.first_seconds or 0,
        latency=single.whole.wall if single.whole else (),
        batch=best.task.batch,
        batch_seconds=best.whole.wall if best.whole else (),
        tried=tuple(Rate(batch=batch, images_per_second=rate) for batch, rate in sorted(rates.items())),
        peak_bytes=best.memory.peak if best.memory else None,
        base_bytes=best.memory.base if best.memory else None,
        nfe=best.nfe or 0,
        flops=best.flops,
    )
