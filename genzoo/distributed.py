"""Several processes that work as one, as torchrun starts them; a single process is a world of its own.

Whoever drives a long run takes a ``World`` and need not know how many processes there are.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genzoo.errors import GenzooError

T = TypeVar("T")

#: How long one waits for another that neither answers nor dies; a process that dies breaks its connection, and is
#: noticed at once. Between two meetings the first process may write a checkpoint, the others a whole shard.
PATIENCE = datetime.timedelta(hours=24)


class World:
    """The processes of a run, seen from one of them.

    Every method but ``share`` is called by all processes, in the same order.

    Args:
        rank: which one this is, from 0; the first writes what is written once.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list that is dealt out like cards."""
        return items[self.rank :: self.size]

    def part(self, rows: Tensor) -> Tensor:
        """This process's part of a batch whose length ``size`` divides: the rank-th of ``size`` equal pieces."""
        return rows.chunk(self.size)[self.rank]

    def by_first(self, work: Callable[[], T]) -> T:
        """The outcome of ``work``, done by the first process alone, on all; it must be what JSON holds.

        A user's mistake (GenzooError) or a failing disk (OSError) is raised on all as well.
        """
        if self.size == 1:
            return work()
        told: dict[str, Any] = {}
        failure: GenzooError | OSError | None = None
        if self.first:
            try:
                told = {"outcome": work()}
            except (GenzooError, OSError) as error:
                failure, told = error, {"error": str(error)}
        told = json.loads(self._tell(json.dumps(told)))
        if failure is not None:
            raise failure
        if "error" in told:
            raise GenzooError(told["error"])
        outcome: T = told["outcome"]
        return outcome

    def _tell(self, text: str) -> str:
        """The first process's text, on all."""
        raw = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(raw))
        with _meeting():
            dist.broadcast(length, 0)
            raw = raw if self.first else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(raw, 0)
        return bytes(raw.tolist()).decode()

    def wait(self) -> None:
        """Return when all have come here."""
        if self.size > 1:
            with _meeting():
                dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether one process says yes."""
        return self.means({"": float(flag)})[""] > 0

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes of each value; NaN of one is NaN for all."""
        if self.size == 1 or not values:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        with _meeting():
            dist.all_reduce(total)
        return dict(zip(values, (total / self.size).tolist(), strict=True))


class Replicas:
    """Keeps what a recipe trains bit-equal on all processes, whatever its ``step`` looks like.

    A hook on every parameter that an optimizer holds takes the mean of its gradient over the processes, as soon as
    ``backward`` has worked it out and before anything reads it: clipping and the update see the gradient of the whole
    batch. Buffers (batch-norm statistics, a mean latent, the strength of an augmentation) are the first process's after
    every step, as in ``DistributedDataParallel``.

    What is equal to one process, and what is not: a loss that is a mean over images has, to rounding, the gradient of
    the whole batch. Statistics over a batch (batch norm, the minibatch standard deviation) are those of each process's
    part. Noise is drawn for each process's part from a stream of its own.

    Args:
        world: the processes.
        parts: a recipe's, equal on all processes at the start.
    """

    def __init__(self, world: World, parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> None:
        self.world = world
        self.modules = [part for part in parts.values() if isinstance(part, nn.Module)]
        if world.size == 1:
            return
        optimizers = [part for part in parts.values() if isinstance(part, torch.optim.Optimizer)]
        trained = {p: None for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(self._average)

    def _average(self, parameter: Tensor) -> None:
        # What an earlier backward left here is a mean already, and the mean of equal numbers leaves it so.
        if parameter.grad is not None:
            with _meeting():
                dist.all_reduce(parameter.grad)
            parameter.grad /= self.world.size

    @torch.no_grad()
    def after_step(self) -> None:
        """Give all processes the first one's buffers."""
        if self.world.size == 1:
            return
        with _meeting():
            for buffer in (buffer for module in self.modules for buffer in module.buffers()):
                dist.broadcast(buffer, 0)


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """The world of this process: that of torchrun where it started it, else this process alone.

    Processes talk by gloo, and about tensors on a GPU by NCCL; "cuda" is the GPU of the process's own number.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    if size == 1:
        yield World(device=device)
        return
    backend = "gloo"
    if torch.device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    # Its functions have the group of all processes as a default argument, which is bound when it is first imported: an
    # optimizer's first step does so, through torch._dynamo. Imported before there is a group, it holds none. Imported
    # later, it would keep the group alive after its end, and gloo's threads with it, which abort a process that exits
    # while one of them lets go of a tensor.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend, timeout=PATIENCE)
    world = World(dist.get_rank(), size, device)
    yield world
    # Only at a good end: after a failure the others may never answer, and the end of the process closes all. Together:
    # a process whose peer closes before it is through with the last meeting may be aborted by gloo.
    world.wait()
    dist.destroy_process_group()


@contextlib.contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = (str(error).splitlines() or ["no message"])[0]
        raise GenzooError(f"another process of this run ended; see what it said before this ({why})") from error
