"""``python -m genzoo.bench KIND``: one measurement, described by GENZOO_BENCH, printed as JSON on the last line."""

from __future__ import annotations

import os
import sys

from genzoo.bench.records import Task
from genzoo.bench.replicas import measure_replica
from genzoo.bench.row import measure
from genzoo.bench.speed import Request, run
from genzoo.errors import GenzooError, OptionError
from genzoo.registry import default_zoo


def main(argv: list[str]) -> int:
    """One measurement."""
    kind, question = " ".join(argv), os.environ.get("GENZOO_BENCH", "")
    if kind == "speed":
        print(run(Request.model_validate_json(question), default_zoo()).model_dump_json())
    elif kind == "row":
        task = Task.model_validate_json(question)
        row = measure_replica(task, default_zoo()) if task.replicas > 1 else measure(task, default_zoo())
        if row is not None:
            print(row.model_dump_json())
    else:
        raise OptionError("this is started by genzoo bench and genzoo compare; see genzoo bench --help")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except GenzooError as error:
        sys.exit(str(error))
