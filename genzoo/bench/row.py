"""One row, measured in this process: the protocol, step by step."""

from __future__ import annotations

import functools
import gc
from typing import Any

import torch
from torch import Tensor

from genzoo.bench import devices
from genzoo.bench.calls import Tree, count_flops, recorded, replay
from genzoo.bench.compiler import Refused, compiled
from genzoo.bench.kernels import Kernels
from genzoo.bench.machine import available_bytes
from genzoo.bench.records import Memory, Row, Status, Task
from genzoo.bench.stopwatch import repeat
from genzoo.errors import cause, out_of_memory, shorten
from genzoo.generator import Generator
from genzoo.images import to_bytes
from genzoo.noise import Noise
from genzoo.registry import Zoo
from genzoo.spec import plain_options

#: The pixels of so many images are held against float32 eager.
GATED = 8

#: A batch is not doubled beyond this share of the memory that is free, or beyond so many seconds a call.
SHARE = 0.8
PATIENCE = 10.0
MOST_BATCH = 1 << 16

NO_UNITS = "this processor has no units for {dtype} and imitates it, many times slower than fp32; --slow measures it"


class Subject:
    """A task's model, loaded, on its device.

    Attributes:
        task: what is measured; its batch is the one that was found, where the most were asked for.
        device: where.
        model: in the task's dtype.
        translated: images that a translator is given, of the seeds' noise.
        load_seconds, base: of loading, and the bytes held before it.
    """

    def __init__(self, task: Task, zoo: Zoo) -> None:
        self.device, self.zoo = devices.find(task.device), zoo
        self.base = self.device.held()
        found: list[Generator] = []

        def load() -> None:
            found.append(zoo.load(task.model, device=task.device, dtype=task.dtype))

        self.load_seconds = self.device.lap(load).wall
        self.model = found[0]
        self.translated = torch.empty(0)
        self.task = task
        if not task.batch:
            self.task = task.model_copy(update={"batch": self.largest()})

    def images(self, batch: int) -> Tensor:
        """Images of the seeds 0 to batch - 1, in [-1, 1]."""
        return self.model.generate(range(batch), batch=batch, **self.given(batch))

    def given(self, batch: int) -> dict[str, Any]:
        """The options of so many images; for a translator with what it is to change, made once."""
        if self.model.takes_images and len(self.translated) < batch:
            self.translated = Noise(range(batch)).normal(*self.model.given_shape).tanh()
        extra = {"images": self.translated[:batch]} if self.model.takes_images else {}
        return {**self.task.options, **extra}

    def pixels(self, batch: int | None = None) -> Tensor:
        """The same as uint8 on the host: what is timed."""
        return to_bytes(self.images(batch or self.task.batch)).cpu()

    def largest(self) -> int:
        """The largest power of two of images that fit, and that take no more than ``PATIENCE``, found by doubling."""
        fits = 1
        while fits < MOST_BATCH:
            self.device.reset_peak()
            free = available_bytes() if self.device.name.startswith("cpu") else None
            before = self.device.held() or 0
            try:
                wall = self.device.lap(functools.partial(self.pixels, 2 * fits)).wall
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                break
            fits *= 2
            # A GPU says that its memory is full; a CPU's system ends the process, so its memory is foreseen.
            used = (self.device.peak()[0] or before) - before
            if wall > PATIENCE / 2 or (free is not None and 2 * used > SHARE * free):
                break
        return fits

    def memory(self) -> Memory:
        """What is held, and the most that was since the last reset."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        peak, reserved = self.device.peak()
        weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return Memory(weights=weights, base=self.base, peak=peak, reserved=reserved)

    def row(self) -> dict[str, Any]:
        """What the protocol measures, by the fields of a row."""
        task, device, card = self.task, self.device, self.model.card
        options = self.model.options(**task.options)
        device.reset_peak()
        first = device.lap(self.pixels).wall
        with Kernels() as kernels:
            tree = Tree(self.model, self.pixels)
        compile_seconds, made = None, dict[str, str]()
        if task.compile != "off":
            compile_seconds, made = compiled(device, tree.compilable, task.compile, self.pixels)
            device.reset_peak()  # of the eager calls and of the compiler itself
        self.pixels()  # warm, so that the energy is that of the repetitions alone
        before, used = device.clocks(), device.joules()
        whole = repeat(device, self.pixels, task.seconds, warm=False)
        after, spent = device.clocks(), device.joules()
        memory = self.memory()
        calls = recorded(tree.outermost, self.pixels)
        return {
            "name": card.name if card is not None else None,
            "weights": card.weights.sha256 if card is not None and card.weights else None,
            "settings": device.settings() | kernels.settings() | made,
            "options": plain_options(options, self.zoo),
            "nfe": float(self.model.nfe(options)),
            "load_seconds": self.load_seconds,
            "first_seconds": first,
            "compile_seconds": compile_seconds,
            "whole": whole,
            "network": repeat(device, replay(calls), task.seconds) if calls else None,
            "memory": memory,
            "joules": None if used is None or spent is None else (spent - used) / (len(whole.wall) * task.batch),
            "before": before,
            "after": after,
        }


def measure(task: Task, zoo: Zoo) -> Row:
    """The task's row. Whatever fails is a row that says so."""
    torch.set_num_threads(task.threads)
    if not task.slow and not devices.has_units(task.device, task.dtype):
        return Row(task=task, status="refused", why=NO_UNITS.format(dtype=task.dtype))
    try:
        return _measured(task, zoo)
    except Refused as error:
        return Row(task=task, status="refused", why=str(error))
    except Exception as error:  # a third party's code may raise anything; the other rows are still wanted
        status: Status = "out of memory" if out_of_memory(error) else "failed"
        return Row(task=task, status=status, why=shorten(cause(error), 2000))


def _measured(task: Task, zoo: Zoo) -> Row:
    subject = Subject(task, zoo)
    found = subject.row()
    # From a whole batch: another size would be compiled anew.
    images = subject.images(subject.task.batch)[:GATED]
    done, largest, few = subject.task, task.batch == 0, len(images)
    del subject  # two models at a time may not fit
    gc.collect()
    plain = Subject(done.model_copy(update={"dtype": "fp32"}), zoo)
    off = images - plain.images(few)
    difference, rms = float(off.abs().max()), float(off.square().mean().sqrt())
    why = done.objection(difference, rms)
    if why is not None:
        return Row(task=done, largest=largest, status="refused", why=why)
    return Row(
        task=done,
        largest=largest,
        status="ok",
        difference=difference,
        rms_difference=rms,
        flops=count_flops(plain.model, plain.given(1)),
        **found,
    )
