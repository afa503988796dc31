"""``genzoo report``: the pages of what was measured before, here or elsewhere."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genzoo.cli.arguments import FOLDER
from genzoo.errors import OptionError, ResultsError, UnknownName

if TYPE_CHECKING:
    from genzoo.results import Results, Stability


@click.command()
@click.argument("files", metavar="RESULTS...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=FOLDER, default=Path("genzoo-report"), show_default=True, help="Folder of the report."
)
@click.option("--sort", help="Measure that orders the models, as throughput; by default frechet.")
def report(files: tuple[Path, ...], out: Path, sort: str | None) -> None:
    """Write the report of RESULTS, files that genzoo compare and genzoo stability wrote, here or elsewhere.

    A file that genzoo bench wrote gives its times to the models of the others, in place of the short ones of a
    comparison.

    Several become one report of all their models. What cannot be compared is refused: results must share their data
    set, split, extractor, seeds and numbers of images. Time and memory are compared among rows of one machine only.
    """
    from genzoo.merge import Source, merge
    from genzoo.report.table import measures_of
    from genzoo.results import read_record
    from genzoo.runs import DISTANCE

    timings = [path for path in files if is_benchmark(path)]
    merged = merge([Source(str(path), read_record(path)) for path in files if path not in timings])
    record = with_times(merged, timings)
    check_measure(sort, measures_of(record))
    write(record, out, sort or DISTANCE)


def is_benchmark(path: Path) -> bool:
    """Whether a file begins as genzoo bench begins its files. Reading them takes torch, which reports do without."""
    from genzoo.files import open_regular

    with open_regular(path, ResultsError) as file:
        return re.search(rb'"format"\s*:\s*"genzoo\.bench/', file.read(100)) is not None


def with_times(record: Results | Sequence[Stability], files: Sequence[Path]) -> Results | Sequence[Stability]:
    """The record with the times of the benchmarks in ``files``, the last one's where several time a model."""
    from genzoo.results import Results

    if files and not isinstance(record, Results):
        raise OptionError(f"{files[0]} holds times alone; give a results.json of genzoo compare with it")
    if isinstance(record, Results) and files:
        from genzoo.bench.records import read_benchmark
        from genzoo.bench.timed import timed

        before = record.models
        for path in files:
            record = timed(record, read_benchmark(path))
        for model, old in zip(record.models, before, strict=True):
            if model.speed is not None and model.speed is old.speed:
                click.echo(
                    f"{model.name} keeps the short timing of its comparison: genzoo bench has none of the same weights "
                    "and options, in fp32, not compiled and at batch 1",
                    err=True,
                )
    return record


def check_folder(out: Path) -> None:
    """Refuse, before minutes are spent, a folder that could not be written."""
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"--out {out}: {there} is no folder that you may write to; choose another")


def check_measure(sort: str | None, known: Sequence[str]) -> None:
    """Refuse to order by what is not measured."""
    if sort is not None and sort not in known:
        raise UnknownName("measure", sort, known)


def write(record: Results | Sequence[Stability], out: Path, sort: str) -> None:
    """Print the table, and who wins what, and write the report."""
    from genzoo.report import terminal, write_report

    paths = write_report(record, out, sort)
    click.echo(terminal(record, sort, shutil.get_terminal_size((100, 24)).columns))
    click.echo(f"\nreport: {paths[0]}")


COMMANDS = (report,)
