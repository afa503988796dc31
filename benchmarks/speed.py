"""genzoo against diffusers' own pipeline: same weights, scheduler, steps and noise, in one process, in turns.

python benchmarks/speed.py                            eager: three networks at batch 1, 8 and 64
python benchmarks/speed.py --compile off,default      and compiled by torch, both libraries alike
python benchmarks/speed.py --clock process            on a busy machine: the processor's time, one thread

Prints and writes for each: how many times faster genzoo is, with its interval; the largest difference of a pixel, which
must be below 1e-4; the share of the physical limit that its forward pass reaches (see limit.py), and what the walk adds
to bare forward passes. Compiled is what ``genzoo bench --compile`` compiles; where torch gives up, there is no row, and
the reason is told. Peak memory needs a process each: genzoo bench FOLDER diffusers:FOLDER, with --save FOLDER here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import click
from limit import limit_of, quickest
from peers import ARCHITECTURES, Pair
from pydantic import model_validator
from ratios import Clock, Ratio, Rows, interleaved

from genzoo.bench.calls import Tree, eager, recorded, replay
from genzoo.bench.compiler import Refused, compiled
from genzoo.bench.devices import find
from genzoo.bench.records import Compile
from genzoo.cli.bench import parse_choices
from genzoo.frozen import Count, Frozen, Label, Number, Seq

HERE = Path(__file__).parent

#: How far two libraries' pixels may be apart.
BOUND = 1e-4

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
        limit_seconds: of the arithmetic that this pass issues in eager mode, alone; null in rows from before it was
            counted for compiled ones.
        walk: the whole walk against the same forward passes alone; below 1, the walk costs something.
    """

    network: Label
    batch: Count
    steps: Count
    compile: Label
    difference: Number
    speedup: Ratio
    forward_seconds: Number
    limit_seconds: Number | None
    walk: Ratio

    @model_validator(mode="after")
    def _alike(self) -> Comparison:
        if not self.difference <= BOUND:
            raise ValueError(f"{self.network}: pixels differ by {self.difference:g}, more than {BOUND:g}")
        return self

    @property
    def share(self) -> float | None:
        """Of the physical limit."""
        return None if self.limit_seconds is None else self.limit_seconds / self.forward_seconds


class Comparisons(Rows):
    """All of a run."""

    format: Literal["genzoo.speed/1"] = "genzoo.speed/1"
    rows: Seq[Comparison]


def compare(pair: Pair, batch: int, steps: int, mode: Compile, repetitions: int, clock: Clock) -> Comparison:
    """Measure one row; raises Refused where torch does not compile what it should."""

    def ours() -> object:
        return pair.make_ours(batch, steps)

    def theirs() -> object:
        return pair.make_theirs(batch, steps)

    # By two steps it is seen which modules are told numbers that change.
    modules = [*Tree(pair.ours, lambda: pair.make_ours(1, 2)).compilable, pair.theirs.unet]
    # What this row compiles is as it was when the next one begins.
    with eager(modules):
        calls = recorded(modules[:-1], ours)
        first = replay(calls[:1])
        limit = limit_of(first, clock)
        if mode != "off":
            compiled(find("cpu"), modules, mode, lambda: (ours(), theirs()))
        return Comparison(
            network=pair.name,
            batch=batch,
            steps=steps,
            compile=mode,
            difference=pair.difference(batch, steps),
            speedup=interleaved(ours, theirs, repetitions, clock),
            forward_seconds=quickest(first, clock, 0.5),
            limit_seconds=limit,
            walk=interleaved(ours, replay(calls), repetitions, clock),
        )


def line(row: Comparison) -> str:
    """A row in words."""
    share = "" if row.share is None else f", {row.share:.0%} of the limit"
    return (
        f"{row.network}, batch {row.batch}, compile {row.compile}: {row.speedup.value:.3f} times diffusers "
        f"({row.speedup.low:.3f} to {row.speedup.high:.3f}), forward {1e3 * row.forward_seconds:.2f} ms{share}, "
        f"walk {1 / row.walk.value - 1:+.1%} over the network alone, pixels within {row.difference:.1e}"
    )


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(ARCHITECTURES)), help="By default all.")
@click.option("--batch", "batches", default="1,8,64", show_default=True)
@click.option("--steps", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--compile", "modes", default="off", show_default=True, help=f"With commas: {', '.join(MODES)}.")
@click.option("--repetitions", default=15, show_default=True, type=click.IntRange(min=3))
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
