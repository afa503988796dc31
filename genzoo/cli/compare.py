"""``genzoo compare`` and ``genzoo report``: measure models alike, and read the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genzoo.cli.arguments import check_count, command_line, parse_seeds, sampling_options, sampling_values
from genzoo.registry import default_zoo

if TYPE_CHECKING:
    from genzoo.results import Results

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("models", nargs=-1)
@click.option("-n", "--count", default=1000, show_default=True, help="Pictures per model.")
@click.option("--seeds", help="Their seeds, as 0-999 or 3,5,9; by default 0 to n - 1.")
@click.option(
    "-o", "--out", type=FOLDER, default=Path("genzoo-report"), show_default=True, help="Folder of the report."
)
@click.option("--dataset", default="fashion-mnist", show_default=True, help="What the models are held against.")
@click.option("--extractor", help="What looks at the pictures; by default the one that knows the data set.")
@click.option("--metric", "metrics", multiple=True, help="A metric, as frechet; several may be given. By default all.")
@click.option("--sort", default="frechet", show_default=True, help="Column that orders the table.")
@click.option("--no-speed", is_flag=True, help="Leave time and memory out.")
@sampling_options
def compare(
    models: tuple[str, ...],
    count: int,
    seeds: str | None,
    out: Path,
    dataset: str,
    extractor: str | None,
    metrics: tuple[str, ...],
    sort: str,
    no_speed: bool,
    steps: int | None,
    scheduler: str | None,
    guidance: str | None,
    extra: tuple[str, ...],
    batch: int,
    device: str,
    exact: bool,
) -> None:
    """Measure MODELS alike, print a table and write a report.

    MODELS are names (see genzoo list) or folders that genzoo train wrote; by default all that were trained on the data
    set. The report is HTML that opens from disk, Markdown, and the results as JSON.
    """
    check_count(count)
    chosen = parse_seeds(seeds) if seeds else list(range(count))
    given = sampling_values(steps, scheduler, guidance, extra)
    from tqdm import tqdm

    from genzoo import evaluate

    zoo = default_zoo()
    request = evaluate.Request(
        models=models or evaluate.fitting_models(zoo, dataset),
        seeds=chosen,
        dataset=dataset,
        extractor=extractor,
        metrics=metrics or None,
        options=given,
        batch=batch,
        device=device,
        exact=exact,
        speed=not no_speed,
        command=command_line(),
    )
    results = None
    # Two bars over each other would fight for the line: one bar, whose words say what it counts.
    with tqdm(total=1, unit="image", disable=None, leave=False) as bar:
        for event in evaluate.compare(zoo, request):
            bar.total, bar.n = event.total, event.done
            bar.set_description(event.what)
            results = event.results
    if results is None:
        return
    write(results, out, sort)


@click.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=FOLDER, default=Path("genzoo-report"), show_default=True, help="Folder of the report."
)
@click.option("--sort", default="frechet", show_default=True, help="Column that orders the table.")
def report(results: Path, out: Path, sort: str) -> None:
    """Write the report of RESULTS, a results.json of genzoo compare, again."""
    from genzoo.results import read_results

    write(read_results(results), out, sort)


def write(results: Results, out: Path, sort: str) -> None:
    """Print the table and write the report."""
    from genzoo.report import write_report
    from genzoo.report.table import terminal, verdicts

    paths = write_report(results, out, sort)
    click.echo(terminal(results, sort))
    click.echo()
    for line in verdicts(results):
        click.echo(line)
    failed = [model for model in results.models if model.failed]
    for model in failed:
        click.echo(f"{model.name} failed: {model.failed}", err=True)
    click.echo(f"\nreport: {paths[0]}")


COMMANDS = (compare, report)
