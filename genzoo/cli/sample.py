"""``genzoo sample``: a folder of very many images, by one process or several."""

from __future__ import annotations

from pathlib import Path

import click

from genzoo.cli.arguments import FOLDER, Sampling, check_count, labels_option, sampling_options, seed_option
from genzoo.registry import default_zoo


@click.command()
@click.argument("name")
@click.option("-n", "--count", default=50_000, show_default=True, help="How many images.")
@seed_option
@labels_option
@click.option("-o", "--out", required=True, type=FOLDER, help="Folder.")
@click.option(
    "--format",
    type=click.Choice(["safetensors", "png"]),
    default="safetensors",
    show_default=True,
    help="Files of many images, seeds and labels; or one PNG an image.",
)
@click.option("--shard", default=1000, show_default=True, help="Images that are finished together.")
@sampling_options(exact=False)
def sample(
    name: str,
    count: int,
    seed: int,
    labels: tuple[str, ...],
    out: Path,
    format: str,
    shard: int,
    sampling: Sampling,
) -> None:
    """Fill a folder with images of model NAME, by the thousand.

    The same command, typed again after whatever ended it, goes on where it stopped, and the files are those of a run
    that was never stopped; so they are with several processes: torchrun --nproc-per-node 2 -m genzoo sample NAME ...
    manifest.json says what the folder holds.
    """
    check_count(count)
    from tqdm import tqdm

    from genzoo import samples
    from genzoo.distributed import joined

    with joined(sampling.device) as world:
        events = samples.sample(
            default_zoo(),
            name,
            out,
            count=count,
            labels=labels,
            options=sampling.options,
            dtype=sampling.dtype,
            world=world,
            seed=seed,
            shard=shard,
            batch=sampling.batch,
            format=format,
        )
        started = next(events)
        share = f"process 1 of {world.size}" if world.size > 1 else None
        with tqdm(
            desc=share,
            total=started.mine,
            initial=started.done,
            unit="image",
            disable=None if world.first else True,
            leave=False,
        ) as bar:
            for progress in events:
                bar.update(progress.done - bar.n)
        if world.first:
            click.echo(f"{count} images in {out}")


COMMANDS = (sample,)
