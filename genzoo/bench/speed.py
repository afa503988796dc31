"""What a model costs in a comparison: a short measurement, end to end, in this process."""

from __future__ import annotations

import functools
from typing import Any

import torch

from genzoo.bench import devices
from genzoo.bench.calls import count_flops
from genzoo.bench.stopwatch import repeat
from genzoo.frozen import Frozen
from genzoo.images import to_bytes
from genzoo.registry import Zoo
from genzoo.results import Rate, Speed

#: Shares of the time: for one image after the other, for finding the best batch, and for repeating it.
LATENCY, SEARCH, BATCH = 0.25, 0.35, 0.4

#: Batches that are tried, up to the one that was asked for: on a CPU the largest is often not the fastest.
BATCHES = (8, 32, 64, 128)


class Request(Frozen):
    """What to measure.

    Attributes:
        name, options, device: of the model.
        batch: the most images a call.
        threads: of the CPU.
        seconds: for all timings together.
    """

    name: str
    options: dict[str, Any]
    batch: int
    device: str
    threads: int
    seconds: float


def run(request: Request, zoo: Zoo) -> Speed:
    """Measure in this process."""
    torch.set_num_threads(request.threads)
    device = devices.find(request.device)

    def make(count: int) -> None:
        to_bytes(model.generate(range(count), batch=count, **request.options)).cpu()

    base = device.held()
    found = []
    load = device.lap(lambda: found.append(zoo.load(request.name, device=request.device)))
    model = found[0]
    device.reset_peak()
    first = device.lap(lambda: make(1)).wall
    latency = repeat(device, lambda: make(1), request.seconds * LATENCY)
    rates = [Rate(batch=1, images_per_second=1 / latency.median)]
    left = request.seconds * SEARCH
    for size in sorted({*BATCHES, request.batch} - {1}):
        # Not one that would take all that is left, as told by those before it; it is warmed where it can be.
        if size > request.batch or 2 * size / rates[-1].images_per_second > left:
            break
        laps = [device.lap(functools.partial(make, size)).wall for _ in range(2)]
        left -= sum(laps)
        rates.append(Rate(batch=size, images_per_second=size / min(laps)))
    best = max(rates, key=lambda rate: rate.images_per_second).batch
    batches = latency if best == 1 else repeat(device, lambda: make(best), request.seconds * BATCH, warm=False)
    return Speed(
        load_seconds=load.wall,
        first_seconds=first,
        latency=latency.wall,
        batch=best,
        batch_seconds=batches.wall,
        tried=tuple(rates),
        peak_bytes=device.peak()[0],
        base_bytes=base,
        nfe=model.nfe(model.options(**request.options)),
        flops=count_flops(model, request.options),
    )
