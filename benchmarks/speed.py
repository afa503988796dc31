"""genzoo against diffusers' own pipeline: same weights, scheduler, steps and noise, in one process, in turns.

python benchmarks/speed.py                            eager: three networks at batch 1, 8 and 64
python benchmarks/speed.py --compile off,default      and compiled by torch, both libraries alike
python benchmarks/speed.py --clock process            on a busy machine: the processor's time, one thread

Prints and writes for each: how many times faster genzoo is, with its interval; the largest difference of a pixel, which
must be below 1e-4; the share of the physical limit that its forward pass reaches (see limit.py), and what the walk adds
to the network's own time. Compiled is what ``genzoo bench --compile`` compiles; where torch gives up, there is no row,
and the reason is told. Peak memory needs a process each: genzoo bench FOLDER diffusers:FOLDER, with --save FOLDER here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import click
from limit import arithmetic, quickest
from peers import ARCHITECTURES, Pair
from pydantic import model_validator
from ratios import CLOCKS, Clock, Ratio, Rows, interleaved

from genzoo.bench.calls import Tree, eager, recorded, replay
from genzoo.bench.compiler import Refused, compiled
from genzoo.bench.devices import find
from genzoo.bench.records import Compile
from genzoo.cli.bench import parse_choices
from genzoo.frozen import Count, Frozen, Label, Number, Seq

HERE = Path(__file__).parent

#: How far two libraries' pixels may be apart.
BOUND = 1e-4

#: Both make images for so long, if that takes no more repetitions than this.
SECONDS, MOST = 6.0, 50

#: Torch's modes that mean something on a CPU, and none.
MODES: tuple[Compile, ...] = ("off", "default", "max-autotune", "freezing")


class Comparison(Frozen):
    """One network at one batch size.

    Attributes:
        network, batch, steps: what was run.
        compile: torch's mode, in which both libraries' networks were compiled, or off.
        difference: the largest of a pixel in [-1, 1].
        speedup: genzoo against diffusers, both from seeds to pixels.
        forward_seconds: of our network's forward pass within a walk, the quickest.
        limit_seconds: of the arithmetic that this pass issues in eager mode, alone.
        walk: the time inside of the network while images are made, over that of the whole walk, in the same
            repetitions: passes, and what the network works out beforehand for all times. The walk costs the rest.
    """

    network: Label
    batch: Count
    steps: Count
    compile: Label
    difference: Number
    speedup: Ratio
    forward_seconds: Number
    limit_seconds: Number
    walk: Ratio

    @model_validator(mode="after")
    def _alike(self) -> Comparison:
        if not self.difference <= BOUND:
            raise ValueError(f"{self.network}: pixels differ by {self.difference:g}, more than {BOUND:g}")
        return self

    @property
    def share(self) -> float:
        """Of the physical limit."""
        return self.limit_seconds / self.forward_seconds


class Comparisons(Rows):
    """All of a run."""

    format: Literal["genzoo.speed/2"] = "genzoo.speed/2"
    rows: Seq[Comparison]


@contextlib.contextmanager
def watched(network: Any, now: Callable[[], float]) -> Iterator[list[float]]:
    """In the block, how long each call of a network took, and each look at the times of a walk."""
    spent: list[float] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begin = now()
            result = call(*args, **kwargs)
            spent.append(now() - begin)
            return result

        return run

    # Where a network is compiled, its call goes past its forward.
    compiled = network._compiled_call_impl
    if compiled is not None:
        network._compiled_call_impl = timed(compiled)
    else:
        network.forward = timed(network.forward)
    network.foresee = timed(network.foresee)
    try:
        yield spent
    finally:
        network._compiled_call_impl = compiled
        vars(network).pop("forward", None)
        vars(network).pop("foresee", None)


def shared(make: Callable[[], object], network: Any, repetitions: int, clock: Clock) -> Ratio:
    """The network's part of a walk's time."""
    now = CLOCKS[clock]
    whole, inside = [], []
    for _ in range(repetitions):
        with watched(network, now) as spent:
            begin = now()
            make()
            whole.append(now() - begin)
        inside.append(sum(spent))
    return Ratio.of(whole, inside, clock)


def compare(pair: Pair, batch: int, steps: int, mode: Compile, repetitions: int, clock: Clock) -> Comparison:
    """Measure one row; raises Refused where torch does not compile what it should."""

    def ours() -> object:
        return pair.make_ours(batch, steps)

    def theirs() -> object:
        return pair.make_theirs(batch, steps)

    # By two steps it is seen which modules are told numbers that change.
    (network,) = Tree(pair.ours, lambda: pair.make_ours(1, 2)).compilable
    modules = [network, pair.theirs.unet]
    # What this row compiles is as it was when the next one begins.
    with eager(modules):
        first = replay(recorded([network], ours)[:1])
        alone = arithmetic(first, clock)
        if mode != "off":
            compiled(find("cpu"), modules, mode, lambda: (ours(), theirs()))
        forward_seconds, limit_seconds = quickest([first, alone], clock, 2.0)
        begin = time.perf_counter()
        difference = pair.difference(batch, steps)
        repetitions = max(repetitions, min(MOST, int(SECONDS / (time.perf_counter() - begin))))
        return Comparison(
            network=pair.name,
            batch=batch,
            steps=steps,
            compile=mode,
            difference=difference,
            speedup=interleaved(ours, theirs, repetitions, clock),
            forward_seconds=forward_seconds,
            limit_seconds=limit_seconds,
            walk=shared(ours, network, repetitions, clock),
        )


def line(row: Comparison) -> str:
    """A row in words."""
    return (
        f"{row.network}, batch {row.batch}, compile {row.compile}: {row.speedup.value:.3f} times diffusers "
        f"({row.speedup.low:.3f} to {row.speedup.high:.3f}), forward {1e3 * row.forward_seconds:.2f} ms, "
        f"{row.share:.0%} of the limit, walk {1 / row.walk.value - 1:+.1%} over the network, "
        f"pixels within {row.difference:.1e}"
    )


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(ARCHITECTURES)), help="By default all.")
@click.option("--batch", "batches", default="1,8,64", show_default=True)
@click.option("--steps", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--compile", "modes", default="off", show_default=True, help=f"With commas: {', '.join(MODES)}.")
@click.option("--repetitions", default=10, show_default=True, type=click.IntRange(min=3), help="At least.")
@click.option("--clock", default="wall", show_default=True, type=click.Choice(["wall", "process"]))
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Also write the pipelines here.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=HERE / "results" / "speed.json")
def main(
    networks: tuple[str, ...],
    batches: str,
    steps: int,
    modes: str,
    repetitions: int,
    clock: Clock,
    save: Path | None,
    out: Path,
) -> None:
    """Compare the speed of genzoo and diffusers."""
    rows: list[Comparison] = []
    for name in networks or ARCHITECTURES:
        if save is not None:
            Pair(name).save(save / name)
        for mode in parse_choices("--compile", modes, MODES):
            pair = Pair(name)
            for batch in map(int, batches.split(",")):
                try:
                    rows.append(compare(pair, batch, steps, cast(Compile, mode), repetitions, clock))
                except Refused as error:
                    click.echo(f"{name}, batch {batch}, compile {mode}: no row, for {error}")
                else:
                    click.echo(line(rows[-1]))
    Comparisons.of(rows).write(out)


if __name__ == "__main__":
    main()
