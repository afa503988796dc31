"""``python -m genzoo.bench KIND``: one measurement, described by GENZOO_BENCH, printed as JSON on the last line."""

from __future__ import annotations

import os
import sys
import threading

from genzoo.bench.records import Task
from genzoo.bench.replicas import measure_replica
from genzoo.bench.row import measure
from genzoo.bench.speed import Request, run
from genzoo.errors import GenzooError, OptionError
from genzoo.registry import default_zoo


def end_with_parent() -> None:
    """End this process when standard input ends, which is a pipe from the one that waits for the measurement.

    Killed, it cannot ask this one to end; left alone, this one would take its time from the rows of the sweep that is
    gone on with. The replicas that torchrun starts have the same standard input.
    """

    def wait() -> None:
        if not os.read(0, 1):
            os._exit(1)  # nobody is left to say it to

    threading.Thread(target=wait, daemon=True).start()


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
    end_with_parent()
    try:
        sys.exit(main(sys.argv[1:]))
    except GenzooError as error:
        sys.exit(str(error))
