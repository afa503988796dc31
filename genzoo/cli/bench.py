"""``genzoo bench``: what models cost, by one protocol for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from genzoo.cli.arguments import FOLDER, command_line, device_option, model_options
from genzoo.errors import GenzooError, OptionError, quoted
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genzoo.bench.records import Benchmark, Row
    from genzoo.registry import Zoo

DTYPES = ("fp32", "bf16", "fp16")
COMPILES = ("off", "default", "reduce-overhead", "max-autotune", "freezing")


@click.command()
@click.argument("models", nargs=-1)
@device_option
@click.option("--dtype", "dtypes", default="fp32", show_default=True, help=f"Of the weights: {', '.join(DTYPES)}.")
@click.option("--batch", "batches", default="1,8,64", show_default=True, help="Images a call; max: the most that fit.")
@click.option("--compile", "compiles", default="off", show_default=True, help=f"{', '.join(COMPILES)}.")
@click.option("--replicas", default=1, show_default=True, help="Processes at once, by torchrun, a GPU each.")
@click.option("--seconds", default=10.0, show_default=True, help="Of repetitions, for each timing.")
@click.option("--bound", type=float, help="Accepted difference of a pixel from float32 eager; by default the dtype's.")
@click.option("--slow", is_flag=True, help="Also a dtype that the processor only imitates.")
@click.option("--note", default="", help="What else a reader of the results should know.")
@model_options
@click.option(
    "-o", "--out", type=FOLDER, default=Path("genzoo-bench"), show_default=True,
    help="Folder of bench.json; rows that it holds already are not measured again.",
)  # fmt: skip
def bench(
    models: tuple[str, ...],
    device: str,
    dtypes: str,
    batches: str,
    compiles: str,
    replicas: int,
    seconds: float,
    bound: float | None,
    slow: bool,
    note: str,
    options: dict[str, Any],
    out: Path,
) -> None:
    """Measure what MODELS cost: time, memory, energy, a fresh process for every row.

    MODELS are names (see genzoo list), folders, hf:owner/repo, or diffusers:PATH for a pipeline of that library; by
    default all of the catalogue but those that only guide others. Every row is held against float32 eager: one whose
    pixels differ too much is refused.
    """
    chosen = {
        "dtypes": parse_choices("--dtype", dtypes, DTYPES),
        "compiles": parse_choices("--compile", compiles, COMPILES),
        "batches": parse_batches(batches),
    }
    if replicas < 1 or seconds <= 0:
        raise OptionError("--replicas and --seconds must be positive")
    from tqdm import tqdm

    from genzoo.bench.sweep import Plan, sweep

    zoo = default_zoo()
    plan = Plan(
        models=models or working_models(zoo),
        options=options,
        device=device,
        replicas=replicas,
        seconds=seconds,
        bound=bound,
        slow=slow,
        command=command_line(),
        note=note,
        **cast(Any, chosen),
    )
    found: Benchmark | None = None
    with tqdm(total=len(plan.tasks(zoo)), unit="row", disable=None, leave=False) as bar:
        for done in sweep(zoo, plan, out):
            found = done
            bar.update()
    if found is not None:
        click.echo(table(found.rows))
        click.echo(f"\nresults: {out / found.FILE}")


def working_models(zoo: Zoo) -> list[str]:
    """The zoo's contenders; one whose plugin fails is left out, and told."""
    found = []
    for card in zoo.contenders():
        try:
            zoo.find("generator", card.generator)
        except GenzooError as error:
            click.echo(f"{card.name} is left out: {error}", err=True)
        else:
            found.append(card.name)
    return found


def parse_choices(option: str, text: str, known: Sequence[str]) -> list[str]:
    """A list with commas of known words; raises OptionError for another one, or one twice."""
    chosen = [part.strip() for part in text.split(",")]
    wrong = next((word for word in chosen if word not in known), None)
    if wrong is not None or len(set(chosen)) != len(chosen):
        raise OptionError(f"{option} {quoted(text)}: write some of {', '.join(known)}, each once, with commas between")
    return chosen


def parse_batches(text: str) -> list[int]:
    """ "1,8,64,max" as numbers, 0 for max."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "max" or (part.isdecimal() and 0 < int(part) <= 1 << 20) for part in parts):
        raise OptionError(f"--batch {quoted(text)}: write numbers of images and max, as 1,8,64,max")
    return list(dict.fromkeys(0 if part == "max" else int(part) for part in parts))


def table(rows: Sequence[Row]) -> str:
    """The rows, for a terminal."""
    columns = "model dtype compile batch NFE n images/s ms/image IQR p90 network MB difference"
    head = tuple(columns.split())
    lines = [head, *(cells(row) for row in rows)]
    # A row without a timing ends in a sentence, which no column has to be wide enough for.
    whole = [line for line in lines if len(line) == len(head)]
    widths = [max(len(line[i]) for line in (lines if i < 4 else whole)) for i in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row's cells; one without a timing says why in the fifth. One repetition has neither a range nor a p90."""
    task = row.task
    batch = f"{task.batch or 'max'}{'*' if row.largest else ''}{f' x {task.replicas}' if task.replicas > 1 else ''}"
    start = (task.model, task.dtype, task.compile, batch)
    if row.whole is None or row.memory is None:
        return (*start, f"{row.status}: {row.why}")
    milliseconds, count = 1e3 / task.batch, len(row.whole.wall)
    share = "" if row.network is None else f"{row.network.median / row.whole.median:.1%}"
    peak = None if row.memory.peak is None else row.memory.peak - (row.memory.base or 0)
    return (
        *start,
        f"{row.nfe:g}",
        str(count),
        f"{row.images_per_second:.4g}",
        f"{row.whole.median * milliseconds:.4g}",
        f"{row.whole.spread * milliseconds:.2g}" if count > 1 else "",
        f"{row.whole.quantile(0.9) * milliseconds:.4g}" if count > 1 else "",
        share,
        "" if peak is None else f"{peak / 1e6:.0f}",
        f"{row.difference:.1e}",
    )


COMMANDS = (bench,)
