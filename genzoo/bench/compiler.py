"""torch.compile for a row: what it made of a network, and no silence where it gave up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from genzoo.bench.records import Compile
from genzoo.errors import GenzooError

if TYPE_CHECKING:
    from genzoo.bench.devices import Device


#: Settings of torch's compiler for what is no mode of its own. With freezing the weights are constants: on a CPU they
#: are put into the kernels' order once, sums become part of the products, and no Python runs between the kernels. No
#: other mode does so. A weight that is changed afterwards goes unseen.
SETTINGS: Mapping[str, Mapping[str, bool]] = {"freezing": {"freezing": True, "cpp_wrapper": True}}


class Refused(GenzooError):
    """A row that would not be what it says it is."""


def compiled(
    device: Device, modules: Sequence[nn.Module], mode: Compile, call: Callable[[], object]
) -> tuple[float, dict[str, str]]:
    """Compile modules in place: (seconds of the first call after it, what the compiler made, for the row).

    Args:
        device: whose clock is used.
        modules: see ``calls.Tree.compilable``.
        mode: torch.compile's or one of ``SETTINGS``, not "off".
        call: makes images; all calls that are timed later are like it.

    Raises Refused where the compiler leaves the modules as they were, or leaves out what the mode promises.
    """
    if not modules:
        raise Refused("the model calls no module that could be compiled; leave --compile off")
    import torch._dynamo
    import torch._inductor.config
    from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    how: dict[str, object] = {"mode": None if mode == "default" else mode}
    if mode in SETTINGS:
        # Constants need no look before each call: at all weights, it takes a tenth of a small network's time. That is
        # safe in one graph alone. In pieces, two modules of one class would run with the weights of the first.
        options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        how = {"options": options, "fullgraph": True}
    for module in modules:
        module.compile(**how, dynamic=False)
    # By itself, torch goes on without the compiler once it has compiled the same code too often.
    try:
        with (
            torch._dynamo.config.patch(fail_on_recompile_limit_hit=True),
            torch._inductor.config.patch(dict(SETTINGS.get(mode, {}))),
        ):
            seconds = device.lap(call).wall
    except FailOnRecompileLimitHit:
        raise Refused(
            "torch.compile gave up: it had compiled the same code of this model too often; leave --compile off"
        ) from None
    except Unsupported as error:
        reason = str(error).partition("\n")[0].strip().rstrip(".")
        raise Refused(f"torch.compile cannot make one graph of the model ({reason}); name default") from None
    graphs, skipped = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
    if not graphs:
        raise Refused("torch.compile found nothing to compile in this model; leave --compile off")
    packed = sum(count for name, count in counters["inductor"].items() if name.endswith("weight_pack_matcher_count"))
    if mode == "freezing" and device.name == "cpu" and not packed:
        raise Refused("torch.compile put no weights into the kernels' order, as freezing promises; name default")
    if mode == "reduce-overhead" and skipped:
        raise Refused("torch.compile left out CUDA graphs, which are what reduce-overhead is for; name default")
    made = {"graphs": graphs, "graph_breaks": sum(counters["graph_break"].values()), "cuda_graphs_skipped": skipped}
    if packed:
        made["packed_weights"] = packed
    return seconds, {name: str(count) for name, count in made.items()}
