"""Several processes that measure the same task at once, each on a device of its own: torchrun's side of a row."""

from __future__ import annotations

import torch.distributed as dist

from genzoo.bench.records import Row, Task
from genzoo.bench.row import measure
from genzoo.distributed import joined
from genzoo.registry import Zoo


def measure_replica(task: Task, zoo: Zoo) -> Row | None:
    """This process's part; the first one's row speaks for all, the others give None.

    The replicas exchange nothing but the moment at which they begin and, at the end, their medians.
    """
    # They meet on the CPU: a meeting on the GPU would stand in its memory and in its times.
    with joined() as world:
        own = task.model_copy(update={"device": f"cuda:{world.rank}"}) if task.device.startswith("cuda") else task
        world.wait()
        row = measure(own, zoo)
        rows: list[Row | None] = [None] * world.size
        dist.all_gather_object(rows, row.model_dump_json())
        every = [Row.model_validate_json(str(text)) for text in rows]
    if not world.first:
        return None
    failed = next((each for each in every if each.whole is None), None)
    if failed is not None:
        return failed.model_copy(update={"task": task})
    medians = tuple(each.whole.median for each in every if each.whole is not None)
    return every[0].model_copy(
        update={"task": every[0].task.model_copy(update={"device": task.device}), "replica_seconds": medians}
    )
