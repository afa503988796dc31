"""What a model costs: time and memory, end to end, each model in a fresh process.

``python -m genzoo.bench REQUEST`` runs one measurement and prints it as JSON; ``measure`` starts that process. Memory
that one model leaves behind in a process would hide what the next one needs, so no two share one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from genzoo.errors import GenzooError, OptionError
from genzoo.frozen import Frozen
from genzoo.generator import Generator
from genzoo.images import to_bytes
from genzoo.registry import Zoo, default_zoo
from genzoo.results import Environment, Speed

#: After one that warms up: at least so many repetitions and seconds, and none begun after ENOUGH seconds or MOST.
LEAST = 10
LEAST_SECONDS = 1.0
MOST = 100
ENOUGH = 8.0


class Request(Frozen):
    """What to measure."""

    name: str
    options: dict[str, Any]
    batch: int
    device: str
    threads: int


def environment(device: str) -> Environment:
    """This machine and its software."""
    name = device
    if device.startswith("cuda"):
        name = f"{device}: {torch.cuda.get_device_name(device)}"
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("genzoo", "torchmetrics", "numpy", "safetensors"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Environment(
        device=name,
        processor=processor(),
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions,
    )


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def resident_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process from the kernel; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if field == "VmHWM" and sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def count_flops(model: Generator, options: Mapping[str, Any]) -> float | None:
    """Floating-point operations of one image, a multiplication and an addition counted apart; None if not countable."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with FlopCounterMode(display=False) as counter:
            model.generate([0], batch=1, **options)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None  # an operator the counter cannot see into, as a custom kernel's
    return float(counter.get_total_flops()) or None


def run(request: Request, zoo: Zoo) -> Speed:
    """Measure in this process."""
    cuda = request.device.startswith("cuda")
    torch.set_num_threads(request.threads)

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize(request.device)

    def timed(count: int) -> float:
        seeds = range(count)
        wait()
        begin = time.perf_counter()
        to_bytes(model.generate(seeds, batch=count, **request.options)).cpu()
        wait()
        return time.perf_counter() - begin

    def repeat(count: int) -> tuple[float, ...]:
        timed(count)
        taken: list[float] = []
        while sum(taken) < ENOUGH and len(taken) < MOST and (len(taken) < LEAST or sum(taken) < LEAST_SECONDS):
            taken.append(timed(count))
        return tuple(taken)

    base = torch.cuda.memory_allocated(request.device) if cuda else resident_bytes("VmRSS")
    begin = time.perf_counter()
    model = zoo.load(request.name, device=request.device)
    wait()
    loaded = time.perf_counter() - begin
    if cuda:
        torch.cuda.reset_peak_memory_stats(request.device)
    first = timed(1)
    latency = repeat(1)
    batches = repeat(request.batch)
    peak = torch.cuda.max_memory_allocated(request.device) if cuda else resident_bytes("VmHWM")
    return Speed(
        load_seconds=loaded,
        first_seconds=first,
        latency=latency,
        batch=request.batch,
        batch_seconds=batches,
        peak_bytes=peak,
        base_bytes=base,
        nfe=model.nfe(model.options(**request.options)),
        flops=count_flops(model, request.options),
    )


def measure(name: str, options: Mapping[str, Any], *, batch: int, device: str, timeout: float = 600) -> Speed:
    """Measure in a fresh process. Raises GenzooError with the process's own last line if it fails."""
    request = Request(
        name=name, options=dict(options), batch=batch, device=device, threads=torch.get_num_threads()
    ).model_dump_json()
    command = [sys.executable, "-m", "genzoo.bench", request]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ.copy())
    except subprocess.TimeoutExpired:
        raise GenzooError(f"{name}: the measurement took longer than {timeout:.0f} s; ask for fewer steps") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GenzooError(f"{name}: the measurement failed: {last}")
    return Speed.model_validate_json(done.stdout.strip().splitlines()[-1], strict=True)


def main(argv: list[str]) -> int:
    """One measurement, as JSON on standard output."""
    try:
        request = Request.model_validate_json(argv[0])
    except (IndexError, ValueError) as error:
        raise OptionError("genzoo.bench is started by genzoo compare; see genzoo compare --help") from error
    print(json.dumps(run(request, default_zoo()).model_dump(mode="json")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
