"""``genzoo compare``: measure models alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from genzoo.cli.arguments import FOLDER, Sampling, check_count, command_line, parse_seeds, sampling_options
from genzoo.cli.progress import watched
from genzoo.cli.report import check_folder, check_measure, write
from genzoo.errors import OptionError
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from genzoo.results import Results


class Sizes(NamedTuple):
    """Pictures a repetition, repetitions, and pictures at each point of a control curve."""

    n: int
    repeats: int
    control_n: int


#: Of --quick, and without it.
QUICK = Sizes(200, 1, 0)
WHOLE = Sizes(1000, 3, 200)


@click.command()
@click.argument("models", nargs=-1)
@click.option("-n", "--count", type=int, help=f"Pictures per model and repetition; by default {WHOLE.n}.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    help=f"Repetitions, each with other seeds; by default {WHOLE.repeats}, with --seeds 1.",
)
@click.option("--seeds", help="Seeds of all repetitions, as 0-999 or 3,5,9; by default 0 and those that follow.")
@click.option(
    "--control-n",
    type=click.IntRange(min=0),
    help="Pictures at each point of the curves of guidance and truncation; "
    f"by default {WHOLE.control_n}, 0 for no curves.",
)
@click.option(
    "--quick",
    is_flag=True,
    help=f"A look in less than a minute: {QUICK.n} pictures per model, once, timed briefly, and no curves.",
)
@click.option(
    "-o", "--out", type=FOLDER, default=Path("genzoo-report"), show_default=True, help="Folder of the report."
)
@click.option("--dataset", default="fashion-mnist", show_default=True, help="What the models are held against.")
@click.option("--extractor", help="What looks at the pictures; by default the one that knows the data set.")
@click.option("--metric", "metrics", multiple=True, help="A metric, as frechet; several may be given. By default all.")
@click.option("--sort", help="Measure that orders the models, as throughput; by default frechet.")
@click.option("--no-speed", is_flag=True, help="Leave time and memory out.")
@sampling_options(dtype=False)
def compare(
    models: tuple[str, ...],
    count: int | None,
    repeats: int | None,
    seeds: str | None,
    control_n: int | None,
    quick: bool,
    out: Path,
    dataset: str,
    extractor: str | None,
    metrics: tuple[str, ...],
    sort: str | None,
    no_speed: bool,
    sampling: Sampling,
) -> None:
    """Measure MODELS alike, print a table and write a report.

    MODELS are names (see genzoo list) or folders that genzoo train wrote; by default all that were trained on the data
    set, but for those that only guide others. The report is HTML that opens from disk, Markdown, and the results as
    JSON. After Ctrl-C it holds the models that were measured until then.
    """
    usual = QUICK if quick else WHOLE
    check_folder(out)
    if seeds is not None and count is not None:
        raise OptionError("--seeds says how many pictures there are; leave -n out")
    if repeats is None:
        repeats = usual.repeats if seeds is None else 1
    chosen = parse_seeds(seeds) if seeds else range(check_count(usual.n if count is None else count) * repeats)
    from genzoo.comparison import Comparison, Request, fitting_models
    from genzoo.report.costs import COSTS
    from genzoo.runs import DISTANCE

    zoo = default_zoo()
    request = Request(
        models=models or fitting_models(zoo, dataset),
        seeds=chosen,
        repeats=repeats,
        dataset=dataset,
        extractor=extractor,
        metrics=metrics or None,
        options=sampling.options,
        batch=sampling.batch,
        device=sampling.device,
        exact=sampling.exact,
        control_n=usual.control_n if control_n is None else control_n,
        speed=not no_speed,
        quick=quick,
        command=command_line(),
    )
    comparison = Comparison(zoo, request)
    check_measure(sort, [*comparison.metrics, *(measure.key for measure, _ in COSTS)])
    try:
        for _ in watched(comparison.run(), "image"):
            pass
    except KeyboardInterrupt:
        if comparison.rows:
            keep(comparison.results(), out, sort or DISTANCE)
        raise
    keep(comparison.results(), out, sort or DISTANCE)


def keep(results: Results, out: Path, sort: str) -> None:
    """Write the results, then their report: whatever that meets, what took minutes is kept."""
    results.write(out / results.FILE)
    write(results, out, sort)


COMMANDS = (compare,)
