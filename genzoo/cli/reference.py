"""``genzoo reference``: features of a data set, for an extractor to ship."""

from __future__ import annotations

from pathlib import Path

import click

from genzoo.cli.arguments import FOLDER
from genzoo.registry import default_zoo


@click.command()
@click.argument("extractor")
@click.argument("dataset")
@click.option("-o", "--out", required=True, type=FOLDER, help="Folder for the files.")
@click.option(
    "--train", "train_count", type=click.IntRange(min=1), default=10_000, show_default=True,
    help="Training images, from the first.",
)  # fmt: skip
def reference(extractor: str, dataset: str, out: Path, train_count: int) -> None:
    """Write what EXTRACTOR sees in DATASET: all of the test split, and the first training images.

    Measurements hold generated pictures against the first file; the second gives the floor that real pictures reach.
    """
    from genzoo.evaluate import write_reference

    for path in write_reference(default_zoo(), extractor, dataset, out, {"test": None, "train": train_count}):
        click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


COMMANDS = (reference,)
