"""Measurements in fresh processes: what one model leaves behind in memory would hide what the next one needs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel

from genzoo.bench.records import Row, Status, Task
from genzoo.bench.speed import Request
from genzoo.errors import GenzooError, shorten
from genzoo.results import Speed

#: What a comparison spends on the timings of one model, and when it is in a hurry.
SECONDS = 8.0
QUICK_SECONDS = 2.0

#: Seconds that a process is given to end when it is asked to.
GRACE = 10.0


#: A line of torch's log, and the one among them that begins torchrun's report of a process that failed.
LOGGED = re.compile(r"[IWE]\d{4} \d\d:")
REPORT = re.compile(r"^E\d{4} \d\d:.* failed \(exitcode: (-?\d+)\)", re.MULTILINE)


class Failed(GenzooError):
    """A measuring process that gave no result."""

    def __init__(self, message: str, killed: bool = False) -> None:
        super().__init__(message)
        self.killed = killed


def ask(kind: str, question: BaseModel, timeout: float, launcher: Sequence[str] = ()) -> str:
    """The last line that ``python -m genzoo.bench KIND QUESTION`` prints; raises Failed with its own last words."""
    # Through the environment: a command line may not be long, and everybody can read it.
    # Safe path: "python -m" looks for modules in the working folder first, where a stranger's files may lie.
    environment = {**os.environ, "GENZOO_BENCH": question.model_dump_json(), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *launcher, "-m", "genzoo.bench", kind]
    try:
        done = finished(command, environment, timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"the measurement took longer than {timeout:.0f} s; ask for fewer steps") from None
    if done.returncode:
        last, killed = last_words(done.stderr, done.returncode)
        raise Failed("the system ended the process, as it does when memory runs out" if killed else last, killed)
    return done.stdout.strip().splitlines()[-1]


def finished(
    command: Sequence[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """A command that has ended; raises subprocess.TimeoutExpired where it does not in so many seconds.

    Its standard input is a pipe into which nothing is written, and which ends with this process, whatever ends it.
    """
    pipe, (theirs, ours) = subprocess.PIPE, os.pipe()
    with (
        os.fdopen(theirs) as held,
        os.fdopen(ours, "w"),
        subprocess.Popen(command, stdin=held, stdout=pipe, stderr=pipe, text=True, env=environment) as process,
    ):
        try:
            out, said = process.communicate(timeout=timeout)
        except BaseException:  # a user's Ctrl-C, too
            # Asked to end, torchrun ends those that it started; killed, it would leave them to run on.
            process.terminate()
            try:
                process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, said)


def last_words(said: str, code: int) -> tuple[str, bool]:
    """(the last line that a process said of its own, whether it was killed).

    Args:
        said: on its standard error; where torchrun started it, torchrun's report of its end follows.
        code: of its end.
    """
    report = REPORT.search(said)
    if report is not None:
        said, code = said[: report.start()], int(report[1])
    lines = [line for line in said.splitlines() if line.strip() and not LOGGED.match(line)]
    return (lines or ["no message"])[-1], code == -signal.SIGKILL


def measure(
    name: str,
    options: Mapping[str, Any],
    *,
    batch: int,
    device: str,
    quick: bool = False,
    timeout: float = 600,
) -> Speed:
    """What a comparison says of a model's speed.

    Args:
        name, options, device: of the model.
        batch: the most images a call; the fastest of several sizes up to it is measured.
        quick: in two seconds rather than eight.
        timeout: seconds for all of it, loading too.

    Raises GenzooError with the process's own last line if it fails.
    """
    request = Request(
        name=name,
        options=dict(options),
        batch=batch,
        device=device,
        threads=torch.get_num_threads(),
        seconds=QUICK_SECONDS if quick else SECONDS,
    )
    try:
        answer = ask("speed", request, timeout)
    except Failed as failed:
        raise GenzooError(f"{name}: the measurement failed: {failed}") from None
    return Speed.model_validate_json(answer, strict=True)


def measure_row(task: Task, timeout: float) -> Row:
    """A task's row; where its process fails, a row that says so."""
    launcher: tuple[str, ...] = ()
    if task.replicas > 1:
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={task.replicas}")
    try:
        return Row.model_validate_json(ask("row", task, timeout, launcher))
    except Failed as failed:
        status: Status = "out of memory" if failed.killed else "failed"
        return Row(task=task, status=status, why=shorten(str(failed), 2000))
